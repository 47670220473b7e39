// Package bench measures the built proxy from outside: what a request costs in
// processor time, how long a caller waits, what a start takes.
//
//	go test -run '^$' -bench . -benchtime 1x ./integration/bench
package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// plainUpstream, when set in the environment, makes this binary the peer.
const plainUpstream = "BENCH_PLAIN_UPSTREAM"

func TestMain(m *testing.M) {
	if upstream := os.Getenv(plainUpstream); upstream != "" {
		plain(upstream, os.Getenv("BENCH_CA"))
		return
	}
	os.Exit(m.Run())
}

// plain is the peer: ReverseProxy with a transport that keeps as many warm
// connections as ours does.
func plain(upstream, ca string) {
	to, err := url.Parse(upstream)
	if err != nil {
		panic(err)
	}
	data, err := os.ReadFile(ca)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	transport.MaxIdleConnsPerHost = 64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	_ = http.Serve(l, &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Set("Authorization", "Bearer token")
		},
	})
}

// page is an answer of about n bytes with a context and a next link, as a list
// of alerts has them.
func page(n int) string {
	const head = `{"@odata.context":"https://api.securitycenter.microsoft.com/api/$metadata#Alerts","value":[`
	const row = `{"id":"da637472900382838869_1364969609","incidentId":1126093,"severity":"Low","status":"New","title":"Low-reputation arbitrary code executed by signed executable","machineId":"111e6dd8c833c8a052ea231ec1b19adaf497b625","computerDnsName":"temp123.middleeast.corp.microsoft.com"}`
	const tail = `],"@odata.nextLink":"https://api.securitycenter.microsoft.com/api/alerts?$skiptoken=a%2Bb=="}`
	var b strings.Builder
	b.WriteString(head + row)
	for b.Len()+len(row)+len(tail) < n {
		b.WriteString("," + row)
	}
	b.WriteString(tail)
	return b.String()
}

// BenchmarkProcessorTime measures what a request costs in processor time, next
// to a plain httputil.ReverseProxy that does nothing but set the header. Both
// are processes of their own, both speak TLS to the same upstream, and both are
// loaded in turn within one run, so that the ratio holds on a noisy machine.
func BenchmarkProcessorTime(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Fatal("processor time of another process is read from /proc: run this on Linux")
	}
	bodies := map[string]string{"/api/alerts": page(1 << 10), "/api/machines": page(100 << 10)}
	peer, ours := pair(b, false, func(w http.ResponseWriter, r *http.Request) {
		body := bodies[r.URL.Path]
		w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = io.WriteString(w, body)
	}, "GOMAXPROCS=1") // one processor for the proxy leaves the other to the load

	for _, c := range []struct{ name, path string }{{"1KiB", "/api/alerts"}, {"100KiB", "/api/machines"}} {
		b.Run(c.name, func(b *testing.B) {
			for _, p := range []*process{peer, ours} {
				p.waitFor(b, c.path, len(bodies[c.path]))
				p.load(b, c.path, 2000) // warm
			}
			const requests = 6000
			var ratios, mine, theirs []float64
			for b.Loop() {
				// A B B A: a drift of the machine's speed cancels out.
				t1 := peer.load(b, c.path, requests)
				m1 := ours.load(b, c.path, requests)
				m2 := ours.load(b, c.path, requests)
				t2 := peer.load(b, c.path, requests)
				ratios = append(ratios, float64(m1+m2)/float64(t1+t2))
				mine = append(mine, float64(m1+m2)/2/requests)
				theirs = append(theirs, float64(t1+t2)/2/requests)
			}
			b.ReportMetric(median(ratios), "cpu-ratio")
			b.ReportMetric(median(mine)/1e3, "ours-cpu-µs/req")
			b.ReportMetric(median(theirs)/1e3, "plain-cpu-µs/req")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// pair starts the peer and ours before one upstream that speaks TLS, and HTTP/2 if
// it is told to, until the benchmark ends. env holds for both.
func pair(b *testing.B, http2 bool, answer http.HandlerFunc, env ...string) (peer, ours *process) {
	b.Helper()
	dir := b.TempDir()
	upstream := httptest.NewUnstartedServer(answer)
	upstream.EnableHTTP2 = http2
	upstream.StartTLS()
	b.Cleanup(upstream.Close)
	entra := httptest.NewServer(http.HandlerFunc(issue))
	b.Cleanup(entra.Close)
	ca := filepath.Join(dir, "ca.pem")
	write(b, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw})))

	peer = start(b, exec.Command(os.Args[0]), append([]string{plainUpstream + "=" + upstream.URL, "BENCH_CA=" + ca}, env...)...)
	binary := build(b)
	address, operator := freeAddress(b), freeAddress(b)
	config := filepath.Join(dir, "config.yaml")
	write(b, config, fmt.Sprintf(`
listeners: [{address: %s}]
admin: {address: %s}
tenants:
  - name: contoso
    id: 11111111-1111-1111-1111-111111111111
    cloud: lab
    credential: {client_id: 22222222-2222-2222-2222-222222222222, client_secret: {env: SECRET}}
egress: {ca_file: %s}
audit: {file: %s}
clouds:
  - name: lab
    authority: %s
    endpoints: {mde: {us: %s}}
    audiences: {mde: https://api.securitycenter.microsoft.com}
`, address, operator, ca, filepath.Join(dir, "audit.log"), entra.URL, upstream.URL))
	ours = start(b, exec.Command(binary, "serve", "--config", config), append([]string{"SECRET=s"}, env...)...)
	ours.address = address
	return peer, ours
}

func median[T cmp.Ordered](v []T) T {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

func issue(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"tid": strings.Split(r.URL.Path, "/")[1], "aud": strings.TrimSuffix(r.PostForm.Get("scope"), "/.default"),
		"appid": r.PostForm.Get("client_id"), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"roles": []string{"Alert.Read.All", "Machine.Read.All"},
	}).SignedString([]byte("key"))
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"access_token":%q}`, signed)
}

// build builds the proxy and gives the path of the binary.
func build(b *testing.B) string {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "defender-proxy.exe") // the ending is for Windows; others do not mind
	if out, err := exec.Command("go", "build", "-o", binary, "defender-proxy/cmd/defender-proxy").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

func write(b *testing.B, path, text string) {
	b.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func freeAddress(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a proxy that runs beside us.
type process struct {
	address string
	pid     int
	client  *http.Client
}

// start runs a proxy until the benchmark ends. The peer prints its address.
func start(b *testing.B, cmd *exec.Cmd, env ...string) *process {
	b.Helper()
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
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
	p := &process{pid: cmd.Process.Pid, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}}}
	if strings.HasPrefix(env[0], plainUpstream) {
		line := make([]byte, 64)
		n, err := out.Read(line)
		if err != nil {
			b.Fatal(err)
		}
		p.address = strings.TrimSpace(string(line[:n]))
	}
	return p
}

// waitFor waits until the proxy answers with the body, or nearly: links change
// its length.
func (p *process) waitFor(b *testing.B, path string, length int) {
	b.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		resp, err := p.client.Get("http://" + p.address + path)
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode == 200 && len(body) > length*8/10 {
				return
			}
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not answer: %v", p.address, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// load sends n requests over eight connections and returns the processor time in
// nanoseconds that the process took.
func (p *process) load(b *testing.B, path string, n int) int64 {
	b.Helper()
	before := p.processorTime(b)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for range n / 8 {
				req, err := http.NewRequestWithContext(ctx, "GET", "http://"+p.address+path, nil)
				if err != nil {
					b.Error(err)
					return
				}
				resp, err := p.client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{resp.Body}, buf)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 {
					b.Errorf("%d, %v", resp.StatusCode, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return p.processorTime(b) - before
}

// processorTime is what /proc counts of user and system time, in ticks of 10 ms
// (proc_pid_stat(5), fields 14 and 15).
func (p *process) processorTime(b *testing.B) int64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:13] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += v
	}
	return ticks * int64(10*time.Millisecond)
}
