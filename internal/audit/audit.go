// Package audit writes down what happened: one record a request, refusals too,
// as one line of JSON. docs/audit.md tells operators what is in it, and
// docs/audit.schema.json programs.
//
// A write has two records: event "intent" before it is sent, so that nothing is
// changed without a trace, and event "request" with the outcome. The token, the
// values of the query and bodies are never in a record; the token's uti is, by
// which Entra's sign-in log names it.
//
// A Log has one place that counts, a file or a stream: a record that is not in it
// is an error, and WriteDurable waits until the disk has it. The others, syslog and
// a collector of OpenTelemetry, get a copy when they can take it. With a chain each
// record carries the hash of the one before, and Verify finds what was changed.
//
// proxy fills a Record and writes it, packages admin and usage count it, and cmd
// opens, runs and verifies.
package audit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	// Lost is written by the Log itself, where records are missing because they could
	// not be stored.
	Lost Event = "lost"
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

	// Query is the raw query as package redact leaves it.
	Query string
	// Via is the balancer or proxy that named Address, where one did.
	Via netip.Addr
	// UID, GID and PID are those of a Unix socket's peer, where Process is set.
	Process  bool
	UID, GID uint32
	PID      int32
	// Certificate names the client certificate that was presented: its URI, DNS
	// name or common name.
	Certificate string
	// Reported is what would have refused the request but for report mode: NotGranted,
	// MissingPermission or both.
	Reported []string
	// Approval is the id of the request for approval, ApprovalState its state,
	// ApprovedBy the client group that decided and ApproverAddress where it was.
	Approval, ApprovalState, ApprovedBy string
	ApproverAddress                     netip.Addr
	// Annotated says that the request id was appended to the comment.
	Annotated bool
	// SentAs is the operation that was sent in place of the one that was asked for.
	SentAs string
	// File is the host and path of a file whose download was relayed, without the
	// query, which is its signature.
	File string
}

// Settings say where records go. Only File is needed.
type Settings struct {
	// File is stdout, stderr, or the path of a file that is appended to and made with
	// mode 0600.
	File string
	// MaxBytes is the size that the file does not outgrow: it is put aside before, and
	// a new one begun; 0: never. It has a record at least. Keep is how many of those
	// put aside are kept; 0: all of them.
	MaxBytes int64
	Keep     int
	// Chain gives each record its number and the hash of the one before.
	Chain bool
	// Syslog is the address of a second place, as udp://, tcp:// or tls://HOST:PORT,
	// or unix:PATH. The ports that may be left out are 514, 514 and 6514.
	Syslog string
	// OTLP is the http:// or https:// URL of a collector, a third place. Without a
	// path it means /v1/logs.
	OTLP string
	// TLS is for tls:// of Syslog; nil: the authorities of the system.
	TLS *tls.Config
	// Transport carries requests to OTLP; nil: http.DefaultTransport.
	Transport http.RoundTripper
	// Version is the program's, told to Syslog and OTLP.
	Version string
	// Log is told when records begin to be lost and when that is over. The zero value
	// is silent.
	Log zerolog.Logger
}

// Log writes records. It is safe for concurrent use.
type Log struct {
	settings Settings
	places   []*place // beside the first
	ours     bool     // out is a file that we opened, and no stream

	turn *turn // held while a line is written, so that lines stay whole and in one order
	out  *target
	// missing counts the records since missingSince that could not be stored, and of
	// which no Lost record tells yet.
	missing      uint64
	missingSince time.Time
	told         uint64  // those of which such a record tells, and the process's log does not yet
	next         *commit // an fsync that has not begun, for whoever has written since the last
	flying       bool    // an fsync is under way
	syncFailed   bool    // the newest fsync did
	astray       bool    // the process's log was told that the path leads elsewhere and cannot be opened

	mu    sync.Mutex // held beside turn to change what follows, and never for long: either is enough to read it
	chain *chain     // nil: none
	stats Stats

	syncing sync.Mutex // held during an fsync
	// fsync is syncFile.
	fsync func(f *os.File, name bool) error
}

// New makes a Log that writes lines to w, one Write call each.
func New(w io.Writer) *Log { return &Log{turn: newTurn(), out: stream(w), fsync: syncFile} }

// Open makes a Log. An error names the key of the configuration that is wrong, and
// is ErrInUse where another process writes to the file.
func Open(s Settings, stdout, stderr io.Writer) (*Log, error) {
	l := &Log{turn: newTurn(), settings: s, fsync: syncFile}
	for _, other := range []struct {
		address string
		open    func(*Settings) (*place, error)
	}{{s.Syslog, newSyslog}, {s.OTLP, newOTLP}} {
		if other.address == "" {
			continue
		}
		p, err := other.open(&s)
		if err != nil {
			return nil, err
		}
		l.places = append(l.places, p)
	}
	switch s.File {
	case "stdout":
		l.out = stream(stdout)
	case "stderr":
		l.out = stream(stderr)
	default:
		l.ours = true
		var err error
		if l.out, err = openFile(s.File, s.MaxBytes, s.MaxBytes > 0 || s.Chain); err != nil {
			return nil, err
		}
	}
	if s.Chain {
		chain, others, err := l.out.resume()
		if err != nil {
			_ = l.out.close()
			return nil, err
		}
		if l.chain = chain; others > 0 {
			s.Log.Warn().Str("file", s.File).Int("others", others).Msg("a chain of audit records begins anew: audit.file has none to go on with, and none of the files beside it ends with one that can be read; packed ones are not looked into")
		}
	}
	return l, nil
}

// Run sends records to syslog and the collector until ctx ends, and then for
// flushTime at most what is still to be sent. Without it they get nothing.
func (l *Log) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, p := range l.places {
		wg.Go(func() { p.run(ctx) })
	}
	wg.Wait()
	<-ctx.Done()
	return nil
}

// Reopen opens the path of audit.file again where it no longer leads to the file
// that is open, because that was moved or deleted, and reports whether it did.
// Every record is whole in one file or the other. After an error records go on
// into the file that is open; ErrStalled is that a record in its way did not get
// there in time.
func (l *Log) Reopen() (again bool, err error) {
	if !l.ours {
		return false, nil
	}
	opened := make(chan bool, 1)
	err = l.turn.within(closeTime, func() error {
		again, err := l.out.reopen(l.retired)
		opened <- again
		return err
	})
	if errors.Is(err, ErrStalled) {
		return false, fmt.Errorf("open audit.file again: %w", err)
	}
	return <-opened, err
}

// Close closes the file that is open, if there is one. Writes fail from then on.
// It waits for a record that is being written, but not for ever: then it returns
// ErrStalled, and the end of the process closes the file. Streams stay as they are.
func (l *Log) Close() error {
	if !l.ours {
		return nil
	}
	err := l.turn.within(closeTime, l.out.close)
	if errors.Is(err, ErrStalled) {
		return fmt.Errorf("close audit.file: %w", err)
	}
	return err
}

// stream makes a target of what somebody else opened.
func stream(w io.Writer) *target {
	t := &target{w: w}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			t.handle = &handle{f: f, named: true} // its name is the matter of who opened it
		}
	}
	return t
}
