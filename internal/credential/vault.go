package credential

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"defender-proxy/internal/token"
)

const (
	// vaultFresh is how long a secret is used without asking the vault again. A
	// rotation is seen after this time, or when Entra ID rejects the old secret.
	vaultFresh = 15 * time.Minute
	// vaultStale is how long it is used while the vault cannot be read.
	vaultStale = 24 * time.Hour
	// vaultPause is the least time between two reads of one secret: a thousand
	// tenants whose secret is rejected shall not read it a thousand times.
	vaultPause = 10 * time.Second
	// vaultRest is how long a failing vault is left alone while a secret is at hand.
	vaultRest = time.Minute
	// vaultPatience bounds one read while a secret is at hand: the time is taken
	// from the token's fetch.
	vaultPatience = 5 * time.Second
)

// VaultOptions are what a Vault needs.
type VaultOptions struct {
	// Transport carries the requests to vaults and to Entra ID; nil means
	// http.DefaultTransport. For a machine's identity its proxy is left out.
	Transport http.RoundTripper
	// Env looks up the environment variables that say who the proxy is to the
	// vault, as os.LookupEnv does; nil means that there are none. Where the
	// machine's identity is, azidentity finds in the process's own environment.
	Env func(string) (string, bool)
	// AuthorityHost is the base URL of Entra ID; empty means AZURE_AUTHORITY_HOST,
	// and the commercial cloud without it.
	AuthorityHost string
}

// Vault reads secrets from Azure Key Vault. One serves the whole process.
//
// It proves itself with what the environment configures, the first of:
// workload identity (AZURE_FEDERATED_TOKEN_FILE, AZURE_CLIENT_ID,
// AZURE_TENANT_ID), a client secret or a certificate (AZURE_CLIENT_ID,
// AZURE_TENANT_ID and AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH, with
// AZURE_CLIENT_CERTIFICATE_PASSWORD), the machine's identity (AZURE_CLIENT_ID's,
// or the system's). The tools of developers are never asked, and no process is
// started.
//
// It holds the secrets that were asked for within a day. Its methods may be
// called concurrently.
type Vault struct {
	read func(context.Context, secretRef) (Secret, *token.Fault)

	mu      sync.Mutex
	entries map[secretRef]*vaultEntry
}

// vaultEntry is one secret, for all that name it.
type vaultEntry struct {
	ref  secretRef
	used time.Time // guarded by Vault.mu
	// turn is held by the one that reads; a channel, so that a waiter can leave.
	turn chan struct{}

	mu     sync.Mutex
	text   veiled    // as it was read last; empty if it never was
	secret Secret    // the rest of it, without Text
	readAt time.Time // when that was
	// refused is set when Entra ID rejected text.
	refused bool
	fault   *token.Fault // of the last read, nil if it went well
	triedAt time.Time    // when that was
	tries   int          // reads that came to an end
}

// NewVault makes a Vault. It asks nobody before the first read.
func NewVault(o VaultOptions) *Vault {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	c := &vaultClient{options: o, identity: &vaultIdentity{options: o}}
	return &Vault{read: c.read, entries: map[secretRef]*vaultEntry{}}
}

// Value gives the secret of a URL such as
// https://contoso.vault.azure.net/secrets/app, or with a version behind it. The
// error, a *token.Fault, is about the URL.
//
// A secret is read again after 15 minutes, or at once, but not within 10
// seconds, when Entra ID rejects it. While the vault cannot be read, the secret
// that was read last is used for up to 24 hours, unless its own end comes first,
// and token.Health says so. All that name the same secret share one read.
func (v *Vault) Value(secretURL string) (Value, error) {
	ref, f := parseSecretURL(secretURL)
	if f != nil {
		return nil, f
	}
	return func(ctx context.Context) (Secret, error) {
		s, f := v.get(ctx, v.entry(ref))
		if f != nil {
			return Secret{}, f
		}
		return s, nil
	}, nil
}

// entry finds the entry of a secret, and forgets those that nobody asked for in
// a day.
func (v *Vault) entry(ref secretRef) *vaultEntry {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.entries[ref]
	if e == nil {
		for r, old := range v.entries {
			if now.Sub(old.used) > vaultStale {
				delete(v.entries, r)
			}
		}
		e = &vaultEntry{ref: ref, turn: make(chan struct{}, 1)}
		v.entries[ref] = e
	}
	e.used = now
	return e
}

func (v *Vault) get(ctx context.Context, e *vaultEntry) (Secret, *token.Fault) {
	s, tries, ok := e.fresh(time.Now())
	if ok {
		return s, nil
	}
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return e.atHand(time.Now(), vaultTimeout(e.ref))
	}
	s, after, ok := e.fresh(time.Now())
	if ok {
		return s, nil
	}
	if after != tries {
		// A read ended while this one waited, and its failure holds for both.
		return e.atHand(time.Now(), nil)
	}

	read, cancel := ctx, context.CancelFunc(func() {})
	if s.Text != "" {
		read, cancel = context.WithTimeout(ctx, vaultPatience)
	}
	defer cancel()
	s, f := v.read(read, e.ref)
	if f != nil && ctx.Err() != nil {
		// The caller left; that says nothing of the vault, and the next one asks it.
		return e.atHand(time.Now(), f)
	}
	e.keep(s, f, time.Now())
	return e.atHand(time.Now(), nil)
}

// fresh gives the secret that is at hand, and whether it may be used without
// asking the vault.
func (e *vaultEntry) fresh(now time.Time) (s Secret, tries int, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.text.text() == "" || e.ended(now) {
		return Secret{}, e.tries, false
	}
	age := now.Sub(e.readAt)
	switch {
	case age >= vaultStale:
	case e.fault != nil:
		ok = now.Sub(e.triedAt) < vaultRest
		if e.refused {
			ok = now.Sub(e.triedAt) < vaultPause
		}
	case e.refused:
		ok = age < vaultPause
	default:
		ok = age < vaultFresh
	}
	return e.out(), e.tries, ok
}

// atHand gives the secret after a read that went well, or what is left after one
// that did not: the last secret within its bounds, else the fault. instead is
// the fault of a read that was not kept.
func (e *vaultEntry) atHand(now time.Time, instead *token.Fault) (Secret, *token.Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.fault
	if instead != nil {
		f = instead
	}
	switch {
	case e.text.text() == "":
	case e.ended(now):
		if f == nil {
			f = misconfigured(fmt.Sprintf("The secret %s ended by its own date, %s.", e.ref, e.secret.Expires.UTC().Format(time.RFC3339)),
				"Create a new version of it in the vault, with a client secret that is valid.")
		}
	case f == nil || now.Sub(e.readAt) < vaultStale:
		return e.out(), nil
	}
	if f == nil {
		f = &token.Fault{Kind: token.Unavailable, Sentence: "The secret " + e.ref.String() + " has no value.", Remedy: "Set its value in the vault."}
	}
	return Secret{}, f
}

// keep notes what a read brought.
func (e *vaultEntry) keep(s Secret, f *token.Fault, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tries++
	e.fault, e.triedAt = f, now
	if f == nil {
		// The same text again stays refused, until Entra ID takes it.
		e.refused = e.refused && s.Text == e.text.text()
		e.text, e.readAt = veil(s.Text), now
		e.secret = s
		e.secret.Text = ""
	}
}

// out is the secret with what its users need to know. e.mu is held.
func (e *vaultEntry) out() Secret {
	s := e.secret
	s.Text, s.kind = e.text.text(), kindKeyVault
	if e.fault != nil {
		s.notice = fmt.Sprintf("The vault fails, and the secret that was read at %s is in use until %s at most: %s %s",
			e.readAt.UTC().Format(time.RFC3339), e.readAt.Add(vaultStale).UTC().Format(time.RFC3339), e.fault.Sentence, e.fault.Remedy)
	}
	text := s.Text
	s.judged = func(taken bool) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.text.text() == text {
			e.refused = !taken
		}
	}
	return s
}

// ended reports whether the secret's own date has come. e.mu is held.
func (e *vaultEntry) ended(now time.Time) bool {
	return !e.secret.Expires.IsZero() && !now.Before(e.secret.Expires)
}
