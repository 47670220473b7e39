package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"defender-proxy/internal/simulator"
)

var update = flag.Bool("update", false, "write what scripts compare outputs with anew")

// The test binary is the command as well: scripts run it under its name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"defender-proxy": main})
}

// The files under testdata/script use the command as people do in a shell. Each
// finds a running simulator and configurations for it: lab.yaml, the usual one;
// alerts.yaml, which grants what the token permits; and respond.yaml, which
// grants more.
func TestScripts(t *testing.T) {
	sim := startSimulator(t, simulator.Config{})
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv(demoSecret, simulator.DefaultSecret)
			// The race detector sleeps for a second at the end of every process
			// otherwise.
			env.Setenv("GORACE", "atexit_sleep_ms=10")
			for name, data := range map[string]string{
				"ca.pem":       string(sim.CA()),
				"lab.yaml":     simulatorConfig(sim, "127.0.0.1:0", "127.0.0.1:0", "ca.pem", nil),
				"alerts.yaml":  simulatorConfig(sim, "127.0.0.1:0", "127.0.0.1:0", "ca.pem", []string{"alerts.list", "incidents.list", "graph.alerts.get"}),
				"respond.yaml": simulatorConfig(sim, "127.0.0.1:0", "127.0.0.1:0", "ca.pem", []string{"read", "respond"}),
			} {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(data), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"matches": matches,
		},
	})
}

// exits runs the command and wants an exit code: exits CODE ARGUMENTS…
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE ARGUMENTS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var ended *exec.ExitError
	switch err := ts.Exec("defender-proxy", args[1:]...); {
	case errors.As(err, &ended):
		got = ended.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("it exited with %d, not %d", got, want)
	}
}

// matches wants the whole of a file, stdout or stderr to match an expression:
// matches FILE REGEXP
func matches(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] matches FILE REGEXP")
	}
	re, err := regexp.Compile(`\A(?:` + args[1] + `)\z`)
	ts.Check(err)
	if text := ts.ReadFile(args[0]); re.MatchString(text) == neg {
		ts.Fatalf("%s as a whole: match of %q is %v", args[0], args[1], neg)
	}
}

// startSimulator runs a simulator until the test ends.
func startSimulator(t *testing.T, c simulator.Config) *simulator.Simulator {
	t.Helper()
	sim, err := simulator.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sim.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the simulator: %v", err)
		}
	})
	return sim
}

// command is a run of the program within the test.
type command struct {
	stdout, stderr buffer
	cancel         context.CancelFunc
	code           chan int
}

func begin(t *testing.T, env map[string]string, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &command{cancel: cancel, code: make(chan int, 1)}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	go func() { c.code <- run(ctx, args, lookup, &c.stdout, &c.stderr) }()
	return c
}

func (c *command) String() string {
	return fmt.Sprintf("stdout:\n%s\nstderr:\n%s", c.stdout.String(), strings.TrimSpace(c.stderr.String()))
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
