package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Verified is what Verify found.
type Verified struct {
	// Records counts those of the chain, and Unchained those in front of it, which
	// nothing vouches for.
	Records   uint64 `json:"records"`
	Unchained uint64 `json:"unchained"`
	// Broken counts lines that a crash or a full disk cut off, as the record behind
	// them confirms; and the very last line, if it has no end.
	Broken uint64 `json:"broken"`
	// First and Last are the numbers of the first and the last record, and Head is the
	// last one's hash.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Head  string `json:"head"`
	// Fault is the first fault; nil: there is none.
	Fault *Fault `json:"fault,omitempty"`
}

// FaultKind is how a chain is broken.
type FaultKind string

// The kinds.
const (
	Changed FaultKind = "changed" // the line is not the one that was written
	Missing FaultKind = "missing" // records that were written are not there
	Moved   FaultKind = "moved"   // a record stands where another belongs, or a second time
)

// Fault is where a chain is broken.
type Fault struct {
	File string    `json:"file"`
	Line int       `json:"line"` // from 1; of Missing the one behind the gap
	Kind FaultKind `json:"kind"`
	Text string    `json:"text"`
}

func (f *Fault) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text) }

// VerifyOptions say what else has to hold.
type VerifyOptions struct {
	// Head is a hash that was noted earlier, of a record that has to be there; empty:
	// none.
	Head string
	// Restarts lets a chain begin anew, which it does at each start of a proxy that
	// writes to a stream.
	Restarts bool
}

// ErrNoChain means that no record of the files has a hash of the one before.
var ErrNoChain = errors.New("no record has a hash of the one before: audit.chain was off when they were written")

// Verify reads the files of one chain, up to the first fault. They may be given in
// any order: that of the chain is found by the number of the first record of each,
// but with Restarts, or where one of them is no regular file. The name "-" is stdin.
//
// Who can write to the files can compute all hashes anew. That shows only by a Head
// that was kept elsewhere, as in the copies that syslog and the collector have.
func Verify(files []string, o VerifyOptions, stdin io.Reader) (*Verified, error) {
	if len(files) > 1 && !o.Restarts {
		var err error
		if files, err = inOrder(files); err != nil {
			return nil, err
		}
	}
	v := verifier{options: o}
	for _, name := range files {
		err := func() error {
			if name == "-" {
				return v.read("standard input", stdin)
			}
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			return v.read(name, f)
		}()
		if err != nil {
			return nil, fmt.Errorf("read audit records: %w", err)
		}
	}
	return v.end()
}

// inOrder sorts files by the number of the first record that has one.
func inOrder(files []string) ([]string, error) {
	type numbered struct {
		name string
		seq  uint64
	}
	var list []numbered
	for _, name := range files {
		info, err := os.Stat(name)
		if name == "-" || err == nil && !info.Mode().IsRegular() {
			return files, nil
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read audit records: %w", err)
		}
		n := numbered{name: name}
		s := scanner(f)
		for s.Scan() && n.seq == 0 {
			if l, ok := parseLink(bytes.TrimSuffix(s.Bytes(), []byte("\n"))); ok && l.Seq != nil {
				n.seq = *l.Seq
			}
		}
		_ = f.Close()
		if err := s.Err(); err != nil {
			return nil, fmt.Errorf("read audit records of %s: %w", name, err)
		}
		list = append(list, n)
	}
	slices.SortStableFunc(list, func(a, b numbered) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return 0
	})
	files = nil
	for _, n := range list {
		files = append(files, n.name)
	}
	return files, nil
}

// scanner gives lines with their ends, so that it shows when the last has none.
func scanner(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), longest)
	s.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i+1], nil
		}
		if atEOF && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	return s
}
