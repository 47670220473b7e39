package credential

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"defender-proxy/internal/token"
)

// noIdentityEnvironment makes azidentity look at IMDS, whatever machine the
// tests run on.
func noIdentityEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT"} {
		t.Setenv(name, "")
	}
}

func mustIssuer(t testing.TB, o IdentityOptions) token.Issuer {
	t.Helper()
	c, err := ManagedIdentity(o)
	if err != nil {
		t.Fatal(err)
	}
	i, ok := c.(token.Issuer)
	if !ok {
		t.Fatalf("%T is not a token.Issuer", c)
	}
	return i
}

const userAssigned = "44444444-4444-4444-4444-444444444444"

func TestTheMachinesIdentityIsAskedAnewForEachIssue(t *testing.T) {
	noIdentityEnvironment(t)
	a := newAzure(t)
	answer := imdsHandler(t, "token", 20*time.Hour)
	a.setIMDS(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("resource"); got != testAsk.Audience {
			t.Errorf("the resource is %q, want %q", got, testAsk.Audience)
		}
		if _, ok := r.URL.Query()["claims"]; ok {
			t.Error("the endpoint is sent claims")
		}
		if ua := r.Header.Get("User-Agent"); strings.Contains(ua, "azsdk") {
			t.Errorf("the User-Agent is telemetry: %q", ua)
		}
		answer(w, r)
	})
	i := mustIssuer(t, IdentityOptions{Transport: a.transport()})
	for _, want := range []string{"token-1", "token-2"} {
		got, err := i.Issue(t.Context(), testAsk)
		if err != nil || got.AccessToken != want || got.ExpiresIn > 20*time.Hour || got.ExpiresIn < 19*time.Hour {
			t.Errorf("got %q for %v, %v; want %q for 20h", got.AccessToken, got.ExpiresIn, err, want)
		}
	}
	if h := i.Health(); h.Kind != "managed_identity" {
		t.Errorf("health is %+v", h)
	}
	_, err := i.Proofs(t.Context(), testAsk)
	mustFault(t, err, token.Misconfigured, "no proof")
}

func TestTheIdentityEndpointIsNeverAskedThroughTheNetworksProxy(t *testing.T) {
	noIdentityEnvironment(t)
	a := newAzure(t)
	a.setIMDS(imdsHandler(t, "t", time.Hour))
	tr := a.transport()
	tr.Proxy = func(*http.Request) (*url.URL, error) {
		return &url.URL{Scheme: "http", Host: "proxy.corp.example:3128"}, nil
	}
	if _, err := mustIssuer(t, IdentityOptions{Transport: tr}).Issue(t.Context(), testAsk); err != nil {
		t.Error(err)
	}
	if _, proxied := a.dialed.Load("proxy.corp.example:3128"); proxied {
		t.Error("the proxy was dialled")
	}
	if _, ok := a.dialed.Load("169.254.169.254:80"); !ok {
		t.Error("IMDS was not dialled")
	}
}

func TestTheLifeOfAnIdentitysTokenIsWhatIsLeftOfIt(t *testing.T) {
	noIdentityEnvironment(t)
	now := time.Now()
	for name, c := range map[string]struct {
		in, on any // expires_in, expires_on
		date   time.Time
		want   time.Duration
	}{
		"both agree":                                {"3600", now.Add(time.Hour).Unix(), time.Time{}, time.Hour},
		"IMDS caches, and counts from the start":    {"86400", now.Add(2 * time.Hour).Unix(), time.Time{}, 2 * time.Hour},
		"expires_on alone, as App Service gives it": {nil, now.Add(time.Hour).Unix(), time.Time{}, time.Hour},
		"expires_in alone":                          {3600, nil, time.Time{}, time.Hour},
		"this machine is an hour behind":            {nil, now.Add(2 * time.Hour).Unix(), now.Add(time.Hour), time.Hour},
		"this machine is a day ahead":               {nil, now.Add(-23 * time.Hour).Unix(), now.Add(-24 * time.Hour), time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAzure(t)
			a.setIMDS(func(w http.ResponseWriter, _ *http.Request) {
				body := map[string]any{"access_token": "x", "token_type": "Bearer"}
				if c.in != nil {
					body["expires_in"] = c.in
				}
				if c.on != nil {
					body["expires_on"] = c.on
				}
				w.Header()["Date"] = nil
				if !c.date.IsZero() {
					w.Header().Set("Date", c.date.UTC().Format(http.TimeFormat))
				}
				answerJSON(w, 200, body)
			})
			ask := testAsk
			ask.Now = now
			got, err := mustIssuer(t, IdentityOptions{Transport: a.transport()}).Issue(t.Context(), ask)
			if err != nil || (got.ExpiresIn-c.want).Abs() > 2*time.Second { // dates have whole seconds
				t.Errorf("got %v, %v; want %v", got.ExpiresIn, err, c.want)
			}
		})
	}
}

func TestAMachineWithoutIdentityIsAFaultWithARemedy(t *testing.T) {
	noIdentityEnvironment(t)
	body := map[string]any{"error": "invalid_request", "error_description": "Identity not found body-canary"}
	for name, c := range map[string]struct {
		id      string
		status  int
		body    any
		header  string
		kind    token.Kind
		says    []string
		retries bool
	}{
		"404":                           {status: 404, body: body, kind: token.Unavailable, says: []string{"169.254.169.254, answers 404", "no managed identity on this machine"}, retries: true},
		"410":                           {status: 410, body: body, kind: token.Unavailable, says: []string{"answers 410", "being updated"}, retries: true},
		"429":                           {status: 429, body: body, header: "7", kind: token.Unavailable, says: []string{"too many requests"}, retries: true},
		"500":                           {status: 500, body: body, kind: token.Unavailable, says: []string{"passing fault (500)"}, retries: true},
		"400 for the system's":          {status: 400, body: body, kind: token.Rejected, says: []string{"no system-assigned identity", "(invalid_request)"}},
		"400 for one that was assigned": {id: userAssigned, status: 400, body: body, kind: token.Rejected, says: []string{"The identity " + userAssigned + " is not assigned", "not its object ID"}},
		"an API that is not there":      {status: 400, body: map[string]any{"error": "invalid_resource"}, kind: token.Rejected, says: []string{"The API " + testAsk.Audience + " is not known"}},
		"403":                           {status: 403, body: "unreachable body-canary", kind: token.Rejected, says: []string{"with 403"}},
		"a redirect":                    {status: 307, body: "", header: "x", kind: token.Rejected, says: []string{"with 307"}},
		"200 with a page":               {status: 200, body: "body-canary", kind: token.Unavailable, says: []string{"not with a token"}},
		"200 with an empty token":       {status: 200, body: map[string]any{"access_token": "", "expires_in": "3600"}, kind: token.Unavailable, says: []string{"not with a token"}},
		"200 with a dead token":         {status: 200, body: map[string]any{"access_token": "body-canary", "expires_on": "1600000000"}, kind: token.Unavailable, says: []string{"still valid"}},
		"200 without a life":            {status: 200, body: map[string]any{"access_token": "body-canary"}, kind: token.Unavailable, says: []string{"not with a token"}},
		"an endless answer":             {status: 200, body: strings.Repeat("body-canary", 30<<10), kind: token.Unreachable, says: []string{"too long"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAzure(t)
			a.setIMDS(func(w http.ResponseWriter, _ *http.Request) {
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
					w.Header().Set("Location", "https://evil.example.net/")
				}
				answerJSON(w, c.status, c.body)
			})
			_, err := mustIssuer(t, IdentityOptions{ClientID: c.id, Transport: a.transport()}).Issue(t.Context(), testAsk)
			f := mustFault(t, err, c.kind, c.says...)
			mustNotShow(t, []string{"canary"}, f, err)
			n := a.count("GET 169.254.169.254")
			if want := c.retries && c.header == ""; n > 3 || want && n != 3 || !c.retries && n != 1 {
				t.Errorf("the endpoint was asked %d times", n)
			}
			if c.status == 429 && f.RetryAfter != 7*time.Second {
				t.Errorf("RetryAfter is %v, want 7s", f.RetryAfter)
			}
		})
	}
}

func TestOffAzureTheIdentityEndpointIsUnreachable(t *testing.T) {
	noIdentityEnvironment(t)
	refused := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.AddrError{Err: "no route to host", Addr: "169.254.169.254"}}
	}}
	_, err := mustIssuer(t, IdentityOptions{Transport: refused}).Issue(t.Context(), testAsk)
	mustFault(t, err, token.Unreachable, "cannot be reached", "no route to host", "works on Azure")

	release := make(chan struct{})
	defer close(release) // a dial outlives the request that wanted it
	hanging := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		<-release
		return nil, net.ErrClosed
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = mustIssuer(t, IdentityOptions{Transport: hanging}).Issue(ctx, testAsk)
	mustFault(t, err, token.Unreachable, "did not answer in time")
}

func TestAppServiceIsFoundInTheEnvironment(t *testing.T) {
	noIdentityEnvironment(t)
	a := newAzure(t)
	end := time.Now().Add(time.Hour)
	a.setIMDS(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/msi/token" || q.Get("api-version") != "2019-08-01" || q.Get("resource") != testAsk.Audience || q.Get("client_id") != userAssigned || r.Header.Get("X-IDENTITY-HEADER") != "header-canary" {
			t.Errorf("App Service was asked %s", r.URL)
		}
		answerJSON(w, 200, map[string]any{"access_token": "x", "expires_on": end.Unix(), "resource": q.Get("resource"), "token_type": "Bearer", "client_id": userAssigned})
	})
	// The environment is read when it is needed, not when the credential is made.
	i := mustIssuer(t, IdentityOptions{ClientID: userAssigned, Transport: a.transport()})
	t.Setenv("IDENTITY_ENDPOINT", a.plain.URL+"/msi/token")
	t.Setenv("IDENTITY_HEADER", "header-canary")
	// The address of the test's server is dialled as it is.
	i.(managedIdentity).machine.straight().(*http.Transport).DialContext = (&net.Dialer{}).DialContext
	got, err := i.Issue(t.Context(), testAsk)
	if err != nil || got.AccessToken != "x" || got.ExpiresIn > time.Hour || got.ExpiresIn < 50*time.Minute {
		t.Errorf("got %v, %v", got.ExpiresIn, err)
	}
	a.setIMDS(func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 400, map[string]any{"statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found. header-canary"})
	})
	_, err = i.Issue(t.Context(), testAsk)
	f := mustFault(t, err, token.Rejected, "is not assigned to this machine")
	mustNotShow(t, []string{"canary"}, f)
}

func TestAnArcKeyFileThatCannotBeReadNamesTheGroup(t *testing.T) {
	noIdentityEnvironment(t)
	a := newAzure(t)
	a.setIMDS(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic realm=/var/opt/azcmagent/tokens/not-there.key")
		w.WriteHeader(401)
	})
	t.Setenv("IDENTITY_ENDPOINT", a.plain.URL+"/metadata/identity/oauth2/token")
	t.Setenv("IMDS_ENDPOINT", a.plain.URL)
	i := mustIssuer(t, IdentityOptions{Transport: &http.Transport{}})
	_, err := i.Issue(t.Context(), testAsk)
	mustFault(t, err, token.Misconfigured, "/var/opt/azcmagent/tokens/not-there.key", "group himds")
}

func TestAnIdentityThatThePlatformDoesNotKnowIsAFault(t *testing.T) {
	noIdentityEnvironment(t)
	t.Setenv("MSI_ENDPOINT", "http://127.0.0.1:1/cloud-shell")
	_, err := mustIssuer(t, IdentityOptions{ClientID: userAssigned}).Issue(t.Context(), testAsk)
	mustFault(t, err, token.Misconfigured, "Cloud Shell")
	_, err = ManagedIdentity(IdentityOptions{ClientID: "my-identity"})
	mustFault(t, err, token.Misconfigured, `"my-identity" is not a GUID`)
	_, err = ManagedIdentityAssertion(IdentityOptions{ClientID: "my-identity"}, "commercial")
	mustFault(t, err, token.Misconfigured, "is not a GUID")
}

func TestTheIdentitysTokenIsTheAssertionOfAnApplication(t *testing.T) {
	noIdentityEnvironment(t)
	for _, c := range []struct{ cloud, audience string }{
		{"commercial", "api://AzureADTokenExchange"}, {"gcc", "api://AzureADTokenExchange"}, {"lab", "api://AzureADTokenExchange"},
		{"gcc-high", "api://AzureADTokenExchangeUSGov"}, {"dod", "api://AzureADTokenExchangeUSGov"},
	} {
		a := newAzure(t)
		answer := imdsHandler(t, "assertion", time.Hour)
		a.setIMDS(func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.Query().Get("resource"); got != c.audience {
				t.Errorf("%s: the resource is %q, want %q", c.cloud, got, c.audience)
			}
			answer(w, r)
		})
		// MSAL's cache is the process's: each case has an identity of its own.
		id := uuid.NewString()
		cred, err := ManagedIdentityAssertion(IdentityOptions{ClientID: id, Transport: a.transport()}, c.cloud)
		if err != nil {
			t.Fatal(err)
		}
		p := proofsOf(t, cred, testAsk)[0]
		again := proofsOf(t, cred, testAsk)[0]
		if got := p.Form.Get("client_assertion"); got != "assertion-1" || again.Form.Get("client_assertion") != got || !slices.Equal(p.Secrets, []string{got}) {
			t.Errorf("the assertions are %q and %q, want the same; secrets %q", got, again.Form.Get("client_assertion"), p.Secrets)
		}
		if p.Form.Get("client_assertion_type") != assertionType {
			t.Errorf("the type is %q", p.Form.Get("client_assertion_type"))
		}
		// Another tenant with the same identity shares the token.
		other, _ := ManagedIdentityAssertion(IdentityOptions{ClientID: id, Transport: a.transport()}, c.cloud)
		if got := proofsOf(t, other, testAsk)[0].Form.Get("client_assertion"); got != "assertion-1" || a.count("") != 1 {
			t.Errorf("another tenant got %q after %d requests, want the same token", got, a.count(""))
		}
		p.Rejected(700024)
		again.Rejected(700024)
		if got := proofsOf(t, cred, testAsk)[0].Form.Get("client_assertion"); got != "assertion-2" {
			t.Errorf("after the rejection the assertion is %q, want a new one", got)
		}
		p.Rejected(700024) // of the old one: the new one stays
		if got := proofsOf(t, cred, testAsk)[0].Form.Get("client_assertion"); got != "assertion-2" {
			t.Errorf("after a late rejection the assertion is %q, want the new one kept", got)
		}
		if h := cred.Health(); h.Kind != "managed_identity_assertion" || !h.Expires.IsZero() {
			t.Errorf("health is %+v", h)
		}
	}
}

func TestAnAssertionIsNotGivenInTheLastFiveMinutesOfItsLife(t *testing.T) {
	noIdentityEnvironment(t)
	a := newAzure(t)
	a.setIMDS(imdsHandler(t, "assertion", 5*time.Minute))
	cred, err := ManagedIdentityAssertion(IdentityOptions{ClientID: uuid.NewString(), Transport: a.transport()}, "commercial")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"assertion-1", "assertion-2"} {
		if got := proofsOf(t, cred, testAsk)[0].Form.Get("client_assertion"); got != want {
			t.Errorf("the assertion is %q, want %q", got, want)
		}
	}
}

// afterSleep is a time of a machine that slept: its monotonic clock stood still
// that long, and the other one did not. Package time has no other way to make one
// than to reach for the monotonic reading, the second word of a Time.
func afterSleep(t *testing.T, now time.Time, slept time.Duration) time.Time {
	t.Helper()
	woke := now
	*(*int64)(unsafe.Add(unsafe.Pointer(&woke), 8)) -= int64(slept)
	if got := now.Sub(woke); got != slept || !woke.Round(0).Equal(now.Round(0)) {
		t.Fatalf("the monotonic clock went back by %v, want %v", got, slept)
	}
	return woke
}

func TestAnAssertionDiesByEitherClock(t *testing.T) {
	now := time.Now()
	g := &lentToken{veil("x"), now.Add(time.Hour)}
	for name, c := range map[string]struct {
		now  time.Time
		dead bool
	}{
		"alive by both":                          {now.Add(59 * time.Minute), false},
		"ended by both":                          {now.Add(time.Hour), true},
		"ended while the machine slept":          {afterSleep(t, now.Add(time.Hour), 30*time.Minute), true},
		"ended, and the wall clock was set back": {afterSleep(t, now.Add(30*time.Minute), -30*time.Minute), true},
	} {
		if got := g.dead(c.now); got != c.dead {
			t.Errorf("%s: dead is %v, want %v", name, got, c.dead)
		}
	}
}

func TestOnlyTheFirstTokenAfterARejectionPassesOverTheCache(t *testing.T) {
	noIdentityEnvironment(t)
	a := newAzure(t)
	a.setIMDS(imdsHandler(t, "assertion", time.Hour))
	cred, err := ManagedIdentityAssertion(IdentityOptions{ClientID: uuid.NewString(), Transport: a.transport()}, "commercial")
	if err != nil {
		t.Fatal(err)
	}
	proofsOf(t, cred, testAsk)[0].Rejected(700024)
	proofsOf(t, cred, testAsk)
	c := cred.(*identityAssertion)
	c.given.until = time.Now() // its end comes
	if got := proofsOf(t, cred, testAsk)[0].Form.Get("client_assertion"); got != "assertion-2" || a.count("") != 2 {
		t.Errorf("got %q after %d requests, want the cached assertion-2 after two", got, a.count(""))
	}
}

func TestManyFetchesWaitForOneAssertion(t *testing.T) {
	noIdentityEnvironment(t)
	a := newAzure(t)
	a.setIMDS(imdsHandler(t, "assertion", time.Hour))
	cred, err := ManagedIdentityAssertion(IdentityOptions{ClientID: uuid.NewString(), Transport: a.transport()}, "commercial")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := cred.Proofs(context.Background(), testAsk); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := a.count(""); n != 1 {
		t.Errorf("the endpoint was asked %d times, want once", n)
	}
	// One who cannot wait leaves.
	c := cred.(*identityAssertion)
	c.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = cred.Proofs(ctx, testAsk)
	mustFault(t, err, token.Unreachable, "in time")
	<-c.turn
}
