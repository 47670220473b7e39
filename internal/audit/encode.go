package audit

import (
	"io"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"defender-proxy/internal/redact"
)

// timeFormat is RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// encode writes the record as a line. What callers or others can put into it
// passes through package redact once more, whoever filled the record in.
func (r *Record) encode(w io.Writer) {
	log := zerolog.New(w)
	e := log.Log().
		Str("time", r.Time.UTC().Format(timeFormat)).
		Str("event", string(r.Event)).
		Str("request_id", r.ID).
		Str("listener", r.Listener)
	text := func(key, value string) {
		if value != "" {
			e.Str(key, redact.Text(value))
		}
	}
	number := func(key string, value int64) {
		if value != 0 {
			e.Int64(key, value)
		}
	}
	address := func(key string, value netip.Addr) {
		if value.IsValid() {
			e.Stringer(key, value)
		}
	}
	elapsed := func(key string, value time.Duration) {
		if value != 0 {
			e.Float64(key, ms(value))
		}
	}
	text("client", r.Client)
	address("address", r.Address)
	address("via", r.Via)
	if r.Process {
		e.Uint32("uid", r.UID).Uint32("gid", r.GID).Int32("pid", r.PID)
	}
	text("certificate", r.Certificate)
	text("method", r.Method)
	if r.Operation != "" && r.Path != "" { // what a write went to
		e.Str("path", redact.Path(r.Path))
	} else {
		text("path", r.Path)
	}
	text("query", r.Query)
	text("file", r.File)
	text("tenant", r.Tenant)
	text("operation", r.Operation)
	text("sent_as", r.SentAs)
	text("class", r.Class)
	text("decision", r.Decision)
	text("rule", r.Rule)
	text("code", r.Code)
	text("reason", r.Reason)
	if len(r.Reported) > 0 {
		e.Strs("reported", r.Reported)
	}
	text("approval", r.Approval)
	text("approval_state", r.ApprovalState)
	text("approved_by", r.ApprovedBy)
	address("approver_address", r.ApproverAddress)
	if r.Annotated {
		e.Bool("annotated", true)
	}
	text("region", r.Region)
	text("region_reason", r.RegionReason)
	if len(r.Tried) > 1 {
		e.Strs("tried", r.Tried)
	}
	number("attempts", int64(r.Attempts))
	number("status", int64(r.Status))
	number("bytes_in", r.BytesIn)
	number("bytes_out", r.BytesOut)
	elapsed("first_byte_ms", r.FirstByte)
	elapsed("waited_ms", r.Waited)
	elapsed("duration_ms", r.Duration)
	text("token_uti", r.TokenUTI)
	text("user_agent", r.UserAgent)
	e.Send()
}

// ms gives milliseconds to a microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// encodeLost writes the line that tells of records which are not there.
func encodeLost(w io.Writer, now, since time.Time, count uint64, reason string) {
	log := zerolog.New(w)
	log.Log().
		Str("time", now.UTC().Format(timeFormat)).
		Str("event", string(Lost)).
		Uint64("count", count).
		Str("since", since.UTC().Format(timeFormat)).
		Str("reason", redact.Text(reason)).
		Send()
}
