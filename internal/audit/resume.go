package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// resume gives the chain as the file has it, or where that is empty as the one of
// the files beside it that has the newest record, whoever put that aside. A stream
// and a device begin a new one; others counts the files beside it where a file had
// to.
func (t *target) resume() (c *chain, others int, err error) {
	c = new(chain)
	if !t.regular {
		return c, 0, nil
	}
	found, err := c.resumeFrom(t.path)
	if err != nil || found {
		return c, 0, err
	}
	t.bare = true
	newest, others, err := t.newest()
	if err != nil {
		return nil, 0, fmt.Errorf("look for files put aside of audit.file: %w", err)
	}
	if newest == "" {
		return c, others, nil
	}
	c = new(chain)
	if _, err := c.resumeFrom(newest); err != nil {
		return nil, 0, err
	}
	_, err = c.resumeFrom(t.path) // what may be there without being a record
	return c, 0, err
}

// mostBeside bounds the files that are looked into for the newest record.
const mostBeside = 32

// newest gives the path of the file beside that ends with the record of the highest
// number, and how many there are; the newest that was put aside where none has
// numbers, and empty where there is none of these. Beside are those that were put
// aside, and what others such as logrotate make of the name: FILE.1, FILE-20261121.
// Packed ones are not read.
func (t *target) newest() (path string, others int, err error) {
	aside, err := t.aside()
	if err != nil {
		return "", 0, err
	}
	if len(aside) > 0 {
		path = aside[len(aside)-1] // names sort by age
	}
	list, err := os.ReadDir(filepath.Dir(t.path))
	if err != nil {
		return "", 0, err
	}
	type candidate struct {
		path string
		info os.FileInfo
	}
	var beside []candidate
	for _, e := range list {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(t.path))
		at := filepath.Join(filepath.Dir(t.path), e.Name())
		if !ok || rest == "" || !strings.ContainsRune(".-", rune(rest[0])) || !e.Type().IsRegular() || slices.Contains(aside, at) {
			continue
		}
		if info, err := e.Info(); err == nil {
			beside = append(beside, candidate{at, info})
		}
	}
	slices.SortFunc(beside, func(a, b candidate) int { return b.info.ModTime().Compare(a.info.ModTime()) })
	others = len(aside) + len(beside)
	var highest uint64
	if path != "" {
		highest, _ = lastNumber(path)
	}
	for _, c := range beside[:min(len(beside), mostBeside)] {
		if slices.Contains([]string{".gz", ".xz", ".bz2", ".zst"}, filepath.Ext(c.path)) {
			continue
		}
		if seq, ok := lastNumber(c.path); ok && seq > highest {
			path, highest = c.path, seq
		}
	}
	return path, others, nil
}

// lastNumber gives the number of the last record of a file, if it can be read and
// the record has one.
func lastNumber(path string) (seq uint64, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, false
	}
	end, err := readTail(f, info.Size())
	if err != nil || !end.found || end.link.Seq == nil || end.link.Prev == nil {
		return 0, false
	}
	return *end.link.Seq, true
}

// resumeFrom follows the last record of a file, or what stands there without being
// one.
func (c *chain) resumeFrom(path string) (found bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("go on with the chain of audit records: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("go on with the chain of audit records: %w", err)
	}
	end, err := readTail(f, info.Size())
	switch {
	case err != nil:
		return false, fmt.Errorf("go on with the chain of audit records in %s: %w", path, err)
	case end.found:
		c.seq = 0
		if end.link.Seq != nil {
			c.seq = *end.link.Seq
		}
		c.follow(end.text)
	case info.Size() > 0:
		c.fragment(end.text)
	}
	return end.found, nil
}
