package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/canon"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/credential"
	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// wire is a transport that keeps what would have stood on the wire to Microsoft,
// and plays Entra ID.
type wire struct{ sent []byte }

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	body := `{}`
	if r.URL.Host == "login.example" {
		_ = r.ParseForm()
		signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"tid": strings.Split(r.URL.Path, "/")[1], "aud": strings.TrimSuffix(r.PostForm.Get("scope"), "/.default"),
			"appid": clientID, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "roles": allRoles,
		}).SignedString([]byte("key"))
		if err != nil {
			return nil, err
		}
		body = fmt.Sprintf(`{"token_type":"Bearer","expires_in":3599,"access_token":%q}`, signed)
	} else {
		var b bytes.Buffer
		if err := r.Write(&b); err != nil {
			return nil, err
		}
		w.sent = b.Bytes()
	}
	return &http.Response{
		StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

// inMemory makes a proxy over a wire, with everything granted that changes
// nothing.
func inMemory(tb testing.TB) (http.Handler, *wire, *policy.Catalog) {
	tb.Helper()
	sent := &wire{}
	catalog, err := policy.NewCatalog(nil)
	if err != nil {
		tb.Fatal(err)
	}
	grants, err := catalog.Grants(policy.Entries("read", "hunt"), policy.Entries("libraryfiles.*"))
	if err != nil {
		tb.Fatal(err)
	}
	engine := token.New(token.Options{Transport: sent, Log: zerolog.Nop()})
	monitor := regions.NewMonitor(regions.DefaultSettings(), sent)
	cloud := regions.Cloud{Name: "lab", Endpoints: map[regions.Service]map[regions.Name]string{"mde": {"us": "https://us.example"}, "xdr": {"us": "https://us.example"}, "graph": {"global": "https://graph.example"}}}
	secret := credential.ClientSecret(credential.Plain(func() (string, error) { return "s", nil }), nil)
	t := Tenant{Tenant: tenant.Tenant{Name: "contoso", ID: "11111111-1111-1111-1111-111111111111"}, Upstreams: map[policy.Service]*Upstream{}}
	for _, s := range policy.Services() {
		pool, err := monitor.Pool(cloud, regions.Service(s), nil, "")
		if err != nil {
			tb.Fatal(err)
		}
		account := token.Account{Name: "contoso", Authority: "https://login.example", Tenant: t.ID, ClientID: clientID, Credential: secret}
		t.Upstreams[s] = &Upstream{Audience: "https://" + string(s), Regions: pool, Token: engine.Source(account, "https://"+string(s))}
	}
	p, err := New(Deps{
		Policy:  &policy.Policy{Catalog: catalog},
		Clients: []Client{{Name: "local", From: []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.1/32"))}, Grants: grants}},
		Tenants: []Tenant{t}, Transport: sent, Monitor: monitor, Audit: audit.New(io.Discard), Metrics: &counter{}, Log: zerolog.Nop(),
		Limits:  Limits{InFlight: 8, RequestBytes: 1 << 20, ConnectTimeout: time.Second, FirstByteTimeout: time.Minute, BodyIdle: time.Second},
		Version: "test",
	})
	if err != nil {
		tb.Fatal(err)
	}
	h, err := p.Handler(Listener{Address: "127.0.0.1:8080"})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = engine.Run(ctx) }()
	tb.Cleanup(func() { cancel(); <-ended })
	return h, sent, catalog
}

// overSocket reads bytes as net/http's server does and hands them to h.
func overSocket(h http.Handler, raw string) *httptest.ResponseRecorder {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		return nil
	}
	r.RemoteAddr = "127.0.0.1:5555"
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080})))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// What was judged is what upstream received, and only what was granted got
// there: whatever target arrives, what stands on the wire is in canonical form,
// asks for an operation that is granted, has the query as it came less
// credentials, and one Authorization, ours.
func FuzzTheWayOfARequest(f *testing.F) {
	for _, s := range []string{
		"/api/alerts", "//api/machines/x?$filter=a;b", "/t/contoso/api/alerts?x=%2B", "/api/v1.0/alerts/%61", "/api/machines/x/isolate", "/api/machines/..%2fx",
		"http://127.0.0.1/api/alerts", "/api/machines/findbyip(ip='1.1.1.1',timestamp=2)", "/api/alerts?access_token=x", "*", "/api/alerts#x", "/api/alerts?#", "/api//alerts",
		"/api/libraryfiles", "/-/whoami", "/v1.0/security/alerts_v2/$count", "/api/alerts/a%20b",
	} {
		for _, m := range []string{"GET", "POST", "HEAD", "DELETE"} {
			f.Add(m, s, "x", "y")
		}
	}
	h, sent, catalog := inMemory(f)
	grants, err := catalog.Grants(policy.Entries("read", "hunt"), policy.Entries("libraryfiles.*"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, target, headerName, headerValue string) {
		if strings.ContainsAny(method+target+headerName+headerValue, "\r\n") {
			return
		}
		sent.sent = nil
		w := overSocket(h, method+" "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+headerName+": "+headerValue+"\r\n\r\n")
		if w == nil || sent.sent == nil {
			return
		}
		out, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(sent.sent)))
		if err != nil {
			t.Fatalf("%s %q puts on the wire what is no request: %v\n%q", method, target, err, sent.sent)
		}
		path, query, _ := strings.Cut(out.RequestURI, "?")
		canonical, err := canon.Parse(path)
		if err != nil || canonical.String() != path {
			t.Fatalf("%s %q sends the path %q, whose canonical form is %q, %v", method, target, path, canonical, err)
		}
		op, err := catalog.Match(out.Method, path)
		if err != nil || !grants.Rule(op, policy.Situation{}).Allow {
			t.Fatalf("%s %q sends %s %q: %v, %v", method, target, out.Method, path, op, err)
		}
		if out.Method != method {
			t.Fatalf("%s %q sends method %s", method, target, out.Method)
		}
		_, asked, _ := strings.Cut(target, "?")
		if query != canon.Query(asked) {
			t.Fatalf("%s %q sends the query %q", method, target, query)
		}
		if a := out.Header["Authorization"]; len(a) != 1 || !strings.HasPrefix(a[0], "Bearer eyJ") {
			t.Fatalf("%s %q with %q sends Authorization %q", method, target, headerName, a)
		}
		for name := range out.Header {
			if name != "Authorization" && !newHeaderList(nil).allows(name) {
				t.Fatalf("the header %q goes out", name)
			}
		}
		if host := out.Host; host != "us.example" && host != "graph.example" {
			t.Fatalf("%s %q goes to %q", method, target, host)
		}
	})
}

// The judgement of a request: canonical path, query, operation, decision.
func BenchmarkJudge(b *testing.B) {
	catalog, err := policy.NewCatalog(nil)
	if err != nil {
		b.Fatal(err)
	}
	grants, err := catalog.Grants(policy.Entries("read", "hunt", "machines.isolate"), policy.Entries("libraryfiles.*"))
	if err != nil {
		b.Fatal(err)
	}
	p := &policy.Policy{Catalog: catalog}
	permits := catalog.Permits(allRoles, nil)
	b.ReportAllocs()
	for b.Loop() {
		path, err := canon.Parse("/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/alerts")
		if err != nil {
			b.Fatal(err)
		}
		if q := canon.Query("$filter=alertCreationTime+ge+2026-11-01&$top=100"); q == "" {
			b.Fatal("no query")
		}
		op, err := p.Operation("GET", path.String())
		if err != nil || !p.Decide(op, grants, policy.Situation{}, permits).Allowed() {
			b.Fatal(op, err)
		}
	}
}

// A request through the handler without sockets, to see what the proxy's own
// work costs.
func BenchmarkHandler(b *testing.B) {
	h, _, _ := inMemory(b)
	r := httptest.NewRequest("GET", "/api/alerts?$top=5", nil)
	r.RequestURI, r.Host, r.RemoteAddr = "/api/alerts?$top=5", "127.0.0.1:8080", "127.0.0.1:5555"
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080})))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
}
