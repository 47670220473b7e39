package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestRegionFaultsAreWhatTheyAreCalled(t *testing.T) {
	cfg := quick()
	cfg.PageSize = 5
	p := start(t, cfg)
	p.client.Timeout = 2 * time.Second
	token := p.token("mde")
	var hints atomic.Int32
	read := func() (answer, error) {
		hints.Store(0)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { hints.Add(1); return nil },
		})
		r, err := http.NewRequestWithContext(ctx, "GET", p.Endpoint("eu")+"/api/alerts", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		return p.send(r)
	}
	fails := func(want error) func(*testing.T, answer, error) {
		return func(t *testing.T, a answer, err error) {
			if !errors.Is(err, want) {
				t.Errorf("got %d, error %v, want %v", a.status, err, want)
			}
		}
	}
	done := map[FaultKind]bool{}
	status := func(want int) func(*testing.T, answer, error) {
		return func(t *testing.T, a answer, err error) {
			if err != nil || a.status != want || a.code() == "" {
				t.Errorf("got %d %s, error %v, want %d", a.status, a.body, err, want)
			}
		}
	}
	for _, c := range []struct {
		fault Fault
		check func(*testing.T, answer, error)
	}{
		{Fault{Kind: FaultRefuse}, fails(syscall.ECONNREFUSED)},
		{Fault{Kind: FaultReset}, fails(syscall.ECONNRESET)},
		{Fault{Kind: FaultReset, Match: "/api/ALERTS"}, fails(syscall.ECONNRESET)},
		{Fault{Kind: FaultTLS}, func(t *testing.T, _ answer, err error) {
			if err == nil || !strings.Contains(err.Error(), "handshake failure") {
				t.Errorf("got %v, want a failed handshake", err)
			}
		}},
		{Fault{Kind: FaultHang}, fails(context.DeadlineExceeded)},
		{Fault{Kind: FaultDelay, Delay: 30 * time.Millisecond}, func(t *testing.T, a answer, err error) {
			if err != nil || a.status != 200 {
				t.Errorf("got %d, %v", a.status, err)
			}
		}},
		{Fault{Kind: FaultStatus, Status: 503, RetryAfter: "7"}, func(t *testing.T, a answer, err error) {
			status(503)(t, a, err)
			if a.header.Get("Retry-After") != "7" {
				t.Errorf("headers %v", a.header)
			}
		}},
		{Fault{Kind: FaultTruncate}, fails(io.ErrUnexpectedEOF)},
		{Fault{Kind: FaultTruncate, Match: "/api/alerts"}, fails(io.ErrUnexpectedEOF)},
		{Fault{Kind: FaultSlowBody, Delay: 2 * time.Millisecond}, func(t *testing.T, a answer, err error) {
			if err != nil || len(a.rows(t)) != 5 {
				t.Errorf("got %s, %v", a.body, err)
			}
		}},
		{Fault{Kind: FaultGarbage}, func(t *testing.T, a answer, err error) {
			if err != nil || a.status != 200 || a.header.Get("Content-Type") != "text/html" {
				t.Errorf("got %d %v, %v", a.status, a.header, err)
			}
		}},
		{Fault{Kind: FaultBadJSON}, func(t *testing.T, a answer, err error) {
			if err != nil || a.status != 200 || json.Valid(a.body) {
				t.Errorf("got %d %s, %v", a.status, a.body, err)
			}
		}},
		{Fault{Kind: FaultRedirect, Location: "https://example.com/x"}, func(t *testing.T, a answer, err error) {
			if err != nil || a.status != 302 || a.header.Get("Location") != "https://example.com/x" {
				t.Errorf("got %d %v, %v", a.status, a.header, err)
			}
		}},
		{Fault{Kind: FaultUpgrade}, func(t *testing.T, a answer, err error) {
			if err != nil || a.status != 101 {
				t.Errorf("got %d, %v, want 101", a.status, err)
			}
		}},
		{Fault{Kind: FaultFlood1xx}, func(t *testing.T, a answer, err error) {
			if err != nil || a.status != 200 || hints.Load() != 1000 {
				t.Errorf("got %d after %d hints, error %v", a.status, hints.Load(), err)
			}
		}},
		{Fault{Kind: FaultHugeHeaders}, func(t *testing.T, a answer, err error) {
			if err == nil && len(a.header) < 512 {
				t.Errorf("got %d headers", len(a.header))
			}
		}},
		{Fault{Kind: FaultEndless}, fails(context.DeadlineExceeded)},
		{Fault{Kind: FaultCookies}, func(t *testing.T, a answer, err error) {
			if err != nil || len(a.rows(t)) != 5 || a.header.Get("Set-Cookie") == "" || a.header.Get("Alt-Svc") == "" || a.header.Get("Access-Control-Allow-Origin") == "" {
				t.Errorf("got %v, %v", a.header, err)
			}
		}},
		{Fault{Kind: FaultOddLinks}, func(t *testing.T, a answer, err error) {
			if link, _ := a.object(t)["@odata.nextLink"].(string); err != nil || strings.HasPrefix(link, "https://api.securitycenter.microsoft.com/") || link == "" {
				t.Errorf("got next link %q, %v", link, err)
			}
		}},
		{Fault{Kind: FaultUnauthorized}, status(401)},
		{Fault{Kind: FaultClaimsChallenge}, func(t *testing.T, a answer, err error) {
			status(401)(t, a, err)
			if !strings.Contains(a.header.Get("WWW-Authenticate"), `error="insufficient_claims"`) {
				t.Errorf("headers %v", a.header)
			}
		}},
		{Fault{Kind: FaultThrottle}, func(t *testing.T, a answer, err error) {
			status(429)(t, a, err)
			if a.header.Get("Retry-After") != "1" {
				t.Errorf("headers %v", a.header)
			}
		}},
	} {
		done[c.fault.Kind] = true
		t.Run(string(c.fault.Kind)+c.fault.Match, func(t *testing.T) {
			if c.fault.Kind == FaultHang || c.fault.Kind == FaultEndless {
				p.client.Timeout = 150 * time.Millisecond
				defer func() { p.client.Timeout = 2 * time.Second }()
			}
			if err := p.SetRegion("eu", c.fault); err != nil {
				t.Fatal(err)
			}
			if c.fault.Kind == FaultTLS { // the handshake is what is looked at
				p.client.CloseIdleConnections()
			}
			a, err := read()
			c.check(t, a, err)
			if a, err := p.try("GET", p.Endpoint("uk")+"/api/alerts?$top=1", token, ""); err != nil || a.status != 200 {
				t.Errorf("another region: %d, %v", a.status, err)
			}
			if err := p.SetRegion("eu", Fault{}); err != nil {
				t.Fatal(err)
			}
			if a, err := read(); err != nil || a.status != 200 || len(a.rows(t)) != 5 {
				t.Errorf("after mending: %d, %v", a.status, err)
			}
		})
	}
	tried(t, regionFaults, done)
}

// tried checks that a table has every kind, so that a new one is not forgotten.
func tried(t *testing.T, kinds []FaultKind, done map[FaultKind]bool) {
	t.Helper()
	for _, k := range kinds {
		if !done[k] {
			t.Errorf("fault %s was not tried", k)
		}
	}
}

func TestFaultsCountAndMatch(t *testing.T) {
	p := start(t, quick())
	token := p.token("mde")
	if err := p.SetRegion("eu", Fault{Kind: FaultStatus, Status: 500, Count: 2, Match: "/api/alerts"}); err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, path := range []string{"/api/machines", "/api/Alerts", "/api/alerts/x", "/api/alerts"} {
		got = append(got, p.do("GET", p.Endpoint("eu")+path, token, "").status)
	}
	if want := []int{200, 500, 500, 200}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := p.SetRegion("eu", Fault{Kind: FaultTLS, Count: 1}); err != nil {
		t.Fatal(err)
	}
	p.client.CloseIdleConnections()
	if _, err := p.try("POST", p.Endpoint("eu")+"/api/alerts", token, "x"); err == nil {
		t.Error("the first handshake did not fail")
	}
	if a, err := p.try("GET", p.Endpoint("eu")+"/api/alerts?$top=1", token, ""); err != nil || a.status != 200 {
		t.Errorf("the second handshake: %d, %v", a.status, err)
	}
	if state := string(p.do("GET", p.ControlURL()+"/state", "", "").body); strings.Contains(state, `"tls"`) {
		t.Errorf("a fault that is over is still shown: %s", state)
	}
	for name, f := range map[string]Fault{
		"an unknown kind": {Kind: "explode"}, "a kind of Entra ID's": {Kind: FaultHTML}, "a status without a number": {Kind: FaultStatus},
		"a redirect to nowhere": {Kind: FaultRedirect}, "a delay of nothing": {Kind: FaultDelay}, "refusing a count": {Kind: FaultRefuse, Count: 1},
		"a negative count": {Kind: FaultReset, Count: -1},
	} {
		if err := p.SetRegion("eu", f); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if err := p.SetRegion("mars", Fault{}); err == nil || !strings.Contains(err.Error(), "us eu uk") {
		t.Errorf("an unknown region: %v", err)
	}
}

func TestEntraFaultsAreWhatTheyAreCalled(t *testing.T) {
	p := start(t, quick())
	ask := func() (answer, error) {
		r, err := http.NewRequest("POST", p.Authority()+tenantPath+"/oauth2/v2.0/token", strings.NewReader(secretForm(2).Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return p.send(r)
	}
	done := map[FaultKind]bool{}
	token := func(t *testing.T, a answer) claims {
		access, _ := a.object(t)["access_token"].(string)
		var c claims
		if _, _, err := jwt.NewParser().ParseUnverified(access, &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct {
		fault Fault
		check func(t *testing.T, a answer, err error) bool
	}{
		{Fault{Kind: FaultRefuse}, func(_ *testing.T, _ answer, err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		{Fault{Kind: FaultReset, Count: 1}, func(_ *testing.T, _ answer, err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
		{Fault{Kind: FaultTLS}, func(_ *testing.T, _ answer, err error) bool { return err != nil }},
		{Fault{Kind: FaultHang}, func(_ *testing.T, _ answer, err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		{Fault{Kind: FaultDelay, Delay: time.Millisecond}, func(_ *testing.T, a answer, err error) bool { return err == nil && a.status == 200 }},
		{Fault{Kind: FaultStatus, Status: 503}, func(_ *testing.T, a answer, _ error) bool { return a.status == 503 }},
		{Fault{Kind: FaultRedirect, Location: "/elsewhere"}, func(_ *testing.T, a answer, _ error) bool { return a.status == 302 }},
		{Fault{Kind: FaultHTML}, func(_ *testing.T, a answer, _ error) bool {
			return a.status == 200 && strings.Contains(string(a.body), "<html>")
		}},
		{Fault{Kind: FaultEmpty}, func(_ *testing.T, a answer, err error) bool { return err == nil && a.status == 200 && len(a.body) == 0 }},
		{Fault{Kind: FaultNoToken}, func(t *testing.T, a answer, _ error) bool {
			_, there := a.object(t)["access_token"]
			return a.status == 200 && !there
		}},
		{Fault{Kind: FaultExpiresInZero}, func(t *testing.T, a answer, _ error) bool { return a.object(t)["expires_in"] == 0.0 }},
		{Fault{Kind: FaultExpiresInNegative}, func(t *testing.T, a answer, _ error) bool { return a.object(t)["expires_in"] == -3599.0 }},
		{Fault{Kind: FaultWrongTID}, func(t *testing.T, a answer, _ error) bool { return strings.HasPrefix(token(t, a).TenantID, "9999") }},
		{Fault{Kind: FaultWrongAudience}, func(t *testing.T, a answer, _ error) bool {
			return token(t, a).Audience == "https://management.azure.com"
		}},
		{Fault{Kind: FaultExpired}, func(t *testing.T, a answer, _ error) bool {
			c := token(t, a)
			return c.Expires != 0 && c.Expires < time.Now().Unix()
		}},
		{Fault{Kind: FaultNotJWT}, func(t *testing.T, a answer, _ error) bool {
			access, _ := a.object(t)["access_token"].(string)
			return access != "" && !strings.Contains(access, ".")
		}},
		{Fault{Kind: FaultAADSTS, Code: 53003}, func(_ *testing.T, a answer, _ error) bool {
			return a.status == 400 && strings.Contains(string(a.body), "AADSTS53003: Access has been blocked")
		}},
		{Fault{Kind: FaultHuge}, func(_ *testing.T, a answer, _ error) bool { return len(a.body) > 16<<20 }},
		{Fault{Kind: FaultWrongKey}, func(t *testing.T, a answer, _ error) bool {
			access, _ := a.object(t)["access_token"].(string)
			parsed, _, err := jwt.NewParser().ParseUnverified(access, jwt.MapClaims{})
			return err == nil && p.signer.published(parsed.Header["kid"]) == nil
		}},
	} {
		done[c.fault.Kind] = true
		t.Run(string(c.fault.Kind), func(t *testing.T) {
			p.client.Timeout = 10 * time.Second
			if c.fault.Kind == FaultHang {
				p.client.Timeout = 100 * time.Millisecond
			}
			if err := p.SetEntra(c.fault); err != nil {
				t.Fatal(err)
			}
			a, err := ask()
			if !c.check(t, a, err) {
				t.Errorf("got %d with %d bytes, error %v", a.status, len(a.body), err) // the body may hold a token
			}
			p.client.Timeout = 10 * time.Second
			if err := p.SetEntra(Fault{}); err != nil {
				t.Fatal(err)
			}
			if a, err := ask(); err != nil || a.status != 200 {
				t.Errorf("after mending: %d, %v", a.status, err)
			}
		})
	}
	tried(t, entraFaults, done)
}

func TestMisbehaviourComesFromTheSeed(t *testing.T) {
	kinds := func(seed uint64) []mishap {
		m := newMischief(0.5, seed)
		var out []mishap
		for range 200 {
			if one := m.api(); one != nil {
				out = append(out, *one)
			} else {
				out = append(out, 0)
			}
		}
		return out
	}
	a, b, other := kinds(7), kinds(7), kinds(8)
	wrong, seen, differ := 0, map[mishap]bool{}, false
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("answer %d differs with the same seed", i)
		}
		if a[i] != 0 {
			wrong++
		}
		seen[a[i]] = true
		differ = differ || a[i] != other[i]
	}
	if wrong < 70 || wrong > 130 || len(seen) != 5 || !differ {
		t.Errorf("%d of 200 went wrong in %d ways, other seeds differ: %v", wrong, len(seen)-1, differ)
	}

	cfg := quick()
	cfg.Misbehave = 0.5
	p := start(t, cfg)
	met := map[int]bool{}
	token := ""
	for range 200 {
		if token == "" {
			r, err := http.NewRequest("POST", p.Authority()+tenantPath+"/oauth2/token", strings.NewReader(secretForm(1).Encode()))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if a, err := p.send(r); err == nil && a.status == 200 {
				token = a.object(t)["access_token"].(string)
			}
			continue
		}
		// Without a retry of net/http's own: that would hide the resets.
		a, err := p.try("POST", p.Endpoint("eu")+"/api/advancedqueries/run", token, `{"Query":"DeviceInfo | count"}`)
		if err != nil {
			a.status = -1
		}
		met[a.status] = true
	}
	for _, want := range []int{-1, 200, 401, 429, 503} {
		if !met[want] {
			t.Errorf("no answer was %d: %v", want, met)
		}
	}
}

// Many programs ask for a free port while the tests run.
func TestAPortThatIsClosedIsGivenToNobodyElse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	release := reserve(address)
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("a connection to the closed port came about")
	}
	release()
	again, err := listenAgain(address)
	if err != nil {
		t.Fatalf("the port cannot be opened again: %v", err)
	}
	again.Close()
}
