package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	benchTenant = "11111111-1111-1111-1111-111111111111"
	benchClient = "22222222-2222-2222-2222-222222222222"
	audience    = "https://api.securitycenter.microsoft.com"
)

// wideWorld is Entra ID and the regions, each behind a relay.
type wideWorld struct {
	dir, binary string
	roots       *x509.CertPool
	entra       *relay
	regions     map[string]*relay
	started     int // proxies
}

func newWideWorld(b *testing.B) *wideWorld {
	b.Helper()
	w := &wideWorld{dir: b.TempDir(), binary: build(b), roots: x509.NewCertPool(), regions: make(map[string]*relay)}
	certificate := selfSigned(b)
	w.roots.AddCert(certificate.Leaf)
	write(b, filepath.Join(w.dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Leaf.Raw})))
	serve := func(h http.HandlerFunc, rtt time.Duration) *relay {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // connections are cut here on purpose
		s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
		s.StartTLS()
		b.Cleanup(s.Close)
		return relayTo(b, s.Listener.Addr().String(), rtt)
	}
	w.entra = serve(issue, entraRTT)
	for name, rtt := range regionRTT {
		answer := strings.Replace(page(1<<10), `"value"`, `"region":"`+name+`","value"`, 1)
		w.regions[name] = serve(func(rw http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
				rw.WriteHeader(http.StatusUnauthorized) // so Microsoft answers a probe
				return
			}
			rw.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
			rw.Header().Set("Content-Length", strconv.Itoa(len(answer)))
			_, _ = io.WriteString(rw, answer)
		}, rtt)
	}
	return w
}

// selfSigned makes a certificate of Microsoft's side. Its key is of a kind that
// signs quickly, for the processor here is that of both sides.
func selfSigned(b *testing.B) tls.Certificate {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// drop closes all connections to Microsoft's side.
func (w *wideWorld) drop() {
	w.entra.drop()
	for _, r := range w.regions {
		r.drop()
	}
}

// direct is a client without a proxy that has no connection yet.
func (w *wideWorld) direct() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots}, DisableCompression: true}}
}

func (w *wideWorld) token(b *testing.B, c *http.Client) string {
	b.Helper()
	resp, err := c.PostForm(w.entra.url()+"/"+benchTenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {benchClient}, "client_secret": {"s"}, "scope": {audience + "/.default"},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.AccessToken == "" {
		b.Fatalf("there is no token in the answer (%d): %v", resp.StatusCode, err)
	}
	return answer.AccessToken
}

// ask gets the alerts, and tells when the first byte came and which region gave
// them. What goes wrong is an Error, not a Fatal, for a burst asks in goroutines.
func ask(b *testing.B, c *http.Client, base, token string) (at time.Time, region string) {
	b.Helper()
	req, err := http.NewRequest(http.MethodGet, base+"/api/alerts", nil)
	if err != nil {
		b.Error(err)
		return at, ""
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req = req.WithContext(httptrace.WithClientTrace(b.Context(), &httptrace.ClientTrace{GotFirstResponseByte: func() { at = time.Now() }}))
	resp, err := c.Do(req)
	if err != nil {
		b.Error(err)
		return at, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var answer struct{ Region string }
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Errorf("%s answered %d: %v: %s", base, resp.StatusCode, err, body)
	}
	return at, answer.Region
}

func from(b *testing.B, got, want string) {
	b.Helper()
	if got != want {
		b.Errorf("region %q answered, not %s", got, want)
	}
}

// served is a proxy that runs beside us.
type served struct{ callers, operator string }

// serve starts a proxy that ends with the benchmark, and returns when it is
// ready.
func (w *wideWorld) serve(b *testing.B, probeInterval string) *served {
	b.Helper()
	w.started++
	var endpoints []string
	for name, r := range w.regions {
		endpoints = append(endpoints, name+": "+r.url())
	}
	config := filepath.Join(w.dir, fmt.Sprintf("proxy%d.yaml", w.started))
	write(b, config, fmt.Sprintf(`
listeners: [{address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
tenants:
  - name: contoso
    id: %s
    cloud: lab
    credential: {client_id: %s, client_secret: {env: SECRET}}
egress: {ca_file: ca.pem}
regions: {probe_interval: %s}
audit: {file: audit%d.log}
clouds:
  - name: lab
    authority: %s
    endpoints: {mde: {%s}}
    audiences: {mde: %s}
`, benchTenant, benchClient, probeInterval, w.started, w.entra.url(), strings.Join(endpoints, ", "), audience))
	cmd := exec.Command(w.binary, "serve", "--config", config)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "SECRET=s")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := &served{}
	p.callers, p.operator = addresses(stderr)
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	until(b, 20*time.Second, 2*time.Millisecond, "the proxy is ready", func() error {
		resp, err := http.Get(p.operator + "/-/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %d %s, %w", resp.StatusCode, text, err)
		}
		return nil
	})
	return p
}

// read asks for the alerts over a new connection, as curl does.
func (p *served) read(b *testing.B) (took time.Duration, region string) {
	b.Helper()
	c := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer c.CloseIdleConnections()
	begun := time.Now()
	at, region := ask(b, c, p.callers, "")
	return at.Sub(begun), region
}

// call reads from a region, or the benchmark fails.
func (p *served) call(b *testing.B, region string) time.Duration {
	b.Helper()
	took, answered := p.read(b)
	if answered != region {
		b.Errorf("region %q answered, not %s; the proxy knows: %+v", answered, region, p.regions(b))
	}
	return took
}

// regionRow is what is looked at of a row of /-/regions.
type regionRow struct {
	Region                    string
	Samples, Failures         int
	LatencyMS                 float64 `json:"latency_ms"`
	LastMS                    float64 `json:"last_ms"`
	SurplusMS                 float64 `json:"surplus_ms"`
	Healthy, Suspect, Resting bool
	Chosen                    []string
}

func (p *served) regions(b *testing.B) []regionRow {
	b.Helper()
	resp, err := http.Get(p.operator + "/-/regions")
	if err != nil {
		b.Error(err)
		return nil
	}
	defer resp.Body.Close()
	var view struct{ Regions []regionRow }
	if err := json.NewDecoder(resp.Body).Decode(&view); err != nil {
		b.Error(err)
	}
	return view.Regions
}

// samples counts the measures of each region.
func (p *served) samples(b *testing.B) map[string]int {
	b.Helper()
	counts := make(map[string]int)
	for _, r := range p.regions(b) {
		counts[r.Region] = r.Samples
	}
	return counts
}

// settle waits until every region has been measured and the nearest is chosen,
// which takes a second probe where the machine was busy during the first.
func (p *served) settle(b *testing.B) {
	b.Helper()
	until(b, 3*time.Minute, 20*time.Millisecond, "the proxy has measured all regions", func() error {
		rows := p.regions(b)
		if len(rows) != len(regionRTT) {
			return fmt.Errorf("it knows of %d", len(rows))
		}
		for _, r := range rows {
			if r.Samples == 0 || (len(r.Chosen) > 0) != (r.Region == nearest) {
				return fmt.Errorf("of %s it has %d samples; chosen: %v", r.Region, r.Samples, r.Chosen)
			}
		}
		return nil
	})
}

// until asks check after each pause, until it has nothing to say.
func until(b *testing.B, patience, pause time.Duration, what string, check func() error) {
	b.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("waited %v until %s: %v", patience, what, err)
		}
		time.Sleep(pause)
	}
}
