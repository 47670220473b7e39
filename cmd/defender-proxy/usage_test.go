package main

import (
	"bytes"
	"strings"
	"testing"
)

// Whoever names the wrong listener, or a name that there is none of, is told so.
func TestUsageOfARunningProxyTellsWhatWasMistaken(t *testing.T) {
	l := newLab(t, nil)
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string // of standard error, or of standard output where the code is 0
	}{
		{"the operator's listener", []string{"--admin", l.admin}, exitOK, "client group "},
		{"a listener for callers", []string{"--admin", l.url}, exitWrong, "this is not the operator's listener but one for callers"},
		{"a tenant of nobody", []string{"--admin", l.admin, "--tenant", "nobody"}, exitUsage, `no tenant is called "nobody"; there are `},
		{"a group of nobody", []string{"--admin", l.admin, "--client", "nobody"}, exitUsage, `no client group is called "nobody"; there are `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"usage"}, tc.args...), nothing, &stdout, &stderr)
			said := stderr.String()
			if tc.code == exitOK {
				said = stdout.String()
			}
			if code != tc.code || !strings.Contains(said, tc.want) {
				t.Errorf("got %d, want %d and %q\n%s%s", code, tc.code, tc.want, stdout.String(), stderr.String())
			}
		})
	}
}
