package credential

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/token"
)

var userAsk = token.Ask{
	Tenant: "contoso", TenantID: storeTenant, ClientID: storeClient,
	Audience: "https://api.securitycenter.microsoft.com", Version: token.V2,
	Now: time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC),
}

// fakeClient is an application's proof.
type fakeClient struct {
	proofs []token.Proof
	err    error
	health token.Health
}

func (c *fakeClient) Proofs(context.Context, token.Ask) ([]token.Proof, error) {
	return c.proofs, c.err
}
func (c *fakeClient) Health() token.Health { return c.health }

// fakeIssuer is an identity that brings tokens of its own.
type fakeIssuer struct{ fakeClient }

func (*fakeIssuer) Issue(context.Context, token.Ask) (token.Issued, error) {
	return token.Issued{}, nil
}

func storedUser(t *testing.T, change func(*UserOptions)) (token.Credential, *Store, StoreOptions) {
	t.Helper()
	s, o := filled(t)
	options := UserOptions{Flow: FlowDeviceCode, Store: s, LoginHint: "defender-proxy login contoso --config lab.yaml"}
	if change != nil {
		change(&options)
	}
	u, err := User(options)
	noError(t, err)
	return u, s, o
}

func oneProof(t *testing.T, c token.Credential) token.Proof {
	t.Helper()
	proofs, err := c.Proofs(t.Context(), userAsk)
	noError(t, err)
	if len(proofs) != 1 {
		t.Fatalf("got %d proofs, want one", len(proofs))
	}
	return proofs[0]
}

func TestUserOptionsThatDoNotFitAreRefused(t *testing.T) {
	password := func() (string, error) { return "canary", nil }
	for _, test := range []struct {
		name string
		o    UserOptions
		want string
	}{
		{"no flow", UserOptions{}, "no flow"},
		{"an unknown flow", UserOptions{Flow: "implicit"}, `no flow "implicit"`},
		{"a password flow without a name", UserOptions{Flow: FlowPassword, Password: password}, "needs a username"},
		{"a password flow without a password", UserOptions{Flow: FlowPassword, Username: "ana"}, "needs a username and a password"},
		{"a device code without a store", UserOptions{Flow: FlowDeviceCode}, "needs a token store"},
		{"an identity that gets its own tokens", UserOptions{Flow: FlowPassword, Username: "ana", Password: password, Client: &fakeIssuer{}}, "managed identity"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := User(test.o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestUserWithAPassword(t *testing.T) {
	password, failure := "canary & pass", error(nil)
	u, err := User(UserOptions{Flow: FlowPassword, Username: "ana@contoso.example", Password: func() (string, error) { return password, failure }})
	noError(t, err)
	p := oneProof(t, u)
	if got, want := p.Form.Encode(), "grant_type=password&password=canary+%26+pass&username=ana%40contoso.example"; got != want {
		t.Errorf("got form %s, want %s", got, want)
	}
	if !slices.Equal(p.Secrets, []string{password}) {
		t.Errorf("got secrets %q, want the password", p.Secrets)
	}
	password = "another"
	if got := oneProof(t, u).Form.Get("password"); got != "another" {
		t.Errorf("got %q, want the password as it is now", got)
	}
	password = ""
	_, err = u.Proofs(t.Context(), userAsk)
	wantFault(t, err, "password of user ana@contoso.example is empty")
	failure = errors.New("the environment variable P is not set")
	_, err = u.Proofs(t.Context(), userAsk)
	wantFault(t, err, "cannot be read", "variable P is not set")
	if h := u.Health(); h != (token.Health{Kind: "user"}) {
		t.Errorf("got %+v, want the kind alone", h)
	}
}

func TestUserWithARefreshToken(t *testing.T) {
	u, s, o := storedUser(t, nil)
	p := oneProof(t, u)
	if got, want := p.Form, (url.Values{"grant_type": {"refresh_token"}, "refresh_token": {storeLogin.RefreshToken}}); got.Encode() != want.Encode() {
		t.Errorf("got form %v, want %v", got, want)
	}
	if !slices.Equal(p.Secrets, []string{storeLogin.RefreshToken}) {
		t.Errorf("got secrets %q, want the refresh token", p.Secrets)
	}

	noError(t, p.Granted(token.Grant{})) // an answer without one
	if got := oneProof(t, u).Form.Get("refresh_token"); got != storeLogin.RefreshToken {
		t.Errorf("got %q, want the first still", got)
	}
	noError(t, p.Granted(token.Grant{RefreshToken: "second", Subject: "ana@contoso.example"}))
	if got := oneProof(t, u).Form.Get("refresh_token"); got != "second" {
		t.Errorf("got %q, want the one that was granted", got)
	}
	l, err := s.Load()
	noError(t, err)
	if l.Rotated != userAsk.Now {
		t.Errorf("got rotated %v, want %v", l.Rotated, userAsk.Now)
	}

	// Another process lets somebody sign in: the next fetch uses that, and an
	// answer to the older one does not replace it.
	older := oneProof(t, u)
	noError(t, OpenStore(o).Save(Login{RefreshToken: "newer"}))
	noError(t, older.Granted(token.Grant{RefreshToken: "third"}))
	if got := oneProof(t, u).Form.Get("refresh_token"); got != "newer" {
		t.Errorf("got %q, want the newer sign-in's", got)
	}
}

func TestUserFaultsNameTheWayToSignIn(t *testing.T) {
	const hint = "defender-proxy login contoso --config lab.yaml"
	for _, test := range []struct {
		name  string
		spoil func(*testing.T, StoreOptions)
		want  []string
	}{
		{"nobody has signed in", func(t *testing.T, o StoreOptions) { noError(t, os.Remove(o.File)) }, []string{"Nobody has signed in for tenant contoso.", hint}},
		{"a damaged store", func(t *testing.T, o StoreOptions) { noError(t, os.WriteFile(o.File, []byte(storeMark), 0o600)) }, []string{"{file} is damaged", hint}},
		{"a missing key", func(t *testing.T, o StoreOptions) { noError(t, os.Remove(o.KeyFile)) }, []string{"{key}", hint}},
		{"another key", func(t *testing.T, o StoreOptions) {
			noError(t, os.WriteFile(o.KeyFile, []byte(newKeyLine()), 0o600))
		}, []string{"{file} cannot be decrypted", hint}},
		{"another tenant's store", func(t *testing.T, o StoreOptions) {
			o.Tenant = "33333333-3333-3333-3333-333333333333"
			noError(t, OpenStore(o).Save(storeLogin))
		}, []string{"{file}", "33333333", hint}},
	} {
		t.Run(test.name, func(t *testing.T) {
			u, _, o := storedUser(t, nil)
			test.spoil(t, o)
			_, err := u.Proofs(t.Context(), userAsk)
			var want []string
			for _, w := range test.want {
				want = append(want, replaceNames(w, o))
			}
			wantFault(t, err, want...)
		})
	}
}

func TestUserOfAnotherNameIsRefused(t *testing.T) {
	u, _, _ := storedUser(t, func(o *UserOptions) { o.Username = "bob@contoso.example" })
	_, err := u.Proofs(t.Context(), userAsk)
	wantFault(t, err, `"ana@contoso.example"`, `"bob@contoso.example"`)
	u, _, _ = storedUser(t, func(o *UserOptions) { o.Username = "ANA@contoso.example" })
	oneProof(t, u)
}

// A name that comes with a later token may be a display name, and is not kept.
func TestUserWithoutANameIsNobodyInParticular(t *testing.T) {
	_, s, o := storedUser(t, nil)
	noError(t, s.Save(Login{RefreshToken: "first"}))
	anybody, err := User(UserOptions{Flow: FlowDeviceCode, Store: OpenStore(o)})
	noError(t, err)
	noError(t, oneProof(t, anybody).Granted(token.Grant{RefreshToken: "second", Subject: "ana@contoso.example"}))
	if l, err := s.Load(); err != nil || l.RefreshToken != "second" || l.Username != "" {
		t.Errorf("got %q of %q, %v, want the second of nobody", l.RefreshToken, l.Username, err)
	}
	oneProof(t, anybody)
	ana, err := User(UserOptions{Flow: FlowDeviceCode, Username: "ana@contoso.example", Store: OpenStore(o)})
	noError(t, err)
	_, err = ana.Proofs(t.Context(), userAsk)
	wantFault(t, err, "a user without a name", `"ana@contoso.example"`)
}

func TestUserWhoseTokenCannotBeKeptIsToldHowToSignIn(t *testing.T) {
	u, _, o := storedUser(t, nil)
	p := oneProof(t, u)
	noError(t, os.WriteFile(o.KeyFile, []byte(newKeyLine()), 0o600))
	wantFault(t, p.Granted(token.Grant{RefreshToken: "second"}), "defender-proxy login contoso --config lab.yaml")
}

func TestUserOfAConfidentialClient(t *testing.T) {
	var granted, rejected []string
	clientProof := func(name, secret string) token.Proof {
		return token.Proof{
			Name: name, Secrets: []string{secret},
			Form:     url.Values{"client_secret": {secret}, "grant_type": {"client_credentials"}},
			Granted:  func(token.Grant) error { granted = append(granted, name); return nil },
			Rejected: func(code int) { rejected = append(rejected, fmt.Sprint(name, " ", code)) },
		}
	}
	client := &fakeClient{
		proofs: []token.Proof{clientProof("client secret", "one"), clientProof("next client secret", "two")},
		health: token.Health{Kind: "client_secret", Expires: userAsk.Now, Notice: "The first is rejected."},
	}
	u, s, _ := storedUser(t, func(o *UserOptions) { o.Client = client })
	proofs, err := u.Proofs(t.Context(), userAsk)
	noError(t, err)
	if len(proofs) != 2 {
		t.Fatalf("got %d proofs, want two", len(proofs))
	}
	for i, secret := range []string{"one", "two"} {
		want := url.Values{"client_secret": {secret}, "grant_type": {"refresh_token"}, "refresh_token": {storeLogin.RefreshToken}}
		if got := proofs[i].Form; got.Encode() != want.Encode() {
			t.Errorf("proof %d: got %v, want %v", i, got, want)
		}
		if want := []string{storeLogin.RefreshToken, secret}; !slices.Equal(proofs[i].Secrets, want) {
			t.Errorf("proof %d: got secrets %q, want %q", i, proofs[i].Secrets, want)
		}
	}
	if got, want := proofs[1].Name, "refresh token with next client secret"; got != want {
		t.Errorf("got name %q, want %q", got, want)
	}
	if got := client.proofs[0].Form.Get("grant_type"); got != "client_credentials" {
		t.Errorf("the client's own form was changed: %q", got)
	}
	proofs[0].Rejected(7000215)
	noError(t, proofs[1].Granted(token.Grant{RefreshToken: "second"}))
	if want := []string{"client secret 7000215"}; !slices.Equal(rejected, want) {
		t.Errorf("got rejected %q, want %q", rejected, want)
	}
	if want := []string{"next client secret"}; !slices.Equal(granted, want) {
		t.Errorf("got granted %q, want %q", granted, want)
	}
	if l, err := s.Load(); err != nil || l.RefreshToken != "second" {
		t.Errorf("got %v, %v, want the second token", l, err)
	}
	if h := u.Health(); h.Kind != "user" || h.Expires != userAsk.Now || h.Notice != "The first is rejected." {
		t.Errorf("got %+v, want what ends with the client", h)
	}
	client.err = storeFault("The secret is gone.", "Bring it back.")
	_, err = u.Proofs(t.Context(), userAsk)
	wantFault(t, err, "The secret is gone.")
}

func TestUserWhoseTokenCannotBeKeptSaysSo(t *testing.T) {
	u, s, o := storedUser(t, nil)
	p := oneProof(t, u)
	// A store of another tenant has taken its place.
	other := o
	other.Tenant = "33333333-3333-3333-3333-333333333333"
	noError(t, OpenStore(other).Save(storeLogin))
	wantFault(t, p.Granted(token.Grant{RefreshToken: "canary second"}), o.File)
	h := u.Health()
	if !strings.Contains(h.Notice, "could not be kept") || !strings.Contains(h.Notice, o.File) || strings.Contains(h.Notice, "canary") {
		t.Errorf("got notice %q, want that the token could not be kept, and no token", h.Notice)
	}
	noError(t, s.Save(storeLogin))
	noError(t, oneProof(t, u).Granted(token.Grant{RefreshToken: "third"}))
	if h := u.Health(); h.Notice != "" {
		t.Errorf("got notice %q once it can, want none", h.Notice)
	}
}

// A thousand fetches for one user, each with a new refresh token, while a person
// signs in anew: what is stored in the end comes of the newer sign-in.
func TestThousandGrantsOfOneUser(t *testing.T) {
	_, o := filled(t)
	newer := Login{RefreshToken: "newer", SignedIn: storeLogin.SignedIn.Add(time.Hour)}
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			u, err := User(UserOptions{Flow: FlowDeviceCode, Store: OpenStore(o)})
			if err != nil {
				t.Error(err)
				return
			}
			proofs, err := u.Proofs(t.Context(), userAsk)
			if err == nil {
				err = proofs[0].Granted(token.Grant{RefreshToken: fmt.Sprint("granted ", i)})
			}
			if err != nil {
				t.Errorf("fetch %d: %v", i, err)
			}
		})
		if i == 500 {
			wg.Go(func() {
				if err := OpenStore(o).Save(newer); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	l, err := OpenStore(o).Load()
	noError(t, err)
	if !l.SignedIn.Equal(newer.SignedIn) {
		t.Errorf("got the sign-in of %v, want that of %v", l.SignedIn, newer.SignedIn)
	}
}

// Kubernetes mounts a key file as a link that it swaps.
func TestUserWithASwappedKeyFileUsesTheNewKey(t *testing.T) {
	if !modesCount {
		return // links need a privilege there
	}
	_, o := fileStore(t)
	dir := filepath.Dir(o.File)
	for _, v := range []string{"v1", "v2"} {
		noError(t, os.Mkdir(filepath.Join(dir, v), 0o700))
		noError(t, os.WriteFile(filepath.Join(dir, v, "key"), []byte(newKeyLine()+"\n"), 0o600))
	}
	point := func(v string) {
		noError(t, os.Symlink(v, filepath.Join(dir, "..tmp")))
		noError(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	}
	point("v1")
	o.KeyFile = filepath.Join(dir, "..data", "key")
	u, err := User(UserOptions{Flow: FlowAuthorizationCode, Store: OpenStore(o)})
	noError(t, err)
	noError(t, OpenStore(o).Save(storeLogin))
	oneProof(t, u)
	point("v2")
	_, err = u.Proofs(t.Context(), userAsk)
	wantFault(t, err, "cannot be decrypted")
	noError(t, OpenStore(o).Save(storeLogin))
	oneProof(t, u)
}
