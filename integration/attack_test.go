package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// attack is what somebody sends over a socket of their own, byte for byte. In all
// of its texts HOST stands for the listener's name, with its port.
type attack struct {
	name, request string
	// status is that of the first answer, and code the code of our refusal; no code
	// means that the answer is none.
	status int
	code   string
	// arrive lists what may reach Microsoft's side for it, as "METHOD TARGET". It has
	// to arrive, and nothing else may.
	arrive []string
}

// victim is a proxy to attack: reading, hunting and isolating machines is granted
// and permitted, so that nothing but the proxy's own care stops an attack.
func victim(t *testing.T, c func(object)) *world {
	w := newWorld(t, respond(func(o object) {
		inRegions(o, "eu")
		if c != nil {
			c(o)
		}
	}))
	w.get("/api/alerts?$top=1") // the token is there
	return w
}

// fire tries an attack and gives the answers, of which there is at least one.
func (w *world) fire(a attack) []answer {
	w.t.Helper()
	named := strings.NewReplacer("HOST", w.address())
	w.sim.ResetRequests()
	answers := exchange(w.t, w.address(), named.Replace(a.request))
	var arrived []string
	for _, r := range w.upstream() {
		arrived = append(arrived, r.Method+" "+r.Target)
	}
	if want := named.Replace(strings.Join(a.arrive, "\n")); strings.Join(arrived, "\n") != want {
		w.t.Errorf("arrived at Microsoft's side: %q, want %q", arrived, want)
	}
	if len(answers) == 0 {
		w.t.Fatalf("no answer, want %d %s", a.status, a.code)
	}
	first := answers[0]
	if code, _ := first.refused(); first.status != a.status || first.ours() && code != a.code || !first.ours() && a.code != "" {
		w.t.Errorf("got %v, want %d %s", first, a.status, a.code)
	}
	for _, got := range answers {
		for name := range got.header {
			if strings.HasPrefix(name, "Access-Control-") {
				w.t.Errorf("an answer has the header %s", name)
			}
		}
	}
	if a.code != "" {
		if rs := w.recordsOf(first); len(rs) == 0 || rs[len(rs)-1].Code != a.code || rs[len(rs)-1].Status != a.status {
			w.t.Errorf("its records: %+v", rs)
		}
	}
	return answers
}

// runAll tries attacks one after the other, and then whether an honest caller is
// still served.
func (w *world) runAll(t *testing.T, attacks []attack) {
	t.Helper()
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { w.in(t).fire(a) })
	}
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK {
		t.Errorf("an honest caller afterwards: %v", a)
	}
}

// exchange writes bytes to an address and reads answers until the other side ends
// the connection, or has nothing more to say for a while.
func exchange(t *testing.T, address, request string) []answer {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = io.WriteString(c, request) }() // a server that refuses early may not read all
	in := bufio.NewReader(c)
	method, _, _ := strings.Cut(request, " ")
	var answers []answer
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), err != nil && len(answers) > 0:
			return answers
		case err != nil:
			t.Fatalf("no answer: %v", err)
		}
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		a := answer{status: resp.StatusCode, proto: resp.Proto, header: resp.Header}
		a.body, a.err = io.ReadAll(resp.Body)
		answers = append(answers, a)
		if resp.Close {
			rest, err := io.ReadAll(in)
			if len(rest) > 0 || err != nil && !gone(err) {
				t.Errorf("behind the last answer came %.300q, %v", rest, err)
			}
			return answers
		}
		method = ""
	}
}

// gone reports whether the other side ended the connection, be it with a reset: it
// did not read what it did not want.
func gone(err error) bool {
	var timeout net.Error
	return !(errors.As(err, &timeout) && timeout.Timeout())
}

// length gives a Content-Length for a body, the empty line, and the body.
func length(body string) string {
	return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(strings.ReplaceAll(body, "HOST", "127.0.0.1:65535")), body)
}

// chunked gives the header, the empty line, and body in chunks.
func chunked(chunks ...string) string {
	var b bytes.Buffer
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for _, c := range slices.Concat(chunks, []string{""}) {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(c), c)
	}
	return b.String()
}
