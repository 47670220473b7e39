//go:build browser

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// tab is a page in a browser that the test steers, through Chromium's DevTools
// protocol over a pipe: what is typed into the address bar, and what is pressed.
type tab struct {
	t       *testing.T
	to      *os.File
	from    *bufio.Reader
	session string
	last    int
	said    bytes.Buffer
}

func newTab(t *testing.T) *tab {
	t.Helper()
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	theirs, ours := pipe()
	heard, told := pipe()
	b := &tab{t: t, to: ours, from: bufio.NewReader(heard)}
	cmd := chromium(t, "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirs, told} // 3 and 4, which it reads and writes
	cmd.Stderr = &b.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	told.Close()
	t.Cleanup(func() {
		_ = cmd.Cancel()
		_ = cmd.Wait()
		ours.Close()
		heard.Close()
	})
	var made struct {
		TargetID  string `json:"targetId"`
		SessionID string `json:"sessionId"`
	}
	b.call("Target.createTarget", object{"url": "about:blank"}, &made)
	b.call("Target.attachToTarget", object{"targetId": made.TargetID, "flatten": true}, &made)
	b.session = made.SessionID
	return b
}

// call does one thing and reads its result.
func (b *tab) call(method string, params object, result any) {
	b.t.Helper()
	b.last++
	text, err := json.Marshal(object{"id": b.last, "method": method, "params": params, "sessionId": b.session})
	if err != nil {
		b.t.Fatal(err)
	}
	if b.session == "" {
		text = bytes.Replace(text, []byte(`,"sessionId":""`), nil, 1)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatalf("%s: %v\n%s", method, err, b.said.String())
	}
	for {
		line, err := b.from.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var got struct {
			ID     int
			Result json.RawMessage
			Error  json.RawMessage
		}
		if json.Unmarshal(bytes.TrimSuffix(line, []byte{0}), &got) != nil || got.ID != b.last {
			continue // an event
		}
		if got.Error != nil {
			b.t.Fatalf("%s: %s", method, got.Error)
		}
		if result != nil {
			if err := json.Unmarshal(got.Result, result); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
		return
	}
}

// open goes to an address as if it had been typed, and waits until the page shows
// the words.
func (b *tab) open(url, words string) {
	b.t.Helper()
	b.call("Page.navigate", object{"url": url}, nil)
	b.shows(words)
}

// do runs a line of script as if a finger had caused it.
func (b *tab) do(script string) string {
	b.t.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", object{"expression": script, "userGesture": true, "returnByValue": true}, &got)
	if got.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", script, got.ExceptionDetails)
	}
	return fmt.Sprint(got.Result.Value)
}

// shows waits until the page shows the words.
func (b *tab) shows(words string) {
	b.t.Helper()
	eventually(b.t, "the page shows "+words, func() error {
		if text := b.do(`document.readyState + " " + location.href + "\n" + (document.body ? document.body.innerText : "")`); !strings.HasPrefix(text, "complete") || !strings.Contains(text, words) {
			return fmt.Errorf("it shows %.1000s", text)
		}
		return nil
	})
}

// The operator opens the dashboard and presses its button; the configuration is read
// again. A page of somebody else's that presses the same one was refused.
func TestBrowserOperatorPressesTheButtonOfTheDashboard(t *testing.T) {
	w := victim(t, nil)
	b := newTab(t)
	b.open(w.admin+"/", "contoso")
	b.do(`[...document.querySelectorAll("button")].find(b => b.innerText.startsWith("Read the configuration")).click()`)
	w.eventually("the configuration was read again", func() error { return w.logged("was read again") })
}

// A soc lead opens the page of approvals, reads what an analyst wants to do, writes a
// comment and approves. What the analyst put into the call is text there, and nothing
// of it runs.
func TestBrowserSocLeadApproves(t *testing.T) {
	s := twoPeople("15m")
	usual := s.config
	s.config = func(c object) {
		usual(c)
		groups := c["clients"].([]object)
		delete(groups[1], "headers") // a browser sends no key
		c["clients"] = groups[:2]
	}
	w := newWorld(t, s)
	path := "/api/machines/" + w.sim.MachineID() + "/isolate"
	const body = `{"Comment":"<img src=x onerror=document.title='ran'><script>document.title='ran'</script>","IsolationType":"Full"}`
	isolate := func(header ...string) answer {
		return w.do(http.MethodPost, path, body, append([]string{"X-Api-Key", analystKey, "Content-Type", "application/json"}, header...)...)
	}
	for _, listener := range []string{w.admin, w.url} {
		w.sim.ResetRequests()
		id := isolate().header.Get("X-Approval-Id")
		if id == "" {
			t.Fatal("the call does not wait for approval")
		}
		b := newTab(t)
		b.open(listener+"/-/approvals/"+id, "IsolationType")
		if title := b.do("document.title"); title == "ran" {
			t.Errorf("what the analyst wrote ran on the page of %s", listener)
		}
		b.do(`document.querySelector("input[name=comment]").value = "alert 4711"; [...document.querySelectorAll("button")].find(b => b.innerText == "Approve").click()`)
		b.shows("alert 4711")
		// The second time Microsoft may say that the first isolation still runs.
		if a := isolate("X-Approval-Id", id); a.hop() == "" || len(w.arrivals(http.MethodPost, path)) != 1 {
			t.Errorf("approved on %s: %v", listener, a)
		}
	}
}
