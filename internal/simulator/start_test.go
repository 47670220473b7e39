package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"defender-proxy/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a simulator that runs, with a client that trusts it.
type peer struct {
	*Simulator
	t      *testing.T
	client *http.Client
}

// allPermissions is the default tenant with every permission of the catalog.
func allPermissions() Tenant {
	t := DefaultTenant()
	for _, op := range slices.Concat(policy.Documented(), policy.Graph(), policy.Seen()) {
		for _, p := range op.Application {
			service := string(op.Service)
			t.Apps[0].Permissions[service] = append(t.Apps[0].Permissions[service], string(p))
		}
	}
	return t
}

// quick are settings that make tests fast: no delays, a small fleet.
func quick() Config {
	none := map[string]time.Duration{}
	for _, r := range regionNames {
		none[r] = 0
	}
	return Config{Seed: 1, Machines: 35, Alerts: 60, Vulnerabilities: 60, Delays: none, Tenants: []Tenant{allPermissions()}}
}

// start runs a simulator until the test ends.
func start(t *testing.T, cfg Config) *peer {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	client := trusting(s)
	t.Cleanup(func() {
		client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	return &peer{s, t, client}
}

// trusting is a client that trusts the simulator's authority, and only that.
func trusting(s *Simulator) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true},
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// object decodes the body.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("body is no JSON object: %v\n%.300s", err, a.body)
	}
	return m
}

// rows is the field value.
func (a answer) rows(t *testing.T) []map[string]any {
	t.Helper()
	var page struct{ Value []map[string]any }
	if err := json.Unmarshal(a.body, &page); err != nil {
		t.Fatalf("body is no page: %v\n%.300s", err, a.body)
	}
	return page.Value
}

// code is error.code.
func (a answer) code() string {
	var e struct{ Error struct{ Code string } }
	if json.Unmarshal(a.body, &e) != nil {
		return ""
	}
	return e.Error.Code
}

// try sends a request and reads the answer.
func (p *peer) try(method, target, token, body string) (answer, error) {
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return p.send(r)
}

func (p *peer) send(r *http.Request) (answer, error) {
	resp, err := p.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols { // what follows has no end
		return answer{resp.StatusCode, resp.Header, nil}, nil
	}
	data, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, data}, err
}

// do is try for requests that must be answered.
func (p *peer) do(method, target, token, body string) answer {
	p.t.Helper()
	a, err := p.try(method, target, token, body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

// get reads a path of the API in region eu with the default application's token.
func (p *peer) get(service, path string) answer {
	p.t.Helper()
	return p.do("GET", p.Endpoint("eu")+path, p.token(service), "")
}

var resources = map[string]string{
	"mde": "https://api.securitycenter.microsoft.com", "xdr": "https://api.security.microsoft.com", "graph": "https://graph.microsoft.com",
}

// token fetches a token for a service.
func (p *peer) token(service string) string {
	p.t.Helper()
	a := p.form("/"+DefaultTenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {DefaultClientID}, "client_secret": {DefaultSecret}, "scope": {resources[service] + "/.default"},
	})
	if a.status != 200 {
		p.t.Fatalf("token for %s: %d %s", service, a.status, a.body)
	}
	token, _ := a.object(p.t)["access_token"].(string)
	return token
}

// form posts to Entra ID.
func (p *peer) form(path string, form url.Values) answer {
	p.t.Helper()
	r, err := http.NewRequest("POST", p.Authority()+path, bytes.NewBufferString(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a, err := p.send(r)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}
