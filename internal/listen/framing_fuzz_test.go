package listen

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// FuzzFraming holds, for any bytes on a connection, that
//   - each request that net/http takes is what every other way of reading the bytes
//     takes for it, or refuses, but never another one or a part of a longer one;
//   - net/http never answers by itself, so that the audit learns of each refusal;
//   - the pieces that the bytes come in make no difference.
func FuzzFraming(f *testing.F) {
	for i, a := range attacks {
		f.Add(a.bytes, uint16(i))
	}
	s := pieced(f)
	others := each()
	f.Fuzz(func(t *testing.T, text string, cuts uint16) {
		s.t = t
		seen, out := s.run(text)
		onlyOurs(t, seen, out)
		if again, _ := s.run(cut(text, cuts)...); !slices.Equal(again, seen) {
			t.Errorf("in one piece net/http saw\n%q\nin pieces\n%q", seen, again)
		}
		taken := seen
		for i, line := range seen {
			if strings.HasPrefix(line, "refused ") || strings.HasSuffix(line, " broken") {
				taken = seen[:i]
				break
			}
		}
		for name, h := range others {
			read, end := h.read(text)
			for i, want := range taken {
				if i < len(read) && read[i] != want {
					t.Errorf("request %d is\n\t%s\nand to a program of the habit %s\n\t%s", i, want, name, read[i])
				}
				if i >= len(read) {
					if end != refusing {
						t.Errorf("request %d is\n\t%s\nand to a program of the habit %s not complete", i, want, name)
					}
					break
				}
			}
		}
	})
}

// onlyOurs holds that the handler made each answer, one for each request.
func onlyOurs(t *testing.T, seen []string, out string) {
	t.Helper()
	in := bufio.NewReader(strings.NewReader(out))
	n := 0
	for {
		if _, err := in.Peek(1); err != nil {
			break
		}
		method := ""
		if n < len(seen) {
			method, _, _ = strings.Cut(seen[n], " ")
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("answer %d cannot be read: %v: %q", n, err, out)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatalf("answer %d breaks off: %v: %q", n, err, out)
		}
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		if resp.Header.Get("X-Handler") == "" {
			t.Errorf("answer %d is net/http's own: %q", n, out)
		}
		n++
	}
	if n != len(seen) {
		t.Errorf("%d answers to %d requests: %q", n, len(seen), out)
	}
}

// cut cuts by a number: 0 makes single bytes, any other pieces of pseudo-random
// lengths.
func cut(text string, by uint16) (all []string) {
	if by == 0 {
		return strings.Split(text, "")
	}
	state := uint32(by)
	for text != "" {
		state = state*1664525 + 1013904223
		n := min(len(text), 1+int(state>>24)%48)
		all, text = append(all, text[:n]), text[n:]
	}
	return all
}

// The habits do read the attacks in different ways; else the fuzz test would
// compare nothing.
func TestEachHabitReadsSomeAttackInItsOwnWay(t *testing.T) {
	for name, h := range each() {
		if !h.loose() {
			continue
		}
		differs := slices.ContainsFunc(attacks, func(a struct {
			name, bytes string
			want        []string
		}) bool {
			strict, end := habits{}.read(a.bytes)
			own, ownEnd := h.read(a.bytes)
			return fmt.Sprint(strict, end) != fmt.Sprint(own, ownEnd)
		})
		if !differs {
			t.Errorf("%s reads all of them as RFC 9112 does", name)
		}
	}
}
