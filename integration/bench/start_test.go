package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// BenchmarkStart starts the proxy with one tenant and with a thousand, each a
// file of a folder, before a simulator: the time until it listens, until each
// tenant has its token (ready), and the memory that the process holds then.
func BenchmarkStart(b *testing.B) {
	binary := build(b)
	const most = 1000
	var tenants []simulator.Tenant
	for i := range most {
		t := simulator.DefaultTenant()
		t.Name, t.ID = fmt.Sprintf("customer%04d", i), fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", i)
		tenants = append(tenants, t)
	}
	sim, err := simulator.New(simulator.Config{Tenants: tenants})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sim.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	alone := 0.0
	for _, n := range []int{1, most} {
		b.Run(fmt.Sprintf("%d_tenants", n), func(b *testing.B) {
			file := startConfiguration(b, sim, tenants[:n])
			var listening, ready time.Duration
			var memory float64
			for b.Loop() {
				l, r, m := startOnce(b, binary, file)
				listening, ready, memory = listening+l, ready+r, memory+m
			}
			runs := float64(b.N)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(listening.Seconds()*1000/runs, "ms-to-listen")
			b.ReportMetric(ready.Seconds()*1000/runs, "ms-to-ready")
			b.ReportMetric(memory/runs/(1<<20), "MiB")
			if n == 1 {
				alone = memory / runs
			} else if alone > 0 {
				b.ReportMetric((memory/runs-alone)/float64(n-1)/(1<<10), "KiB/tenant")
			}
		})
	}
}

func startConfiguration(b *testing.B, sim *simulator.Simulator, tenants []simulator.Tenant) string {
	b.Helper()
	dir := b.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tenants"), 0o700); err != nil {
		b.Fatal(err)
	}
	for _, t := range tenants {
		write(filepath.Join("tenants", t.Name+".yaml"), []byte("id: "+t.ID+"\n"))
	}
	write("ca.pem", sim.CA())
	eu := map[string]string{"eu": sim.Endpoint("eu")}
	config, err := json.Marshal(map[string]any{
		"listeners": []any{map[string]any{"address": "127.0.0.1:0"}}, "admin": map[string]any{"address": "127.0.0.1:0"},
		"tenants_dir": "tenants",
		"tenant_defaults": map[string]any{"cloud": "lab", "credential": map[string]any{
			"client_id": simulator.DefaultClientID, "client_secret": map[string]any{"env": "BENCH_SECRET"},
		}},
		"egress": map[string]any{"ca_file": "ca.pem"},
		"clouds": []any{map[string]any{
			"name": "lab", "authority": sim.Authority(), "endpoints": map[string]any{"mde": eu, "xdr": eu, "graph": eu},
			"audiences": map[string]any{
				"mde": "https://api.securitycenter.microsoft.com", "xdr": "https://api.security.microsoft.com", "graph": "https://graph.microsoft.com",
			},
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	write("proxy.yaml", config)
	return filepath.Join(dir, "proxy.yaml")
}

// addresses reads a proxy's log until both its addresses are there, or the log
// ends, and gives them as http://host:port.
func addresses(log io.Reader) (callers, operator string) {
	lines := bufio.NewScanner(log)
	for (callers == "" || operator == "") && lines.Scan() {
		var entry struct{ Message, Address, For string }
		if json.Unmarshal(lines.Bytes(), &entry) != nil || entry.Message != "listening" {
			continue
		}
		switch entry.For {
		case "callers":
			callers = "http://" + entry.Address
		case "operator":
			operator = "http://" + entry.Address
		}
	}
	return callers, operator
}

// startOnce starts the proxy and ends it when every tenant has its token. The
// memory is in bytes, 0 where /proc does not tell.
func startOnce(b *testing.B, binary, file string) (listening, ready time.Duration, memory float64) {
	b.Helper()
	cmd := exec.Command(binary, "serve", "--config", file)
	cmd.Env = append(os.Environ(), "BENCH_SECRET="+simulator.DefaultSecret)
	log, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}()
	_, admin := addresses(log)
	listening = time.Since(begun)
	go func() { _, _ = io.Copy(io.Discard, log) }()
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := http.Get(admin + "/-/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			b.Fatal("it does not become ready")
		}
		time.Sleep(5 * time.Millisecond)
	}
	ready = time.Since(begun)
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			memory = kb * 1024
		}
	}
	return listening, ready, memory
}
