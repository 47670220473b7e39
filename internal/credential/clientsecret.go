package credential

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"defender-proxy/internal/token"
)

const (
	kindClientSecret = "client_secret"
	kindKeyVault     = "key_vault"
)

// secretPatience is how long a secret is waited for while the other one is there.
const secretPatience = 5 * time.Second

// The two secrets of an application, by their place in the arrays below.
const (
	firstSecret = iota
	nextSecret
)

// secretNames is for messages, secretKeys is what the configuration calls them.
var (
	secretNames = [2]string{"client secret", "next client secret"}
	secretKeys  = [2]string{"client_secret", "next_client_secret"}
)

// clientSecret implements token.Credential.
type clientSecret struct {
	values [2]Value // the second may be nil

	mu sync.Mutex
	// state is what is known of each secret since it was read last.
	state [2]secretState
	// preferred is the one that Entra ID took last, to be sent first: a secret
	// that was rejected once is not sent again each hour.
	preferred int
}

type secretState struct {
	sum     [sha256.Size]byte // of the text that was read last; zero if none was
	fault   *token.Fault      // why it could not be read the last time
	expires time.Time
	kind    string
	notice  string
	// refused is the sum of a text that Entra ID rejected, and aadsts its reason.
	refused [sha256.Size]byte
	aadsts  int
}

// rejected reports whether Entra ID rejected the text that was read last.
func (s *secretState) rejected() bool {
	return s.sum != [sha256.Size]byte{} && s.sum == s.refused
}

// ClientSecret is a credential of one secret, or of two that overlap: with next,
// both are offered, and the one that Entra ID took last is offered first. When
// the text of a rejected first secret changes, it is the first again. Each is
// read anew for each fetch, both at the same time; when one of them cannot be read
// or is late, the other goes alone, and Health says so. next may be nil.
func ClientSecret(first, next Value) token.Credential {
	return &clientSecret{values: [2]Value{first, next}}
}

// Proofs implements token.Credential.
func (c *clientSecret) Proofs(ctx context.Context, _ token.Ask) ([]token.Proof, error) {
	secrets, faults := c.read(ctx)

	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.state {
		c.state[i].note(secrets[i], faults[i])
	}
	if c.preferred == nextSecret && faults[firstSecret] == nil && !c.state[firstSecret].rejected() {
		c.preferred = firstSecret
	}
	var proofs []token.Proof
	for _, i := range [2]int{c.preferred, 1 - c.preferred} {
		if s := secrets[i]; s.Text != "" && (len(proofs) == 0 || s.Text != proofs[0].Secrets[0]) {
			proofs = append(proofs, c.proof(i, s))
		}
	}
	switch {
	case len(proofs) > 0:
		return proofs, nil
	case faults[nextSecret] == nil:
		return nil, faults[firstSecret]
	}
	both := *faults[firstSecret]
	both.Sentence += " And the next one: " + faults[nextSecret].Sentence
	return nil, &both
}

// secretRead is what came of reading the secret of one place.
type secretRead struct {
	place  int
	secret Secret
	fault  *token.Fault
	panic  any
}

// read reads both secrets at the same time. When one is late and the other is
// there, it goes on without the late one.
func (c *clientSecret) read(ctx context.Context) (secrets [2]Secret, faults [2]*token.Fault) {
	if c.values[firstSecret] == nil {
		faults[firstSecret] = misconfigured("The credential has no client secret.", "Set client_secret in the configuration.")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the late one is let go
	ends := make(chan secretRead, len(c.values))
	var under [2]bool
	for i, read := range c.values {
		if read == nil {
			continue
		}
		under[i] = true
		go func() {
			end := secretRead{place: i}
			defer func() {
				end.panic = recover() // for the caller, who is prepared for it
				ends <- end
			}()
			end.secret, end.fault = readSecret(ctx, secretNames[i], read)
		}()
	}
	late := time.NewTimer(patience(ctx, secretPatience, 3))
	defer late.Stop()
	for over := false; under[firstSecret] || under[nextSecret]; {
		select {
		case end := <-ends:
			if end.panic != nil {
				panic(end.panic)
			}
			under[end.place] = false
			secrets[end.place], faults[end.place] = end.secret, end.fault
		case <-late.C:
			over = true
		}
		if over && (secrets[firstSecret].Text != "" || secrets[nextSecret].Text != "") {
			break
		}
	}
	for i, still := range under {
		if still {
			faults[i] = &token.Fault{Kind: token.Unreachable, Sentence: "The " + secretNames[i] + " was not read in time.", Remedy: "See whether the vault or the file that it comes from answers."}
		}
	}
	return secrets, faults
}

func readSecret(ctx context.Context, name string, read Value) (Secret, *token.Fault) {
	s, err := read(ctx)
	if err != nil {
		return Secret{}, asFault(err, "The "+name+" cannot be read", "Make it readable for the proxy.")
	}
	if f := checkSecret(name, s.Text); f != nil {
		return Secret{}, f
	}
	return s, nil
}

func (c *clientSecret) proof(i int, s Secret) token.Proof {
	sum := sha256.Sum256([]byte(s.Text))
	return token.Proof{
		Name:    secretNames[i],
		Form:    url.Values{"client_secret": {s.Text}},
		Secrets: []string{s.Text},
		Granted: func(token.Grant) error {
			if s.judged != nil {
				s.judged(true)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.preferred = i
			if c.state[i].refused == sum {
				c.state[i].refused, c.state[i].aadsts = [sha256.Size]byte{}, 0
			}
			return nil
		},
		Rejected: func(aadsts int) {
			if s.judged != nil {
				s.judged(false)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.state[i].refused, c.state[i].aadsts = sum, aadsts
		},
	}
}

// note keeps what a read brought.
func (s *secretState) note(read Secret, fault *token.Fault) {
	s.fault = fault
	if read.Text == "" {
		return // what was known before still tells more than nothing
	}
	s.sum = sha256.Sum256([]byte(read.Text))
	s.expires, s.kind, s.notice = read.Expires, read.kind, read.notice
}

// Health implements token.Credential. The kind is client_secret until the first
// read shows that the secret comes from a vault.
func (c *clientSecret) Health() token.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := &c.state[c.preferred]
	h := token.Health{Kind: used.kind, Expires: used.expires}
	if h.Kind == "" {
		h.Kind = kindClientSecret
	}
	var notices []string
	if first := &c.state[firstSecret]; c.preferred == nextSecret && first.rejected() && first.fault == nil {
		reason := ""
		if first.aadsts != 0 {
			reason = fmt.Sprintf(" (AADSTS%d)", first.aadsts)
		}
		notice := "client_secret is not accepted" + reason
		// A new secret takes a while to be known everywhere at Entra ID.
		if used.fault == nil {
			notice += "; next_client_secret is in use: if client_secret is the older one, put the value of next_client_secret in its place, and create a new next one; if it is new, wait some minutes"
		}
		notices = append(notices, notice+".")
	}
	for i := range c.state {
		switch s := &c.state[i]; {
		case c.values[i] == nil:
		case s.fault != nil:
			notices = append(notices, secretKeys[i]+" cannot be used: "+s.fault.Sentence+" "+s.fault.Remedy)
		case s.notice != "":
			notices = append(notices, s.notice)
		}
	}
	h.Notice = strings.Join(notices, " ")
	return h
}
