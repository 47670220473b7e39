package credential

import (
	"context"
	"fmt"
	"sync"
	"time"

	"defender-proxy/internal/token"
)

// vaultEntry is one secret, for all that name it.
type vaultEntry struct {
	ref  secretRef
	line chan struct{} // the slots of the secret's vault, shared by its entries
	used time.Time     // guarded by Vault.mu

	mu     sync.Mutex
	text   veiled    // as it was read last; empty if it never was, or is of no use any more
	secret Secret    // the rest of it, without Text
	readAt time.Time // when that was
	// refused is set when Entra ID rejected text.
	refused bool
	fault   *token.Fault // of the last read, nil if it went well
	triedAt time.Time    // when that was
	pause   time.Duration
	// reading is closed at the end of the read that is under way; nil for none.
	reading chan struct{}
}

// settled reports whether what is known holds without asking the vault: the text
// is fresh, or the last read was a moment ago. e.mu is held.
func (e *vaultEntry) settled(now time.Time) bool {
	if e.usable(now) && !e.refused && e.fault == nil && now.Sub(e.readAt) < vaultFresh {
		return true
	}
	return !e.triedAt.IsZero() && now.Sub(e.triedAt) < e.pause
}

// usable reports whether the text may be given: it was read within a day, and its
// own date has not come. e.mu is held.
func (e *vaultEntry) usable(now time.Time) bool {
	return e.text.text() != "" && now.Sub(e.readAt) < vaultStale && !e.ended(now)
}

// ended reports whether the secret's own date has come. e.mu is held.
func (e *vaultEntry) ended(now time.Time) bool {
	return !e.secret.Expires.IsZero() && !now.Before(e.secret.Expires)
}

// wait waits for the end of the read that is under way or of ctx, and less long
// while there is a text to go on with. e.mu is held, but not meanwhile.
func (e *vaultEntry) wait(ctx context.Context, now time.Time) {
	reading := e.reading
	var late <-chan time.Time
	if e.usable(now) && !e.refused {
		t := time.NewTimer(patience(ctx, vaultPatience, 4))
		defer t.Stop()
		late = t.C
	}
	e.mu.Unlock()
	defer e.mu.Lock()
	select {
	case <-reading:
	case <-late:
	case <-ctx.Done():
	}
}

// keep notes what a read brought, and ends the wait for it.
func (e *vaultEntry) keep(s Secret, f *token.Fault, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.reading)
	e.reading = nil
	e.fault, e.triedAt, e.pause = f, now, vaultPause
	switch {
	case f == nil:
		// The same text again stays refused, until Entra ID takes it.
		e.refused = e.refused && s.Text == e.text.text()
		e.text, e.readAt = veil(s.Text), now
		e.secret = s
		e.secret.Text = ""
		return
	case !bridged(f.Kind):
		e.text, e.secret, e.refused = nil, Secret{}, false
	}
	e.pause = max(vaultPause, min(f.RetryAfter, vaultMaxPause))
}

// bridged reports whether the last secret is used beyond a fault of this kind: one
// that says nothing about the secret, or about the right to it.
func bridged(k token.Kind) bool {
	return k == token.Unreachable || k == token.Unavailable || k == token.Internal
}

// answer gives the secret that was read last within its bounds, else why there is
// none. e.mu is held.
func (e *vaultEntry) answer(now time.Time) (Secret, *token.Fault) {
	switch {
	case e.usable(now):
		return e.out(), nil
	case e.fault != nil:
		told := *e.fault
		told.RetryAfter = max(0, told.RetryAfter-now.Sub(e.triedAt))
		return Secret{}, &told
	case e.text.text() != "" && e.ended(now):
		return Secret{}, misconfigured(fmt.Sprintf("The secret %s ended by its own date, %s.", e.ref, e.secret.Expires.UTC().Format(time.RFC3339)),
			"Create a new version of it in the vault, with a client secret that is valid.")
	}
	return Secret{}, vaultTimeout(e.ref) // the read is still under way
}

// out is the secret with what its users need to know. e.mu is held.
func (e *vaultEntry) out() Secret {
	s := e.secret
	text := e.text.text()
	s.Text, s.kind = text, kindKeyVault
	if e.fault != nil {
		until := e.readAt.Add(vaultStale)
		if end := e.secret.Expires; !end.IsZero() && end.Before(until) {
			until = end
		}
		s.notice = fmt.Sprintf("The vault fails, and the secret that was read at %s is in use until %s at most: %s %s",
			e.readAt.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339), e.fault.Sentence, e.fault.Remedy)
	}
	s.judged = func(taken bool) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.text.text() == text {
			e.refused = !taken
		}
	}
	return s
}
