// Command defender-proxy is an authenticating reverse proxy for the Microsoft
// Defender APIs. README.md tells how to use it, proxy/doc.go how it works.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"defender-proxy/internal/redact"
)

// Exit codes.
const (
	exitOK    = 0
	exitWrong = 1 // something was found wrong, or went wrong
	exitUsage = 2 // the command was used wrongly
)

// version is set by the release's linker flags.
var version = ""

func main() {
	// The signals stay caught until the process is gone: a second one, told while
	// the last lines are written, would else end it with another exit code.
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit code, and only once everything
// it started has ended.
func run(ctx context.Context, args []string, env func(string) (string, bool), stdout, stderr io.Writer) int {
	c := newRoot(&cli{env: env, stdout: stdout, stderr: stderr})
	c.SetArgs(args)
	c.SetOut(stdout)
	c.SetErr(stderr)
	err := c.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFound):
		return exitWrong // the report has said it
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "defender-proxy: %s\nRun 'defender-proxy help' for the commands, or a command with --help for its flags.\n", redact.Text(err.Error()))
		return exitUsage
	}
	fmt.Fprintf(stderr, "defender-proxy: %s\n", redact.Text(err.Error()))
	return exitWrong
}

// usageError is a command line that cannot be carried out as it stands.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// errFound ends a command whose report holds what is wrong.
var errFound = errors.New("something is wrong")

// buildVersion is the release's version, else what the module's build says.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}
