package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a running defender-proxy serve.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *output
	url, admin     string // http://host:port
	ended          chan struct{}
	err            error // of Wait, once ended is closed
	expected       int   // the exit code
	// faulty are words that the log may hold although others' may not.
	faulty []string
}

// output gathers what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf.Bytes())
}

func (o *output) String() string { return string(o.bytes()) }

// command makes a run of the binary with nothing of this process's environment
// that could change what it does.
func command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	// The race detector sleeps for a second at the end of every process otherwise.
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=10", "GOCOVERDIR=" + coverage, "HOME=" + os.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)
	return cmd
}

// start runs serve, and waits until its addresses are bound.
func start(t *testing.T, level, file string, env ...string) *process {
	t.Helper()
	return startWith(t, func(*exec.Cmd) {}, level, file, env...)
}

// startWith is start for a command that is changed before it runs.
func startWith(t *testing.T, change func(*exec.Cmd), level, file string, env ...string) *process {
	t.Helper()
	if level == "" {
		level = "info"
	}
	p := &process{t: t, cmd: command(env, "serve", "--config", file, "--log-level", level), stdout: new(output), stderr: new(output), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	change(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.finish)
	eventually(t, "the proxy listens", func() error {
		p.find()
		select {
		case <-p.ended:
			t.Fatalf("the proxy ended: %v\n%s", p.err, p.stderr)
		default:
		}
		if p.url == "" || p.admin == "" {
			return fmt.Errorf("its log:\n%s", p.stderr)
		}
		return nil
	})
	return p
}

// find reads the addresses out of the log.
func (p *process) find() {
	for line := range bytes.Lines(p.stderr.bytes()) {
		var entry struct{ Message, Address, For string }
		if json.Unmarshal(line, &entry) != nil || entry.Message != "listening" {
			continue
		}
		switch entry.For {
		case "callers":
			p.url = "http://" + entry.Address
		case "operator":
			p.admin = "http://" + entry.Address
		}
	}
}

// address is host:port of the callers' listener.
func (p *process) address() string { return p.url[strings.LastIndexByte(p.url, '/')+1:] }

// stop asks the process to end.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("SIGTERM: %v", err)
	}
}

// wait waits for the end of the process and gives its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
		p.t.Errorf("the proxy did not end within %v of SIGTERM\n%s", patience, p.stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}

// finish ends the process and looks for what must never be.
func (p *process) finish() {
	caller.CloseIdleConnections() // a kept connection is no running request
	p.stop()
	if code := p.wait(); code != p.expected {
		p.t.Errorf("the proxy exited with %d, not %d", code, p.expected)
	}
	log := p.stderr.String()
	for _, never := range []string{"DATA RACE", "panic", "fatal error", `"level":"error"`} {
		if strings.Contains(log, never) && !slices.Contains(p.faulty, never) {
			p.t.Errorf("the proxy's log holds %q", never)
		}
	}
	if p.t.Failed() {
		const most = 8 << 10
		p.t.Logf("the end of the proxy's log:\n%s", log[max(0, len(log)-most):])
	}
}

// parseMetrics reads the Prometheus text format, version 0.0.4: a sample a
// line, name{labels} value, every name with its HELP and TYPE before it.
func parseMetrics(text []byte) (map[string]float64, error) {
	series := make(map[string]float64)
	kinds := make(map[string]string)
	helped := make(map[string]bool)
	for line := range bytes.Lines(text) {
		line := strings.TrimSuffix(string(line), "\n")
		if rest, ok := strings.CutPrefix(line, "# "); ok {
			word, rest, _ := strings.Cut(rest, " ")
			name, what, _ := strings.Cut(rest, " ")
			switch word {
			case "HELP":
				helped[name] = true
			case "TYPE":
				kinds[name] = what
			default:
				return nil, fmt.Errorf("metrics: the comment %q is neither HELP nor TYPE", line)
			}
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at < 0 {
			return nil, fmt.Errorf("metrics: %q is no sample", line)
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		key := line[:at]
		name, labels, _ := strings.Cut(key, "{")
		if labels != "" && !strings.HasSuffix(labels, `"}`) {
			return nil, fmt.Errorf("metrics: the labels of %q do not end", line)
		}
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if b, ok := strings.CutSuffix(name, suffix); ok && (kinds[b] == "histogram" || kinds[b] == "summary") {
				base = b
			}
		}
		if kinds[base] == "" || !helped[base] {
			return nil, fmt.Errorf("metrics: %q comes without HELP and TYPE", line)
		}
		if _, twice := series[key]; twice {
			return nil, fmt.Errorf("metrics: %s is there twice", key)
		}
		series[key] = value
	}
	return series, nil
}
