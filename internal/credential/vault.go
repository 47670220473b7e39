package credential

import (
	"context"
	"net/http"
	"sync"
	"time"

	"defender-proxy/internal/token"
)

const (
	// vaultFresh is how long a secret is used without asking the vault again. A
	// rotation is seen after this time, or when Entra ID rejects the old secret.
	vaultFresh = 15 * time.Minute
	// vaultStale is how long it is used while the vault cannot be reached, and how
	// long it is kept when nobody asks for it.
	vaultStale = 24 * time.Hour
	// vaultPause is the least time between two reads of one secret: a thousand
	// tenants whose secret is rejected shall not read it a thousand times. After a
	// failure it is what the vault asks for, if that is more, up to vaultMaxPause.
	vaultPause    = 10 * time.Second
	vaultMaxPause = 5 * time.Minute
	// vaultReadTime bounds one read in all: its turn, the identity's token and the
	// vault's answer. No goroutine of a Vault lives longer.
	vaultReadTime = 8 * time.Second
	// vaultReads bounds the reads at one time, and readsOfOneVault those of one
	// vault, so that one that hangs does not hold up the others.
	vaultReads      = 32
	readsOfOneVault = 8
	// vaultPatience is how long a read is waited for while an older text is at hand.
	// It is less than that of ClientSecret, so that the older text comes in time.
	vaultPatience = 4 * time.Second
	// vaultSweep is the time between two looks for what nobody asks for.
	vaultSweep = time.Hour
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
// Each read runs on its own, for all who wait for it, and ends within 8 seconds;
// who waits leaves on his own context. A secret that nobody asked for in a day is
// forgotten, at a look that any read takes once an hour. Its methods may be called
// concurrently.
type Vault struct {
	read  func(context.Context, secretRef) (Secret, *token.Fault)
	slots chan struct{} // one for each read at one time

	mu      sync.Mutex
	entries map[secretRef]*vaultEntry
	swept   time.Time
}

// NewVault makes a Vault. It asks nobody before the first read.
func NewVault(o VaultOptions) *Vault {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	c := &vaultClient{transport: o.Transport, identity: newVaultIdentity(o)}
	return &Vault{read: c.read, slots: make(chan struct{}, vaultReads), entries: map[secretRef]*vaultEntry{}, swept: time.Now()}
}

// Value gives the secret of a URL such as
// https://contoso.vault.azure.net/secrets/app, or with a version behind it. The
// error, a *token.Fault, is about the URL.
//
// A secret is read again after 15 minutes, or at once when Entra ID rejects it, but
// not within 10 seconds. While the vault cannot be reached or has a passing fault,
// the secret that was read last is used for up to 24 hours, unless its own end
// comes first, and token.Health says so. A vault that says no, or that the secret
// is disabled or gone, ends its use. All that name the same secret share one read,
// and its failure for 10 seconds or what the vault asks for, up to five minutes.
func (v *Vault) Value(secretURL string) (Value, error) {
	ref, f := parseSecretURL(secretURL)
	if f != nil {
		return nil, f
	}
	return func(ctx context.Context) (Secret, error) {
		s, f := v.get(ctx, ref)
		if f != nil {
			return Secret{}, f
		}
		return s, nil
	}, nil
}

// entry finds the entry of a secret, and forgets those that nobody asked for in
// a day.
func (v *Vault) entry(ref secretRef, now time.Time) *vaultEntry {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Sub(v.swept) >= vaultSweep {
		v.swept = now
		for r, old := range v.entries {
			if now.Sub(old.used) > vaultStale {
				delete(v.entries, r)
			}
		}
	}
	e := v.entries[ref]
	if e == nil {
		e = &vaultEntry{ref: ref}
		for r, other := range v.entries {
			if r.vault == ref.vault {
				e.line = other.line
				break
			}
		}
		if e.line == nil {
			e.line = make(chan struct{}, readsOfOneVault)
		}
		v.entries[ref] = e
	}
	e.used = now
	return e
}

// get gives a secret from what is known of it, after a read where one is due.
func (v *Vault) get(ctx context.Context, ref secretRef) (Secret, *token.Fault) {
	e := v.entry(ref, time.Now())
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); !e.settled(now) {
		if e.reading == nil {
			e.reading = make(chan struct{})
			// The read is everybody's: it neither ends with the one that began it, nor
			// takes longer than its own bound.
			read, cancel := context.WithTimeout(context.WithoutCancel(ctx), vaultReadTime)
			go func() {
				defer cancel()
				s, f := v.readInTurn(read, e)
				e.keep(s, f, time.Now())
			}()
		}
		e.wait(ctx, now)
	}
	return e.answer(time.Now())
}

// readInTurn reads when there is a free slot of this vault and of all.
func (v *Vault) readInTurn(ctx context.Context, e *vaultEntry) (Secret, *token.Fault) {
	for _, slots := range []chan struct{}{e.line, v.slots} {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return Secret{}, &token.Fault{Kind: token.Unreachable,
				Sentence: "The secret " + e.ref.String() + " was not read in time: too many reads of vaults are slow at once.", Remedy: "Wait; the proxy tries again. See whether the vaults answer."}
		}
	}
	return v.read(ctx, e.ref)
}
