package proxy

import (
	"defender-proxy/internal/redact"
	"strings"
	"testing"
)

func TestTheRecordOfAWriteShowsItsTarget(t *testing.T) {
	w := newWorld(t, options{})
	for _, path := range []string{
		"/api/machines/KeyJ-LAPTOP01/isolate", "/api/machines/HoneyJar01.corp.example/isolate", "/api/machines/report6Q~final-of-spring/isolate", "/api/machines/contoso:bob@contoso.example/isolate",
	} {
		w.do("POST", path, isolateBody, "Content-Type", "application/json")
	}
	w.server.Close() // and so the last record is written
	for _, target := range []string{"KeyJ-LAPTOP01", "HoneyJar01.corp.example", "report6Q~final-of-spring", "contoso:bob@contoso.example"} {
		if want := `"path":"/api/machines/` + target + `/isolate"`; !strings.Contains(w.records.String(), want) {
			t.Errorf("no record has %s:\n%s", want, w.records.String())
		}
	}
}

func TestWhatIsCutOffShowsNoHalfOfASecret(t *testing.T) {
	const (
		token  = "eyJhbGciOiJub25lIn0.eyJhIjoiYiJ9.c2ln"
		secret = "aB38Q~abcdefghijklmnopqrstuvwxyz.12345-6"
	)
	for _, filler := range []string{"x", " ", "/", "/" + token, " Bearer " + strings.Repeat("Ab1-", 100)} {
		for n := range 5000 {
			s := strings.Repeat(filler, n/len(filler))
			if s += filler[:n%len(filler)]; strings.HasSuffix(filler, token) {
				s = s[:n/len(filler)*len(filler)] // half a token is none
			}
			got := redact.Short(s + "/" + secret + "/" + token)
			if len(s) > 256 && (strings.Contains(got, "Q~") || strings.Contains(got, "aB38")) || len(got) > 256+len("…") {
				t.Fatalf("behind %d of %q: %s", n, filler, got)
			}
		}
	}
}

// A caller who is not admitted sends as much as limits.header_bytes lets it.
func TestALongTextIsLookedAtInItsBeginning(t *testing.T) {
	for _, s := range []string{strings.Repeat("a", 32<<10), strings.Repeat("pop+", 8<<10), "/" + strings.Repeat("Q~", 16<<10)} {
		if got := redact.Short(s); !strings.HasSuffix(got, "…") || len(got) > 256+len("…") {
			t.Errorf("of %.20q… comes %q", s, got)
		}
	}
	if got := redact.Short("curl/8 " + strings.Repeat("a", 8<<10)); got != "curl/8 …" {
		t.Errorf("got %q", got)
	}
}
