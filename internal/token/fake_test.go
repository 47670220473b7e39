package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"defender-proxy/internal/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	contosoID  = "11111111-1111-1111-1111-111111111111"
	fabrikamID = "33333333-3333-3333-3333-333333333333"
	clientID   = "22222222-2222-2222-2222-222222222222"
	mde        = "https://api.securitycenter.microsoft.com"
	// canary is the secret of every account in these tests: wherever it shows
	// up but in a request's form, something is wrong.
	canary = "canary~Secret.8Q/with+odd=chars"
)

func contoso() Account {
	return Account{
		Name: "contoso", Cloud: "commercial", Authority: "https://login.example.com",
		Tenant: contosoID, ClientID: clientID, Version: V2,
		Credential: secret(func() (string, error) { return canary, nil }),
	}
}

// claimsFor gives the claims of a good token for the account.
func claimsFor(a Account, audience string, life time.Duration) jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{
		"aud": audience, "tid": string(a.Tenant), "appid": a.ClientID, "iss": "https://sts.windows.net/" + string(a.Tenant) + "/",
		"iat": now.Unix(), "exp": now.Add(life).Unix(), "roles": []string{"Alert.Read.All"}, "uti": uuid.NewString(), "ver": "1.0",
	}
}

func signed(claims jwt.MapClaims) string {
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("nobody verifies this"))
	if err != nil {
		panic(err)
	}
	return s
}

// granted is the answer of an Entra ID that says yes.
func granted(a Account, audience string, life time.Duration) map[string]any {
	return map[string]any{
		"token_type": "Bearer", "expires_in": int(life / time.Second),
		"access_token": signed(claimsFor(a, audience, life)),
	}
}

// answer makes a response of Entra ID's from a value that goes out as JSON.
func answer(status int, body any) *http.Response {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: status,
		Header:     http.Header{"Content-Type": {"application/json; charset=utf-8"}, "Date": {time.Now().UTC().Format(http.TimeFormat)}},
		Body:       io.NopCloser(bytes.NewReader(b)),
	}
}

// refusal is Entra's answer with an AADSTS code.
func refusal(status int, code, text string) *http.Response {
	return answer(status, map[string]any{
		"error":             "invalid_client",
		"error_description": "AADSTS" + code + ": " + text + "\r\nTrace ID: 0000aaaa-11bb-cccc-dd22-eeeeee333333\r\nTimestamp: 2026-01-09 02:02:12Z",
	})
}

// entra is an Entra ID in the place of the transport. respond is called for
// each request, with its number from 1 on; what is nil grants an hour.
type entra struct {
	respond  func(n int, form map[string]string) (*http.Response, error)
	delay    time.Duration
	requests atomic.Int64
	inFlight atomic.Int64
	most     atomic.Int64
}

func (f *entra) RoundTrip(r *http.Request) (*http.Response, error) {
	n := int(f.requests.Add(1))
	now := f.inFlight.Add(1)
	defer f.inFlight.Add(-1)
	for m := f.most.Load(); now > m && !f.most.CompareAndSwap(m, now); m = f.most.Load() {
	}
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	form := make(map[string]string)
	for k, v := range r.PostForm {
		form[k] = v[0]
	}
	form["host"] = r.URL.Host
	form["path"] = r.URL.Path
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if f.respond == nil {
		return answer(200, granted(contoso(), mde, time.Hour)), nil
	}
	resp, err := f.respond(n, form)
	if resp == nil && err == nil {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return resp, err
}

// running gives an Engine that runs on the transport until the test ends. Rand
// is in the middle, so that jitter moves nothing; the pauses after failures are
// then nine tenths of their length.
func running(t *testing.T, o Options) *Engine {
	t.Helper()
	if o.Rand == nil {
		o.Rand = func() float64 { return 0.5 }
	}
	e := New(o)
	start(t, e)
	return e
}

func start(t *testing.T, e *Engine) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

func mustBearer(t *testing.T, s *Source) *Bearer {
	t.Helper()
	b, err := s.Bearer(t.Context())
	if err != nil {
		t.Fatalf("Bearer: %v", err)
	}
	return b
}

// mustReplace gives the successor of b.
func mustReplace(t *testing.T, s *Source, b *Bearer) *Bearer {
	t.Helper()
	next, err := s.Replace(t.Context(), b, "")
	if err != nil {
		t.Fatalf("Replace: %v", err)
	}
	return next
}

func mustFail(t *testing.T, s *Source, want Kind) *Error {
	t.Helper()
	b, err := s.Bearer(t.Context())
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("Bearer gave %v, %v; want an *Error of kind %v", b, err, want)
	}
	if e.Kind != want {
		t.Fatalf("Bearer failed with kind %v (%v), want %v", e.Kind, e, want)
	}
	return e
}

// inBubble runs a test on fake time.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

var quiet = zerolog.Nop()

func account(name string, id tenant.ID) Account {
	a := contoso()
	a.Name, a.Tenant = name, id
	return a
}

// secret is the credential of these tests: a client secret that is read for each
// fetch.
type secret func() (string, error)

func (read secret) Proofs(context.Context, Ask) ([]Proof, error) {
	text, err := read()
	if err != nil {
		return nil, err
	}
	return []Proof{{Name: "client secret", Form: url.Values{"client_secret": {text}}, Secrets: []string{text}}}, nil
}

func (secret) Health() Health { return Health{Kind: "client_secret"} }
