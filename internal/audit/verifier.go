package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode"
)

// verifier follows a chain line by line, up to the first fault.
type verifier struct {
	options VerifyOptions
	found   Verified
	chain   chain // of what was read
	begun   bool  // a record of the chain was read
	headMet bool

	here, last position // of this line, and of the last record
	// loose counts the lines since the last record that are none, from looseAt on. The
	// hash that the next record carries confirms them.
	loose     uint64
	looseAt   position
	looseOpen bool // the last of them has no end
	looseText bool // they are more than the white space and zeros that a crash leaves
	// doubted is a record that carries another hash than that of the record before, at
	// doubter: one of the two was changed, and the next record tells which.
	doubted *position
	doubter position
	// sought are the numbers of records that are missing where they belong: they may
	// stand further on, if not zero.
	sought span
}

// span is a range of numbers, both ends included.
type span struct{ first, last uint64 }

type position struct {
	file string
	line int
}

// read reads a file.
func (v *verifier) read(name string, r io.Reader) error {
	v.here = position{file: name}
	s := scanner(r)
	for (v.found.Fault == nil || v.sought != span{}) && s.Scan() {
		v.here.line++
		line, ended := bytes.CutSuffix(s.Bytes(), []byte("\n"))
		v.take(line, ended)
	}
	switch err := s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		v.here.line++
		v.fault(Changed, v.here, "the line is longer than any record")
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (v *verifier) fault(k FaultKind, at position, format string, args ...any) {
	if v.found.Fault == nil {
		v.found.Fault = &Fault{File: at.file, Line: at.line, Kind: k, Text: fmt.Sprintf(format, args...)}
	}
}

// missing is a fault that may turn out to be another: records that are not here may
// stand further on.
func (v *verifier) missing(first, last uint64, format string, args ...any) {
	v.fault(Missing, v.here, format, args...)
	if !v.options.Restarts { // which has other records of the same numbers
		v.sought = span{first, last}
	}
}

// seek looks for the first of the missing records that stands further on.
func (v *verifier) seek(l link) {
	if l.Seq == nil || *l.Seq < v.sought.first || *l.Seq > v.sought.last {
		return
	}
	v.found.Fault.Kind = Moved
	if v.sought.first == v.sought.last {
		v.found.Fault.Text = fmt.Sprintf("record %d is not here, but further on, at %s:%d", *l.Seq, v.here.file, v.here.line)
	} else {
		v.found.Fault.Text = fmt.Sprintf("%s not here; record %d is further on, at %s:%d", numbers(v.sought.first, v.sought.last), *l.Seq, v.here.file, v.here.line)
	}
	v.sought = span{}
}

// take looks at a line.
func (v *verifier) take(line []byte, ended bool) {
	l, ok := parseLink(line)
	if v.found.Fault != nil {
		v.seek(l)
		return
	}
	if !ok && json.Valid(bytes.TrimFunc(line, unseen)) {
		// Half a record is no JSON, and a whole one is never written like this.
		v.fault(Changed, v.here, "the line is JSON and no record: it was changed, or put in")
		return
	}
	if !ok {
		if v.loose == 0 {
			v.looseAt, v.looseText = v.here, false
		}
		v.loose++
		v.looseOpen = !ended
		v.looseText = v.looseText || len(bytes.TrimFunc(line, unseen)) > 0
		v.chain.fragment(line)
		return
	}
	sum := v.chain.sum() // of the record before and what stands behind it
	v.headMet = v.headMet || sum == v.options.Head
	switch {
	case v.doubted != nil:
		v.decide(l.Prev != nil && *l.Prev == sum)
		return
	case l.Seq != nil && l.Prev != nil:
		if !v.fits(*l.Seq, *l.Prev, sum, l.Begins, line) {
			return
		}
		v.accept(*l.Seq, line)
	case v.begun || l.Seq != nil || l.Prev != nil:
		v.fault(Changed, v.here, "the record has no number, or no hash of the one before it")
		return
	default:
		v.found.Unchained++
		v.chain.follow(line)
	}
	v.found.Broken += v.loose
	v.loose = 0
	v.last = v.here
}

// fits reports whether a record is the next of the chain.
func (v *verifier) fits(seq uint64, prev, sum string, begins bool, line []byte) bool {
	next := v.chain.seq + 1
	switch {
	case seq == next && prev == sum:
		return true
	case v.options.Restarts && seq == 1 && prev == genesis:
		return true
	case !v.begun && v.found.Unchained == 0 && seq > 1:
		// What was given begins in the middle of the chain. It may, at the beginning of a
		// file.
		switch {
		case !begins:
			v.missing(1, seq-1, "the file did not begin with record %d: records before it are missing", seq)
		case v.loose > 0 && v.looseText:
			v.fault(Changed, v.looseAt, "the line is no record, and nothing vouches for it: it was put in front of record %d, or a crash left it and the file before is not here", seq)
		}
		return begins && v.found.Fault == nil
	case prev == sum:
		v.fault(Changed, v.here, "the record was changed: it says that it is number %d, and is number %d", seq, next)
	case seq == next:
		before := v.last
		v.doubted, v.doubter = &before, v.here
		v.loose = 0
		v.chain.follow(line)
	case seq < next:
		v.fault(Moved, v.here, "record %d stands behind record %d", seq, v.chain.seq)
	case v.loose > 0:
		v.fault(Changed, v.looseAt, "the line is no record, and %s missing", numbers(next, seq-1))
	default:
		v.missing(next, seq-1, "%s missing before record %d", numbers(next, seq-1), seq)
	}
	return false
}

// accept goes on with a record that is in its place.
func (v *verifier) accept(seq uint64, line []byte) {
	v.chain.seq = seq - 1
	v.chain.stored(line)
	v.found.Records++
	v.found.Last = seq
	if !v.begun {
		v.begun = true
		v.found.First = seq
	}
	v.found.Head = v.chain.sum()
	v.headMet = v.headMet || v.found.Head == v.options.Head
}

// decide tells which of two records was changed, by whether the one that follows
// confirms the second.
func (v *verifier) decide(second bool) {
	switch {
	case !second:
		v.fault(Changed, v.doubter, "the record was changed, or the one before it")
	case v.doubted.line == 0:
		v.fault(Changed, v.doubter, "what stands in front of the record was changed")
	default:
		v.fault(Changed, *v.doubted, "the record was changed, or what stands between it and the next")
	}
	v.doubted = nil
}

// end gives what was found.
func (v *verifier) end() (*Verified, error) {
	if v.doubted != nil {
		v.decide(false)
	}
	v.headMet = v.headMet || v.chain.sum() == v.options.Head
	switch {
	case v.found.Fault != nil:
	case !v.begun:
		return nil, ErrNoChain
	case v.loose > 1 || v.loose == 1 && !v.looseOpen:
		v.fault(Changed, v.looseAt, "the line is no record")
	case v.options.Head != "" && !v.headMet:
		v.fault(Missing, v.last, "the record with the hash %s is not there: the end is missing, or the whole was written anew", v.options.Head)
	default:
		v.found.Broken += v.loose // it is being written, or the machine went down
	}
	return &v.found, nil
}

// unseen reports whether a character shows nothing, as white space and zeros.
func unseen(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) }

func numbers(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("record %d is", first)
	}
	return fmt.Sprintf("records %d to %d are", first, last)
}
