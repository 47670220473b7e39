// Package integration runs the built binary as an operator would, over real
// sockets and TLS, against the simulator in the test's own process.
//
// One story a file, each opening with the story in prose. The binary is built
// once, with -race where the tests have it; a data race in it fails the story that met it. It
// leaves the steps of a request to the tests of package proxy, and looks at what
// only a whole process shows: signals, memory, connections, and what arrived at
// Microsoft's side.
package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

// binary is the path of the built command, coverage the folder in which it
// leaves its counters.
var binary, coverage string

func TestMain(m *testing.M) {
	// The stories wait more than they work.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "defender-proxy-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "defender-proxy.exe") // the ending is for Windows; others do not mind
	// Whoever sets GOCOVERDIR for the tests gets the counters there.
	if coverage = os.Getenv("GOCOVERDIR"); coverage == "" {
		coverage = filepath.Join(dir, "coverage")
		if err := os.Mkdir(coverage, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, "make a folder for coverage:", err)
			return 1
		}
	}
	build := exec.Command("go", slices.Concat([]string{"build"}, instrument, []string{"-o", binary, "defender-proxy/cmd/defender-proxy"})...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the binary:", err)
		return 1
	}
	code := m.Run()
	// Toxiproxy leaves these behind when a toxic ends a connection, or is taken away,
	// while data are on their way.
	if err := goleak.Find(
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
	); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "the simulator or a test left something running:", err)
		return 1
	}
	return code
}
