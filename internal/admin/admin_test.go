package admin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/token"
	"defender-proxy/regions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is an admin listener over a simulated Entra ID and one region, both of
// which can be told to fail.
type side struct {
	t       *testing.T
	handler http.Handler
	metrics *Metrics
	monitor *regions.Monitor
	engine  *token.Engine
	server  *httptest.Server
	pool    *regions.Pool

	mu           sync.Mutex // guards what follows
	refuse, down bool
	hang         bool
	roles        []string
	view         *View
	health       token.Health
	asked        int // for tokens
	begun        bool
}

const (
	tenantID = "11111111-1111-1111-1111-111111111111"
	clientID = "22222222-2222-2222-2222-222222222222"
)

// proof is a client secret whose health the side says.
type proof struct{ s *side }

func (p proof) Proofs(context.Context, token.Ask) ([]token.Proof, error) {
	return []token.Proof{{Name: "client secret", Form: url.Values{"client_secret": {"canary-secret"}}, Secrets: []string{"canary-secret"}}}, nil
}

func (p proof) Health() token.Health {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.s.health
}

func newSide(t *testing.T, change func(*side, *Sources)) *side {
	t.Helper()
	s := &side{t: t, metrics: NewMetrics("test"), roles: []string{"Alert.Read.All"}, health: token.Health{Kind: "client_secret"}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	settings := regions.DefaultSettings()
	settings.ProbeInterval = 50 * time.Millisecond
	transport := &http.Transport{}
	s.monitor = regions.NewMonitor(settings, transport)
	var err error
	if s.pool, err = s.monitor.Pool(regions.Cloud{Name: "lab", Endpoints: map[regions.Service]map[regions.Name]string{"mde": {"eu": s.server.URL}}}, "mde", nil, ""); err != nil {
		t.Fatal(err)
	}
	s.engine = token.New(token.Options{Transport: transport, Log: zerolog.Nop()})
	s.view = &View{Tenants: []Tenant{s.tenant("contoso")}}
	sources := Sources{View: s.current, Begun: s.hasBegun, Monitor: s.monitor, Metrics: s.metrics, Names: listen.NewNames(nil, false, "")}
	if change != nil {
		change(s, &sources)
	}
	if s.handler, err = New(sources); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.engine.Run(ctx) })
	running.Go(func() { _ = s.monitor.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		transport.CloseIdleConnections()
		s.server.Close()
	})
	return s
}

func (s *side) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	refuse, down, hang, roles := s.refuse, s.down, s.hang, s.roles
	if strings.HasSuffix(r.URL.Path, "/token") {
		s.asked++
	}
	s.mu.Unlock()
	switch {
	case !strings.HasSuffix(r.URL.Path, "/token") && down:
		w.WriteHeader(503)
		return
	case !strings.HasSuffix(r.URL.Path, "/token"):
		w.WriteHeader(401)
		return
	case hang:
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if refuse {
		w.WriteHeader(401)
		fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
		return
	}
	_ = r.ParseForm()
	signed, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"tid": tenantID, "aud": strings.TrimSuffix(r.PostForm.Get("scope"), "/.default"),
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "roles": roles,
	}).SignedString([]byte("canary-key"))
	fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"access_token":%q}`, signed)
}

// tenant makes one with a source of its own.
func (s *side) tenant(name string) Tenant {
	source := s.engine.Source(token.Account{
		Name: name, Cloud: name, Authority: s.server.URL, Tenant: tenantID, ClientID: clientID, Credential: proof{s},
	}, "https://mde.example")
	return Tenant{
		Name: name, ID: tenantID, Cloud: "lab", ClientID: clientID, ConsentURL: "https://login.example/consent",
		Access: []Access{{Service: "mde", Audience: "https://mde.example", Token: source, Regions: s.pool}},
	}
}

func (s *side) current() *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

func (s *side) hasBegun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// with changes the side.
func (s *side) with(change func(*side)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// warm asks for the first token of every tenant, as serve does.
func (s *side) warm() {
	for _, t := range s.current().Tenants {
		for _, a := range t.Access {
			_, _ = a.Token.Bearer(s.t.Context())
		}
	}
}

func (s *side) set(refuse, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse, s.down = refuse, down
}

func (s *side) get(path string, header ...string) *httptest.ResponseRecorder {
	method, path, ok := strings.Cut(path, " ")
	if !ok {
		method, path = "GET", method
	}
	r := httptest.NewRequest(method, path, nil)
	r.Host, r.RemoteAddr = "127.0.0.1:8081", "127.0.0.1:5555"
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8081})))
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// until polls a page until it has a status.
func (s *side) until(path string, status int) string {
	s.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		w := s.get(path)
		if w.Code == status {
			return w.Body.String()
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s stays %d: %s", path, w.Code, w.Body)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestWhoMayAsk(t *testing.T) {
	s := newSide(t, nil)
	for _, c := range []struct {
		name, path string
		header     []string
		status     int
	}{
		{"the index", "/", nil, 200},
		{"metrics", "/metrics", nil, 200},
		{"HEAD", "HEAD /-/healthy", nil, 200},
		{"another name", "/metrics", []string{"Host", "evil.example"}, 421},
		{"a page of another origin", "/metrics", []string{"Origin", "http://evil.example"}, 403},
		{"a cross-site request", "/-/regions", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"a page that there is not", "/nothing", nil, 404},
		{"a write", "POST /-/ready", nil, 405},
		{"the tenants", "/-/tenants", nil, 200},
		{"the tenants under another name", "/-/tenants", []string{"Host", "evil.example"}, 421},
		{"a reload where there is nothing to read", "POST /-/reload", nil, 404},
		{"the debugger", "/debug/pprof/", nil, 404},
	} {
		if w := s.get(c.path, c.header...); w.Code != c.status || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %d %s, want %d", c.name, w.Code, w.Body, c.status)
		}
	}
	closed := newSide(t, func(s *side, _ *Sources) {
		s.view.Clients = clients.New([]clients.Group{{Name: "ops", From: []clients.Source{clients.Addresses(netip.MustParsePrefix("10.0.0.0/8"))}}})
	})
	if w := closed.get("/-/healthy"); w.Code != 403 || !strings.Contains(w.Body.String(), "admin.clients") {
		t.Errorf("an address of no group gets %d %s", w.Code, w.Body)
	}
}

func TestMetricsCountAndTheirLabelsAreBounded(t *testing.T) {
	s := newSide(t, nil)
	s.warm()
	s.until("/-/ready", 200)
	s.metrics.Observe(&audit.Record{Operation: "alerts.list", Class: "read", Status: 200, Region: "eu", Tried: []string{"us", "eu"}, Attempts: 2, BytesOut: 7, Duration: time.Second, FirstByte: time.Second})
	s.metrics.Observe(&audit.Record{Status: 404, Code: "UnknownOperation"})
	s.metrics.Observe(&audit.Record{Operation: "alerts.list", Class: "read", File: "a.example/c/f", Status: 206, BytesOut: 5, Duration: time.Hour})
	text := s.get("/metrics").Body.String()
	for _, want := range []string{
		`defender_proxy_requests_total{code="200",operation="alerts.list"} 1`,
		`defender_proxy_requests_total{code="404",operation="none"} 1`,
		`defender_proxy_refusals_total{reason="UnknownOperation"} 1`,
		`defender_proxy_attempts_total{region="us"} 1`, `defender_proxy_attempts_total{region="eu"} 1`,
		`defender_proxy_requests_total{code="206",operation="relay"} 1`, `defender_proxy_request_duration_seconds_count{class="relay"} 1`,
		`defender_proxy_bytes_total{direction="out"} 12`,
		`defender_proxy_request_duration_seconds_count{class="read"} 1`,
		`defender_proxy_first_byte_seconds_count{region="eu"} 1`,
		`defender_proxy_token_fetches_total{outcome="ok",service="mde",tenant="contoso"} 1`,
		`defender_proxy_token_fetches_total{outcome="failed",service="mde",tenant="contoso"} 0`,
		`defender_proxy_region_up{host="`, `defender_proxy_build_info{version="test"} 1`, `go_goroutines `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line has %s", want)
		}
	}
	if !regexp.MustCompile(`defender_proxy_token_expires_in_seconds\{service="mde",tenant="contoso"\} 3[45]\d\d`).MatchString(text) {
		t.Error("the token's life is not there")
	}
	series := strings.Count(text, "\n")
	for i := range 2000 {
		s.metrics.Observe(&audit.Record{Path: fmt.Sprint("/api/", i), Method: fmt.Sprint("M", i), Tenant: fmt.Sprint("t", i), UserAgent: fmt.Sprint(i), Status: 404, Code: "UnknownOperation"})
	}
	s.metrics.Observe(&audit.Record{Operation: "alerts.list", Class: "read", Status: 99999})
	s.metrics.Observe(&audit.Record{Operation: "alerts.list", Class: "read", Status: -1})
	after := s.get("/metrics").Body.String()
	if n := strings.Count(after, "\n"); n > series+30 {
		t.Errorf("%d lines became %d", series, n)
	}
	if !strings.Contains(after, `code="other"`) {
		t.Error("a made-up status has a label of its own")
	}
	if strings.Contains(after, "canary") {
		t.Error("the metrics hold a secret")
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	if _, err := New(Sources{}); err == nil {
		t.Error("an admin listener without parts is made")
	}
}
