package redact

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

// pieces keeps what it is given, one entry a call.
type pieces struct {
	mu  sync.Mutex
	all []string
	err error
}

func (p *pieces) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, string(b))
	return len(b), p.err
}

func TestALineIsRedactedAsAWhole(t *testing.T) {
	const begin, end = "-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----\n"
	for _, c := range []struct {
		name string
		in   []string
		want []string
	}{
		{"a line without a secret stays", []string{"{\"a\":\"b\"}\n"}, []string{"{\"a\":\"b\"}\n"}},
		{"each line is a call of its own", []string{"a\nb\n\nc\n"}, []string{"a\n", "b\n", "\n", "c\n"}},
		{"a secret in pieces", []string{"x client_sec", "ret=hun", "ter2 y\nz", "\n"}, []string{"x client_secret=" + mark + " y\n", "z\n"}},
		{"a line without an end waits", []string{"a\nsecret=b"}, []string{"a\n"}},
		{"a string of JSON", []string{`{"error":"sent \"Bearer abc-123-def\"","n":1}` + "\n"}, []string{`{"error":"sent \"Bearer ` + mark + `\"","n":1}` + "\n"}},
		{"a member of JSON that is called a secret", []string{`{"password":"a","client_secret":["b","c"],"pwd":12,"token":null,"x":[1,"y"]}` + "\n"}, []string{`{"password":"` + mark + `","client_secret":["` + mark + `","` + mark + `"],"pwd":"` + mark + `","token":null,"x":[1,"y"]}` + "\n"}},
		{"what stands in a secret's object is told by its own name", []string{`{"client_secret":{"env":"NAME"},"authorization":"Basic x"}` + "\n"}, []string{`{"client_secret":{"env":"NAME"},"authorization":"` + mark + `"}` + "\n"}},
		{"JSON in a string of JSON", []string{`{"e":"{\"password\":\"a b\",\"c\":1}"}` + "\n"}, []string{`{"e":"{\"password\":\"` + mark + `\",\"c\":1}"}` + "\n"}},
		{"a name that holds a secret", []string{`{"` + aToken + `":"x"}` + "\n"}, []string{`{"` + mark + `":"x"}` + "\n"}},
		{"a string with an escape that hides a name", []string{`{"e":"client\u005fsecret=hunter2 & <b>"}` + "\n"}, []string{`{"e":"client_secret=` + mark + ` & <b>"}` + "\n"}},
		{"what only looks like JSON", []string{`{"password":"a b"` + "\n"}, []string{`{"password":"` + mark + `"` + "\n"}},
		{"a private key on lines of its own", []string{begin + "MIIE\n", "abc\n" + end, "x\n"}, []string{mark + "\n", mark + "\n", mark + "\n", mark + "\n", "x\n"}},
		{"a header and the line after it", []string{"Cookie: a=b\nHost: x\n"}, []string{"Cookie: " + mark + "\n", "Host: x\n"}},
		{"a quotation mark that nobody closes", []string{"password='a b\nc\n"}, []string{"password='" + mark + "\n", "c\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p pieces
			w := Writer(&p)
			for _, in := range c.in {
				if n, err := w.Write([]byte(in)); n != len(in) || err != nil {
					t.Fatalf("Write(%q) gives %d, %v", in, n, err)
				}
			}
			if got, want := strings.Join(p.all, "|"), strings.Join(c.want, "|"); got != want {
				t.Errorf("\ngot  %s\nwant %s", got, want)
			}
		})
	}
}

func TestALineThatIsTooLongIsTakenOut(t *testing.T) {
	for name, in := range map[string][]string{
		"in one piece":  {strings.Repeat("x", maxLine+1) + "\n"},
		"in two pieces": {strings.Repeat("x", maxLine), "secret=y\n"},
		"in many":       append(strings.SplitAfter(strings.Repeat(strings.Repeat("x", 999)+"|", maxLine/1000+1), "|"), "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			var p pieces
			w := Writer(&p)
			for _, s := range append(in, "next\n") {
				if _, err := w.Write([]byte(s)); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.Join(p.all, "|"); got != mark+"\n|next\n" {
				t.Errorf("got %.80q (%d bytes)", got, len(got))
			}
		})
	}
}

func TestTheWritersErrorIsTold(t *testing.T) {
	p := pieces{err: errors.New("no space left on device")}
	w := Writer(&p)
	if n, err := w.Write([]byte("a\nb\n")); n != 0 || err != p.err {
		t.Errorf("got %d, %v", n, err)
	}
	p.err = nil
	if _, err := w.Write([]byte("c\n")); err != nil || p.all[len(p.all)-1] != "c\n" {
		t.Errorf("after it: %v, %q", err, p.all)
	}
}

// The log of the process, as zerolog writes it from many goroutines.
func TestALogOfManyStaysWholeAndWithoutSecrets(t *testing.T) {
	var out bytes.Buffer
	log := zerolog.New(Writer(&out))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				log.Warn().Err(errors.New(`Get "`+aSAS+`": EOF`)).Str("password", "hunter2").Bytes("stack", []byte("at\n\t"+aToken)).Int("n", 7).Msg("Bearer " + aRefresh)
			}
		})
	}
	wg.Wait()
	n := 0
	for line := range strings.Lines(out.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil || v["n"] != 7.0 || v["password"] != mark || v["message"] != "Bearer "+mark {
			t.Fatalf("%v: %s", err, line)
		}
		n++
	}
	if n != 800 {
		t.Errorf("%d lines, want 800", n)
	}
	for _, secret := range []string{"hunter2", "eyJ", "Ab%2F", "0.AXoA"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the log shows %s", secret)
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	w := Writer(discard{})
	line := []byte(`{"level":"info","tenant":"contoso","audience":"https://api.securitycenter.microsoft.com","uti":"abc","from":"us","time":"2026-11-21T10:00:00Z","message":"got a token"}` + "\n")
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Write(line); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
