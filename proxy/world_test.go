package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/credential"
	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a proxy with servers on both sides: an Entra ID, two regions, and a
// listener.
type world struct {
	t       *testing.T
	proxy   *Proxy
	server  *httptest.Server // the proxy's listener
	regions []*region
	graph   *region // Microsoft Graph's only one, where there is Graph
	records *recorder
	entra   *entra
	log     *syncBuffer
	metrics *counter
}

// options change a world before it is built.
type options struct {
	allow, deny []string
	tenants     []string // names; contoso alone when nil
	listener    Listener
	limits      func(*Limits)
	deps        func(*Deps)
	roles       []string
	scopes      []string
	regions     []regions.Name // us and eu when nil
	tls         bool           // the listener speaks TLS, and HTTP/2
	life        int            // of tokens, in seconds; an hour when 0
	graph       bool           // Microsoft Graph is there too
	additions   []policy.Operation
}

var allRoles = []string{"Alert.Read.All", "Machine.Read.All", "Machine.Isolate", "Ti.ReadWrite.All", "AdvancedQuery.Read.All", "Library.Manage", "Incident.Read.All"}

const secretCanary = "canary-client-secret-7Q~x"

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{t: t, records: &recorder{}, log: &syncBuffer{}, metrics: &counter{}}
	if o.roles == nil && o.scopes == nil {
		o.roles = allRoles
	}
	w.entra = newEntra(t, o.roles, o.scopes)
	w.entra.set(func(e *entra) { e.life = max(o.life, 0) })
	roots := x509.NewCertPool()
	endpoints := make(map[regions.Name]string)
	if o.regions == nil {
		o.regions = []regions.Name{"us", "eu"}
	}
	for _, name := range o.regions {
		r := newRegion(t, name)
		w.regions = append(w.regions, r)
		endpoints[name] = r.server.URL
		roots.AddCert(r.server.Certificate())
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true}
	log := zerolog.New(w.log)
	engine := token.New(token.Options{Transport: transport, Log: log})
	// No monitor runs: the order stays that of the cloud, us before eu, until a
	// failure is reported.
	monitor := regions.NewMonitor(regions.DefaultSettings(), transport)

	catalog, err := policy.NewCatalog(o.additions)
	if err != nil {
		t.Fatal(err)
	}
	if o.allow == nil {
		o.allow = []string{"read", "hunt", "manage", "respond"}
	}
	grants, err := catalog.Grants(policy.Entries(o.allow...), policy.Entries(o.deny...))
	if err != nil {
		t.Fatal(err)
	}
	if o.tenants == nil {
		o.tenants = []string{"contoso"}
	}
	d := Deps{
		Policy:    &policy.Policy{Catalog: catalog},
		Clients:   []Client{{Name: "local", From: []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.0/8"))}, Grants: grants}},
		Transport: transport, Monitor: monitor, Audit: audit.New(w.records), WritesNeedAudit: true, Metrics: w.metrics, Log: log,
		Limits:  Limits{InFlight: 64, RequestBytes: 1 << 20, ConnectTimeout: 5 * time.Second, FirstByteTimeout: 10 * time.Second, BodyIdle: 5 * time.Second},
		Version: "test",
	}
	cloud := regions.Cloud{
		Name: "lab", Authority: w.entra.server.URL,
		Endpoints: map[regions.Service]map[regions.Name]string{"mde": endpoints, "xdr": endpoints},
	}
	services := []policy.Service{"mde", "xdr"}
	if o.graph {
		w.graph = newRegion(t, regions.Global)
		roots.AddCert(w.graph.server.Certificate())
		cloud.Endpoints["graph"] = map[regions.Name]string{regions.Global: w.graph.server.URL}
		services = append(services, "graph")
	}
	for i, name := range o.tenants {
		id := tenant.ID(fmt.Sprintf("11111111-1111-1111-1111-%012d", i+1))
		built := Tenant{
			Tenant: tenant.Tenant{Name: name, ID: id, Cloud: "lab"}, ClientID: clientID,
			Upstreams: make(map[policy.Service]*Upstream),
		}
		for _, s := range services {
			pool, err := monitor.Pool(cloud, regions.Service(s), nil, "")
			if err != nil {
				t.Fatal(err)
			}
			account := token.Account{
				Name: name, Cloud: "lab", Authority: cloud.Authority, Tenant: id, ClientID: clientID,
				Credential: credential.ClientSecret(credential.Plain(func() (string, error) { return secretCanary, nil }), nil),
			}
			audience := "https://" + string(s) + ".example"
			built.Upstreams[s] = &Upstream{Audience: audience, Token: engine.Source(account, audience), Regions: pool}
		}
		d.Tenants = append(d.Tenants, built)
	}
	if o.limits != nil {
		o.limits(&d.Limits)
	}
	if o.deps != nil {
		o.deps(&d)
	}
	if w.proxy, err = New(d); err != nil {
		t.Fatal(err)
	}
	o.listener.Address = "127.0.0.1:8080"
	h, err := w.proxy.Handler(o.listener)
	if err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(h)
	w.server.Config.DisableGeneralOptionsHandler = true
	w.server.Config.IdleTimeout = 10 * time.Second
	w.server.Config.ErrorLog = stdlog.New(w.log, "net/http: ", 0)
	t.Cleanup(func() {
		if strings.Contains(w.log.String(), "panic serving") {
			t.Errorf("net/http recovered a panic: %s", w.log.String())
		}
	})
	if o.tls {
		w.server.EnableHTTP2 = true
		w.server.StartTLS()
	} else {
		w.server.Start()
	}

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = engine.Run(ctx) })
	t.Cleanup(func() {
		w.server.Close()
		cancel()
		running.Wait()
		transport.CloseIdleConnections()
	})
	return w
}

const clientID = "22222222-2222-2222-2222-222222222222"

// do sends a request and reads the whole answer.
func (w *world) do(method, target, body string, header ...string) *reply {
	w.t.Helper()
	req, err := http.NewRequest(method, w.server.URL+target, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body == "" {
		req.Body = http.NoBody
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	if w.proxy.Approval != nil && req.Header["X-Key"] == nil {
		req.Header.Set("X-Key", analystsKey) // see twoPeople
	}
	resp, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true, ExpectContinueTimeout: 10 * time.Second}).RoundTrip(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, target, err)
	}
	return readReply(w.t, resp)
}

// raw writes bytes to the listener's socket and reads the first answer.
func (w *world) raw(request string) *reply {
	w.t.Helper()
	c, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		w.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("no answer to %.60q: %v", request, err)
	}
	return readReply(w.t, resp)
}

type reply struct {
	status int
	header http.Header
	body   string
	err    error // why the body ended early
}

func readReply(t *testing.T, resp *http.Response) *reply {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return &reply{resp.StatusCode, resp.Header, string(b), err}
}

// code is the refusal's code, empty where the answer is none.
func (r *reply) code() string {
	var e struct {
		Error struct{ Code, Message, Target string }
	}
	if json.Unmarshal([]byte(r.body), &e) != nil || e.Error.Target != r.header.Get("X-Request-Id") || e.Error.Message == "" {
		return ""
	}
	return e.Error.Code
}

// message is the refusal's sentence.
func (r *reply) message() string {
	var e struct{ Error struct{ Message string } }
	_ = json.Unmarshal([]byte(r.body), &e)
	return e.Error.Message
}

// region is an endpoint that keeps what arrived.
type region struct {
	name   regions.Name
	server *httptest.Server

	mu      sync.Mutex // guards what follows
	handler http.HandlerFunc
	arrived []arrival
}

type arrival struct {
	method, target, host string
	header               http.Header
	body                 string
	length               int64
	at                   time.Time
}

func newRegion(t *testing.T, name regions.Name) *region {
	r := &region{name: name}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.arrived = append(r.arrived, arrival{req.Method, req.RequestURI, req.Host, req.Header.Clone(), string(b), req.ContentLength, time.Now()})
		h := r.handler
		r.mu.Unlock()
		if h == nil {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"region":%q}`, name)
			return
		}
		h(w, req)
	}))
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	return r
}

func (r *region) answer(h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handler = h
}

func (r *region) requests() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]arrival(nil), r.arrived...)
}

// reset lets every connection die without an answer.
func reset(w http.ResponseWriter, _ *http.Request) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
		_ = c.(*tls.Conn).NetConn().Close()
	}
}

// entra issues tokens that are signed by nobody who matters.
type entra struct {
	server *httptest.Server

	mu      sync.Mutex // guards what follows
	roles   []string
	scopes  []string
	issued  []string
	claims  []string // of the requests, one for each in issued
	same    bool     // gives the first token again
	refuses bool
	hangs   chan struct{} // answers nobody until it is closed
	life    int           // seconds; an hour when 0
}

func newEntra(t *testing.T, roles, scopes []string) *entra {
	e := &entra{roles: roles, scopes: scopes}
	e.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		hangs := e.hangs
		e.mu.Unlock()
		if hangs != nil {
			<-hangs
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if e.refuses {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: 1"}`)
			return
		}
		_ = r.ParseForm()
		claims := jwt.MapClaims{
			"tid": strings.Split(r.URL.Path, "/")[1], "aud": strings.TrimSuffix(r.Form.Get("scope"), "/.default"),
			"appid": clientID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
			"uti": fmt.Sprintf("uti-%d", len(e.issued)),
		}
		if e.roles != nil {
			claims["roles"] = e.roles
		}
		if e.scopes != nil {
			claims["scp"] = strings.Join(e.scopes, " ")
		}
		life := e.life
		if life == 0 {
			life = 3599
		}
		claims["exp"] = time.Now().Unix() + int64(life) + 1
		signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("key"))
		if err != nil {
			t.Error(err)
		}
		if e.same && len(e.issued) > 0 {
			signed = e.issued[0]
		}
		e.issued = append(e.issued, signed)
		e.claims = append(e.claims, r.Form.Get("claims"))
		fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":%d,"access_token":%q}`, life, signed)
	}))
	t.Cleanup(e.server.Close)
	return e
}

func (e *entra) set(f func(*entra)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e)
}

func (e *entra) tokens() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.issued...)
}

// recorder keeps audit lines, and can be told to fail.
type recorder struct {
	syncBuffer
	fail  error
	stall time.Duration
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	time.Sleep(r.stall)
	if r.fail != nil {
		return 0, r.fail
	}
	return r.b.Write(p)
}

func (r *recorder) setFail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// lines waits for n audit lines: the last one is written behind the answer.
func (w *world) lines(n int) []map[string]any {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var out []map[string]any
		for line := range strings.Lines(w.records.String()) {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				w.t.Fatalf("audit line %q: %v", line, err)
			}
			out = append(out, m)
		}
		if len(out) >= n {
			return out
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d audit lines, want %d: %s", len(out), n, w.records.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// counter counts what Metrics would.
type counter struct {
	mu    sync.Mutex // guards codes
	codes map[string]int
}

func (c *counter) Observe(r *audit.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.codes == nil {
		c.codes = make(map[string]int)
	}
	c.codes[r.Code]++
}
