package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binary is the path of the built command.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "defender-proxy-clients-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "defender-proxy.exe") // the ending is for Windows; others do not mind
	args := []string{"build", "-o", binary}
	if raced() {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "defender-proxy/cmd/defender-proxy")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the binary:", err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "the simulator or a test left something running:", err)
		return 1
	}
	return code
}

// raced reports whether the tests have the race detector; then the binary gets it too.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// process is a running defender-proxy serve.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *output
	// callers are the addresses of the listeners, in the order of the configuration.
	callers  []string
	operator string
	ended    chan struct{}
	err      error // of Wait, once ended is closed
	once     sync.Once
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

// newProcess runs serve at its most talkative, and waits until it listens. It ends
// with the test.
func newProcess(t *testing.T, file string, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(binary, "serve", "--config", file, "--log-level", "debug"), stdout: new(output), stderr: new(output), ended: make(chan struct{})}
	// Nothing of this process's environment may change what the proxy does. The race
	// detector sleeps for a second at the end of every process unless told.
	p.cmd.Env = append([]string{"GORACE=atexit_sleep_ms=10", "HOME=" + os.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
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
		if len(p.callers) < 2 || p.operator == "" {
			return fmt.Errorf("its log:\n%s", p.stderr)
		}
		return nil
	})
	return p
}

// find reads the addresses out of the log, which names the listeners in the order
// of the configuration.
func (p *process) find() {
	p.callers = nil
	for line := range bytes.Lines(p.stderr.bytes()) {
		var entry struct{ Message, Address, For string }
		if json.Unmarshal(line, &entry) != nil || entry.Message != "listening" {
			continue
		}
		switch entry.For {
		case "callers":
			p.callers = append(p.callers, entry.Address)
		case "operator":
			p.operator = entry.Address
		}
	}
}

// finish ends the process and looks for what must never be. It may be called again.
func (p *process) finish() {
	p.once.Do(func() {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			p.t.Errorf("SIGTERM: %v", err)
		}
		select {
		case <-p.ended:
		case <-time.After(patience):
			_ = p.cmd.Process.Kill()
			<-p.ended
			p.t.Errorf("the proxy did not end within %v of SIGTERM", patience)
		}
		log := p.stderr.String()
		for _, never := range []string{"DATA RACE", "panic", "fatal error", `"level":"error"`} {
			if strings.Contains(log, never) {
				p.t.Errorf("the proxy's log holds %q", never)
			}
		}
		if p.err != nil {
			p.t.Errorf("the proxy ended with %v", p.err)
		}
		if p.t.Failed() {
			const most = 8 << 10
			p.t.Logf("the end of the proxy's log:\n%s", log[max(0, len(log)-most):])
		}
	})
}
