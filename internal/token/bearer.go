package token

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// redacted stands wherever a printed Bearer would show its token.
const redacted = "[redacted]"

// Bearer is one access token that was judged good. It is immutable and may be
// shared. However it is printed or encoded, it shows [redacted]; its value
// leaves through Authorization alone. The zero value carries no token.
type Bearer struct {
	// header is behind a pointer so that fmt shows an address even where it may
	// not call Format: for a Bearer in an unexported field of another struct.
	header *string
	claims *Claims

	acquired instant       // before the request for it was sent
	life     time.Duration // counted from acquired
	renewAt  time.Duration // age at which to fetch the next one

	// used is set by the first Current that returns the Bearer, and written
	// once only, so that readers share its cache line.
	used *atomic.Bool
}

// margin is how long before its death a token is no longer handed out: it has
// to live until Microsoft has read the request that carries it.
func margin(life time.Duration) time.Duration { return min(30*time.Second, life/20) }

// live reports whether the token may still be handed out.
func (b *Bearer) live(now instant) bool {
	return now.since(b.acquired) < b.life-margin(b.life)
}

// Live reports whether the token may still be sent: its life, less the margin,
// has not passed by either clock of the machine. A Bearer of the zero value is
// not live.
func (b *Bearer) Live() bool { return b != nil && b.header != nil && b.live(readClocks()) }

// Authorization is the value of an Authorization header, "Bearer …", or "" for
// the zero value. It allocates nothing. Never log it, and send it to a
// configured endpoint only.
func (b *Bearer) Authorization() string {
	if b == nil || b.header == nil {
		return ""
	}
	return *b.header
}

// Claims is what the token says of itself, shared between all callers: read
// only. It is nil for the zero value.
func (b *Bearer) Claims() *Claims { return b.claims }

// Expires is when the token's life ends, by this machine's wall clock. It is
// for display: whether a token is live is decided with both clocks and a
// margin, by Source.Current.
func (b *Bearer) Expires() time.Time { return b.acquired.time().Add(b.life) }

// String returns [redacted].
func (b Bearer) String() string { return redacted }

// GoString returns [redacted].
func (b Bearer) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (b Bearer) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// MarshalText gives [redacted].
func (b Bearer) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON gives "[redacted]".
func (b Bearer) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
