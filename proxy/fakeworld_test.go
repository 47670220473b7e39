package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/credential"
	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// fakeWorld is a proxy in a bubble of synctest, with callers, regions and an
// Entra ID around it on a network in memory.
type fakeWorld struct {
	net       *fakeNet
	witness   *witness
	regions   []*fakeRegion
	monitor   *regions.Monitor
	proxy     *Proxy
	transport *http.Transport
	attempts  *attemptCounter
	records   *stamped
	log       *syncBuffer

	start func() // begins to fetch tokens and to probe
	stop  []func()
}

type fakeOptions struct {
	dice    dice
	monitor bool // runs
	http2   bool // is what the regions speak, over TLS
	regions []regions.Name
	allow   []regions.Name // of regions; all when nil
	limits  func(*Limits)
	deps    func(*Deps)
	serve   func(*upstreamConn)
	entra   http.HandlerFunc // before Entra ID answers; may answer itself
}

// What one schedule costs is mostly what it has to build: the catalog is shared.
var fakePolicy = sync.OnceValues(func() (*policy.Policy, *policy.Grants) {
	catalog, err := policy.NewCatalog(nil)
	if err != nil {
		panic(err)
	}
	grants, err := catalog.Grants(policy.Entries("read", "hunt", "triage", "manage", "respond"), nil)
	if err != nil {
		panic(err)
	}
	return &policy.Policy{Catalog: catalog}, grants
})

var fakeRoles = []string{
	"Alert.ReadWrite.All", "Machine.ReadWrite.All", "Machine.Isolate", "Machine.LiveResponse", "Ti.ReadWrite.All", "AdvancedQuery.Read.All",
}

const (
	fakeEntra = "127.0.2.1:80"
	fakeProxy = "127.0.0.1:8080"
)

func newFakeWorld(t *testing.T, o fakeOptions) *fakeWorld {
	t.Helper()
	w := &fakeWorld{net: newFakeNet(), witness: &witness{start: time.Now()}, log: &syncBuffer{}}
	w.records = &stamped{witness: w.witness}
	if o.regions == nil {
		o.regions = []regions.Name{"us", "eu", "uk"}
	}
	endpoints := make(map[regions.Name]string)
	var running sync.WaitGroup
	for i, name := range o.regions {
		host := fmt.Sprintf("127.0.1.%d", i+1)
		scheme, port := "http://", ":80"
		if o.http2 {
			scheme, port = "https://", ":443"
		}
		r := &fakeRegion{name: name, witness: w.witness, net: w.net.listen(host + port), serve: o.serve}
		endpoints[name] = scheme + host
		w.regions = append(w.regions, r)
		running.Go(r.run)
	}
	w.startEntra(&running, o.entra)

	w.transport = &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // as package egress does
			defer cancel()
			return w.net.dial(ctx, network, addr)
		},
		MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
	}
	if o.http2 {
		_, roots := fakeCertificate()
		w.transport.TLSClientConfig = &tls.Config{RootCAs: roots, CurvePreferences: []tls.CurveID{tls.X25519}}
		w.transport.Protocols = new(http.Protocols)
		w.transport.Protocols.SetHTTP1(true) // Entra ID's
		w.transport.Protocols.SetHTTP2(true)
		w.transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second}
	}
	w.attempts = &attemptCounter{RoundTripper: w.transport, witness: w.witness, again: make(map[string]int)}
	log := zerolog.New(w.log)
	var mu sync.Mutex
	jitter := o.dice.roll("jitter")
	engine := token.New(token.Options{Transport: w.transport, Log: log, Rand: func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return jitter.Float64()
	}})
	settings := regions.DefaultSettings()
	settings.ProbeInterval = 10 * time.Second
	settings.Rand = o.dice.roll("probes").Float64
	w.monitor = regions.NewMonitor(settings, w.transport)

	pol, grants := fakePolicy()
	d := Deps{
		Policy:    pol,
		Clients:   []Client{{Name: "local", From: []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.0/8"))}, Grants: grants}},
		Transport: w.attempts, Monitor: w.monitor, Audit: audit.New(w.records), WritesNeedAudit: true, Metrics: &counter{}, Log: log,
		Limits:  Limits{InFlight: 64, RequestBytes: 1 << 20, ConnectTimeout: 5 * time.Second, FirstByteTimeout: 30 * time.Second, BodyIdle: 5 * time.Second, MaxWait: 4 * time.Second},
		Version: "test",
	}
	cloud := regions.Cloud{Name: "lab", Authority: "http://127.0.2.1", Endpoints: map[regions.Service]map[regions.Name]string{"mde": endpoints}}
	pool, err := w.monitor.Pool(cloud, "mde", o.allow, "")
	if err != nil {
		t.Fatal(err)
	}
	account := token.Account{
		Name: "contoso", Cloud: "lab", Authority: cloud.Authority, Tenant: fakeTenant, ClientID: clientID,
		Credential: credential.ClientSecret(credential.Plain(func() (string, error) { return secretCanary, nil }), nil),
	}
	d.Tenants = []Tenant{{
		Tenant: tenant.Tenant{Name: "contoso", ID: fakeTenant, Cloud: "lab"}, ClientID: clientID,
		Upstreams: map[policy.Service]*Upstream{"mde": {Audience: "https://mde.example", Token: engine.Source(account, "https://mde.example"), Regions: pool}},
	}}
	if o.limits != nil {
		o.limits(&d.Limits)
	}
	if o.deps != nil {
		o.deps(&d)
	}
	if w.proxy, err = New(d); err != nil {
		t.Fatal(err)
	}
	h, err := w.proxy.Handler(Listener{Address: fakeProxy})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, DisableGeneralOptionsHandler: true, ErrorLog: stdlog.New(w.log, "net/http: ", 0)}
	listener := w.net.listen(fakeProxy)
	running.Go(func() { _ = server.Serve(listener) })
	ctx, cancel := context.WithCancel(context.Background())
	w.start = func() {
		running.Go(func() { _ = engine.Run(ctx) })
		if o.monitor {
			running.Go(func() { _ = w.monitor.Run(ctx) })
		}
	}
	w.stop = append(w.stop, func() {
		_ = server.Close()
		cancel()
		for _, r := range w.regions {
			_ = r.net.Close()
		}
	}, running.Wait)
	return w
}

// attemptCounter sees what the proxy gets, and counts how often net/http takes
// another connection by itself, by the request's User-Agent.
type attemptCounter struct {
	http.RoundTripper
	witness *witness

	mu    sync.Mutex // guards again
	again map[string]int
}

func (a *attemptCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	connections := 0
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if connections++; connections > 1 {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.again[r.UserAgent()]++
		}
	}})
	resp, err := a.RoundTripper.RoundTrip(r.WithContext(ctx))
	if err == nil {
		a.witness.got(resp.Header)
	}
	return resp, err
}

const fakeTenant = "11111111-1111-1111-1111-000000000001"

// startEntra lets an Entra ID issue tokens.
func (w *fakeWorld) startEntra(running *sync.WaitGroup, before http.HandlerFunc) {
	issued := 0
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if before != nil {
			h := rw.Header()
			if before(rw, r); h.Get("Content-Type") != "" {
				return
			}
		}
		issued++ // the engine asks for one at a time
		claims := jwt.MapClaims{
			"tid": fakeTenant, "aud": "https://mde.example", "appid": clientID, "roles": fakeRoles,
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "uti": fmt.Sprintf("uti-%d", issued),
		}
		signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("key"))
		if err != nil {
			panic(err)
		}
		w.witness.logf("entra: token %d", issued)
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(rw, `{"token_type":"Bearer","expires_in":3599,"access_token":%q}`, signed)
	})}
	l := w.net.listen(fakeEntra)
	running.Go(func() { _ = server.Serve(l) })
	w.stop = append(w.stop, func() { _ = server.Close() })
}

// nobody reads what net/http says of connections that end.
var nobody = stdlog.New(io.Discard, "", 0)

// close ends everything but the connections to the regions, which the proxy is to
// close, and returns those that it has not closed.
func (w *fakeWorld) close() (left []string) {
	for _, stop := range w.stop {
		stop()
	}
	for range 2 { // streams of HTTP/2 end behind their requests
		synctest.Wait()
		w.transport.CloseIdleConnections()
		time.Sleep(time.Minute) // for what is on its way
	}
	synctest.Wait()
	for _, r := range w.regions {
		for _, u := range r.connections() {
			left = append(left, fmt.Sprintf("%s #%d", r.name, u.number))
			u.finish(byReset)
		}
		r.running.Wait()
	}
	return left
}

// stamped takes audit lines with the time of their coming, and can be told to
// fail meanwhile.
type stamped struct {
	witness *witness
	fails   func() bool // nil: never

	mu    sync.Mutex // guards lines
	lines []auditLine
}

// auditLine is what these tests read of an audit line.
type auditLine struct {
	at       time.Time
	lost     bool
	Event    string   `json:"event"`
	Path     string   `json:"path"`
	Agent    string   `json:"user_agent"`
	Status   int      `json:"status"`
	Code     string   `json:"code"`
	Reason   string   `json:"reason"`
	Region   string   `json:"region"`
	Tried    []string `json:"tried"`
	Attempts int      `json:"attempts"`
	BytesIn  int      `json:"bytes_in"`
}

func (s *stamped) Write(p []byte) (int, error) {
	lost := s.fails != nil && s.fails()
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range bytes.Lines(p) { // one that tells of lost records comes with the next
		l := auditLine{at: time.Now(), lost: lost}
		if err := json.Unmarshal(line, &l); err != nil {
			return 0, err
		}
		s.witness.logf("audit: %s", string(bytes.TrimSpace(line)))
		if l.Event != "lost" {
			s.lines = append(s.lines, l)
		}
	}
	if lost {
		return 0, errors.New("the disk is full")
	}
	return len(p), nil
}

// of gives the lines about a request, which has its id in its User-Agent.
func (s *stamped) of(id string) (intents, requests []auditLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if l.Agent == id && l.Event == "intent" {
			intents = append(intents, l)
		} else if l.Agent == id {
			requests = append(requests, l)
		}
	}
	return intents, requests
}
