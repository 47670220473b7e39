// Package audit writes down what happened: one record a request, refusals too,
// as one line of JSON.
//
// A write has two records: event "intent" before it is sent, so that nothing is
// changed without a trace, and event "request" with the outcome. The token, the
// query and bodies are never in a record; the token's uti is, by which Entra's
// sign-in log names it.
//
// proxy fills a Record and writes it, package admin counts it.
package audit

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Event says which of its records about a request this is.
type Event string

// The events.
const (
	Request Event = "request" // the outcome; every request has exactly one
	Intent  Event = "intent"  // a write that is about to be sent
)

// Record is what is known of one request. The zero value of a field means that
// it did not get so far, and is left out of the line.
type Record struct {
	Event     Event
	Time      time.Time // when the request came
	ID        string    // the request id of X-Request-Id and of a refusal's target
	Listener  string    // the listener's address
	Client    string    // the client group
	Address   netip.Addr
	Method    string
	Path      string // canonical, without the query; as it came, shortened, where it has no canonical form
	Tenant    string // the configured name
	Operation string // the catalog's id
	Class     string
	Decision  string // allowed, or refused
	Rule      string // the entry of allow or deny that decided
	Code      string // the refusal's code
	Reason    string // what lies behind a refusal or failure, for the operator
	Region    string // the region that answered, or was tried last
	// RegionReason is why the request went there first, in words.
	RegionReason string
	Tried        []string // the region of each attempt; in the line where there is more than one
	Attempts     int      // how often the request was sent or tried to be
	Status       int      // as the caller got it; 499 when it left before
	BytesIn      int64    // body from the caller
	BytesOut     int64    // body to the caller
	FirstByte    time.Duration
	Waited       time.Duration // because Microsoft asked for patience with a Retry-After
	Duration     time.Duration
	TokenUTI     string
	UserAgent    string
}

// Log writes records to one place. It is safe for concurrent use.
type Log struct {
	mu sync.Mutex // held while a line is written, so that lines stay whole
	w  io.Writer
	// file is what Open opened, which w is then; nil where it opened none.
	file *os.File
}

// New makes a Log that writes lines to w, one Write call each.
func New(w io.Writer) *Log { return &Log{w: w} }

// Open makes a Log for the configuration's audit.file: stdout, stderr, or the
// path of a file that is appended to and made with mode 0600.
func Open(name string, stdout, stderr io.Writer) (*Log, error) {
	switch name {
	case "stdout":
		return New(stdout), nil
	case "stderr":
		return New(stderr), nil
	}
	f, err := appendTo(name)
	if err != nil {
		return nil, err
	}
	return &Log{w: f, file: f}, nil
}

func appendTo(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit.file: %w", err)
	}
	return f, nil
}

// Reopen opens the path of audit.file again where it no longer leads to the file
// that is open, because that was moved or deleted, and reports whether it did.
// Every record is whole in one file or the other. After an error records go on
// into the file that is open.
func (l *Log) Reopen() (again bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return false, nil
	}
	open, err := l.file.Stat()
	if err != nil {
		return false, fmt.Errorf("look at audit.file: %w", err)
	}
	there, err := os.Stat(l.file.Name())
	switch {
	case err == nil && os.SameFile(open, there):
		return false, nil
	case err != nil && !os.IsNotExist(err):
		return false, fmt.Errorf("look at audit.file: %w", err)
	}
	f, err := appendTo(l.file.Name())
	if err != nil {
		return false, err
	}
	_ = l.file.Close() // each record is in it whole already
	l.w, l.file = f, f
	return true, nil
}

// Close closes the file that is open, if there is one.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

var lines = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Write writes one record. When it returns an error the record may be missing
// or cut off, and a request that depends on it must not be sent.
func (l *Log) Write(r *Record) error {
	line := lines.Get().(*bytes.Buffer)
	defer lines.Put(line)
	line.Reset()
	r.encode(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, err := l.w.Write(line.Bytes()); err != nil {
		return fmt.Errorf("write audit record: %w", err)
	} else if n < line.Len() {
		return fmt.Errorf("write audit record: %w", io.ErrShortWrite)
	}
	return nil
}

// timeFormat is RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

func (r *Record) encode(w io.Writer) {
	log := zerolog.New(w)
	e := log.Log().
		Str("time", r.Time.UTC().Format(timeFormat)).
		Str("event", string(r.Event)).
		Str("request_id", r.ID).
		Str("listener", r.Listener)
	text := func(key, value string) {
		if value != "" {
			e.Str(key, value)
		}
	}
	number := func(key string, value int64) {
		if value != 0 {
			e.Int64(key, value)
		}
	}
	text("client", r.Client)
	if r.Address.IsValid() {
		e.Stringer("address", r.Address)
	}
	text("method", r.Method)
	text("path", r.Path)
	text("tenant", r.Tenant)
	text("operation", r.Operation)
	text("class", r.Class)
	text("decision", r.Decision)
	text("rule", r.Rule)
	text("code", r.Code)
	text("reason", r.Reason)
	text("region", r.Region)
	text("region_reason", r.RegionReason)
	if len(r.Tried) > 1 {
		e.Strs("tried", r.Tried)
	}
	number("attempts", int64(r.Attempts))
	number("status", int64(r.Status))
	number("bytes_in", r.BytesIn)
	number("bytes_out", r.BytesOut)
	if r.FirstByte != 0 {
		e.Float64("first_byte_ms", ms(r.FirstByte))
	}
	if r.Waited != 0 {
		e.Float64("waited_ms", ms(r.Waited))
	}
	if r.Duration != 0 {
		e.Float64("duration_ms", ms(r.Duration))
	}
	text("token_uti", r.TokenUTI)
	text("user_agent", r.UserAgent)
	e.Send()
}

// ms gives milliseconds to a microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
