package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// object is a piece of configuration. JSON is YAML, so it is written as that.
type object = map[string]any

// microsoftNames are the names of Microsoft's for which the TLS listener answers.
var microsoftNames = []string{
	"login.microsoftonline.com", "login.windows.net", "api.securitycenter.microsoft.com", "api.security.microsoft.com", "graph.microsoft.com",
}

// region is where all requests of a lab go, so that a fault there meets them.
const region = "eu"

// setup says how a lab differs from the usual one: tenant contoso with the demo
// tenant's permissions, one client group on loopback that may read and hunt.
type setup struct {
	sim simulator.Config
	// permissions are added to those of the tenant's application, by service: mde,
	// xdr, graph.
	permissions map[string][]string
	// allow is what the client group may do; read and hunt when nil.
	allow []string
	// downloads lets download links lead through the proxy.
	downloads bool
	// tenant are further keys of the tenant, such as hunting.
	tenant object
	// config changes the configuration before it is written.
	config func(object)
}

// lab is a proxy with a plain listener and one for TLS, and a simulator behind it.
// Several goroutines of a test may use it at once.
type lab struct {
	*process
	t   *testing.T
	sim *simulator.Simulator
	dir string
	// plain and secure are the base URLs, http://127.0.0.1:PORT and
	// https://localhost:PORT; admin is the operator's. They outlast a restart.
	plain, secure, admin string
	// caFile is the CA of the TLS listener's certificate, as PEM; roots is the same.
	caFile string
	roots  *x509.CertPool

	configuration object
	file          string
	earlier       []*process // that were ended by restart
}

const secretVariable = "CONTOSO_SECRET"

// newLab starts a simulator and a proxy, and ends both with the test.
func newLab(t *testing.T, s setup) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir()}
	l.simulate(s)
	l.certify()
	l.configure(s)
	l.start()
	return l
}

func (l *lab) simulate(s setup) {
	l.t.Helper()
	if s.sim.Tenants == nil {
		s.sim.Tenants = []simulator.Tenant{simulator.DefaultTenant()}
	}
	held := s.sim.Tenants[0].Apps[0].Permissions
	for service, more := range s.permissions {
		held[service] = append(held[service], more...)
	}
	sim, err := simulator.New(s.sim)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sim.Run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("the simulator: %v", err)
		}
	})
	l.sim = sim
	l.write("simulator.pem", sim.CA())
}

// configure makes the configuration, with ports that start finds out.
func (l *lab) configure(s setup) {
	l.t.Helper()
	endpoints := object{region: l.sim.Endpoint(region)}
	tenant := object{
		"name": "contoso", "id": simulator.DefaultTenantID, "cloud": "lab",
		"credential": object{"client_id": simulator.DefaultClientID, "client_secret": object{"env": secretVariable}},
	}
	maps.Copy(tenant, s.tenant)
	allow := s.allow
	if allow == nil {
		allow = []string{"read", "hunt"}
	}
	l.configuration = object{
		"listeners": []object{
			{"address": "127.0.0.1:0"},
			{"address": "127.0.0.1:0", "hosts": microsoftNames, "tls": object{"cert_file": "server.pem", "key_file": "server.key"}},
		},
		"admin":   object{"address": "127.0.0.1:0"},
		"clients": []object{{"name": "local", "from": []string{"127.0.0.0/8", "::1/128"}, "allow": allow}},
		"tenants": []object{tenant},
		"relay":   object{"downloads": s.downloads},
		"egress":  object{"ca_file": "simulator.pem"},
		"clouds": []object{{
			"name": "lab", "authority": l.sim.Authority(),
			"endpoints": object{"mde": endpoints, "xdr": endpoints, "graph": endpoints},
			"audiences": object{
				"mde": "https://api.securitycenter.microsoft.com", "xdr": "https://api.security.microsoft.com", "graph": "https://graph.microsoft.com",
			},
			"blob_hosts": []string{strings.TrimPrefix(l.sim.BlobURL(), "https://")},
		}},
	}
	if s.config != nil {
		s.config(l.configuration)
	}
}

// start runs the proxy until it is ready.
func (l *lab) start() {
	l.t.Helper()
	text, err := json.MarshalIndent(l.configuration, "", "  ")
	if err != nil {
		l.t.Fatal(err)
	}
	l.file = l.write("proxy.yaml", text)
	l.process = newProcess(l.t, l.file, secretVariable+"="+simulator.DefaultSecret)
	l.plain, l.admin = "http://"+l.callers[0], "http://"+l.operator
	l.secure = "https://localhost:" + port(l.callers[1])
	eventually(l.t, "the proxy is ready", func() error {
		status, _, body, err := l.ask(http.MethodGet, l.admin+"/-/ready", "")
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("it answers %d %s, %v", status, body, err)
		}
		return nil
	})
}

// restart ends the proxy and starts it again on the same ports.
func (l *lab) restart() {
	l.t.Helper()
	for i, address := range l.callers {
		l.configuration["listeners"].([]object)[i]["address"] = address
	}
	l.configuration["admin"] = object{"address": l.operator}
	l.process.finish()
	l.earlier = append(l.earlier, l.process)
	l.start()
}

// host is host:port of the TLS listener.
func (l *lab) host() string { return l.callers[1] }

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func (l *lab) write(name string, data []byte) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// transport trusts the lab's CA and leads Microsoft's names to the TLS listener, as a
// hosts file would. Other addresses are dialled as they are. It keeps no connection.
func (l *lab) transport() *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: l.roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if name, _, _ := net.SplitHostPort(address); slices.Contains(microsoftNames, name) {
				address = l.host()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
}

// client is a client with that transport.
func (l *lab) client() *http.Client {
	return &http.Client{Transport: l.transport(), Timeout: patience}
}

// ask sends a request and reads the answer. header holds names and values in turn.
func (l *lab) ask(method, url, body string, header ...string) (status int, h http.Header, text []byte, err error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := l.client().Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, text, err
}

// alerts are the ids of all alerts of the tenant, in the order in which the proxy
// gives them.
func (l *lab) alerts() []string {
	l.t.Helper()
	var ids []string
	for next := l.plain + "/api/alerts"; next != ""; {
		_, _, body, err := l.ask(http.MethodGet, next, "")
		var page struct {
			Value []struct{ ID string }
			Next  string `json:"@odata.nextLink"`
		}
		if err == nil {
			err = json.Unmarshal(body, &page)
		}
		if err != nil || len(page.Value) == 0 {
			l.t.Fatalf("GET %s: %v: %.300s", next, err, body)
		}
		for _, a := range page.Value {
			ids = append(ids, a.ID)
		}
		next = page.Next
	}
	return ids
}

// fault lets the next request whose path begins with match meet a fault; Kind
// decides which. A Count of 0 strikes all.
func (l *lab) fault(f simulator.Fault) {
	l.t.Helper()
	if err := l.sim.SetRegion(region, f); err != nil {
		l.t.Fatal(err)
	}
}

// throttle answers the next request whose path begins with match with 429 and
// Retry-After: 1.
func (l *lab) throttle(match string) {
	l.t.Helper()
	l.fault(simulator.Fault{Kind: simulator.FaultThrottle, RetryAfter: "1", Count: 1, Match: match})
}

// patience bounds how long a test waits for anything but a foreign program.
const patience = 30 * time.Second

// eventually waits until check has nothing to say.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v until %s: %v", patience, what, err)
		}
	}
}
