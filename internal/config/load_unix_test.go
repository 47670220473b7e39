//go:build unix

package config

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// To open a pipe would wait for somebody to write to it, and the reload with it.
func TestAPipeIsNoConfiguration(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "config.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, load := range map[string]func(string, func(string) (string, bool)) (*Config, error){"a start": LoadPartly, "a reload": Load} {
		if _, err := load(pipe, contosoEnv.lookup); err == nil || !strings.HasSuffix(err.Error(), "cannot be read: it is not a regular file") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
