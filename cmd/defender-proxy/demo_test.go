package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"defender-proxy/internal/config"
	"defender-proxy/internal/simulator"
)

// patience bounds each wait of these tests. What to paste has to be there by then.
const patience = 10 * time.Second

var client = &http.Client{Timeout: patience}

// started waits until the demo has said what to paste, and gives its base URL
// and the lines.
func started(t *testing.T, c *command) (base string, lines []string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		text := c.stdout.String()
		select {
		case code := <-c.code:
			t.Fatalf("it ended with %d\n%s", code, c)
		default:
		}
		if strings.Contains(text, "Ctrl-C ends it.") {
			for line := range strings.Lines(text) {
				if l, ok := strings.CutPrefix(line, "  curl "); ok {
					lines = append(lines, "curl "+strings.TrimSpace(l))
				} else if strings.HasPrefix(line, "  u=") {
					lines = append(lines, strings.TrimSpace(line))
				}
			}
			base = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(text)
			return base, lines
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing to paste within %v\n%s", patience, c)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// end ends a command and wants an exit code.
func (c *command) end(t *testing.T, want int) {
	t.Helper()
	c.cancel()
	select {
	case got := <-c.code:
		if got != want {
			t.Errorf("it exited with %d, not %d\n%s", got, want, c)
		}
	case <-time.After(patience):
		t.Fatalf("it did not end within %v\n%s", patience, c)
	}
}

func fetch(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("User-Agent", "curl/8.0")
	r.Header.Set("Accept", "*/*")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// Somebody without an account tries the proxy: what runs and five lines to paste
// are on the screen within seconds, each line does what it shows, and Ctrl-C
// leaves nothing behind.
func TestTheDemoShowsFiveLinesThatWorkAndEndsCleanly(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := begin(t, nil, "demo", "--address", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--machines", "60", "--alerts", "250", "--page-size", "40")
	base, lines := started(t, c)
	if len(lines) != 5 {
		t.Fatalf("there are %d lines to paste\n%s", len(lines), c)
	}
	for _, what := range []string{"tenant contoso; granted: read, hunt", "operator", "faults and delays", "nearest: "} {
		if !strings.Contains(c.stdout.String(), what) {
			t.Errorf("the demo does not say %q\n%s", what, c)
		}
	}

	quoted := regexp.MustCompile(`http://[^ '"]+`)
	if status, body := fetch(t, http.MethodGet, quoted.FindString(lines[0]), ""); status != http.StatusOK || !strings.Contains(body, `"@odata.nextLink":"`+base) {
		t.Errorf("%s: %d %.300s", lines[0], status, body)
	}
	if !strings.Contains(lines[1], "-X POST") {
		t.Errorf("the second line is %s", lines[1])
	}
	status, body := fetch(t, http.MethodPost, quoted.FindString(lines[1]), `{"Comment":"test"}`)
	if status != http.StatusForbidden || !strings.Contains(body, `"code":"NotGranted"`) || !strings.Contains(body, "An operator grants it with") {
		t.Errorf("%s: %d %s", lines[1], status, body)
	}
	status, body = fetch(t, http.MethodGet, quoted.FindString(lines[2]), "")
	var machines struct {
		Value []struct{ HealthStatus string }
	}
	if err := json.Unmarshal([]byte(body), &machines); err != nil || status != http.StatusOK || len(machines.Value) != 3 {
		t.Errorf("%s: %d %.300s", lines[2], status, body)
	}
	for _, m := range machines.Value {
		if m.HealthStatus != "Active" {
			t.Errorf("%s: a machine is %s", lines[2], m.HealthStatus)
		}
	}
	seen, pages := make(map[string]bool), 0
	link := regexp.MustCompile(`"@odata\.nextLink":"([^"]*)"`) // what the line's sed does
	for next := quoted.FindString(strings.ReplaceAll(lines[3], ";", " ")); next != ""; pages++ {
		if pages > 50 {
			t.Fatalf("the pages do not end")
		}
		status, body := fetch(t, http.MethodGet, next, "")
		var page struct{ Value []struct{ ID string } }
		if err := json.Unmarshal([]byte(body), &page); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %.300s", next, status, body)
		}
		for _, row := range page.Value {
			if seen[row.ID] {
				t.Fatalf("alert %s is there twice", row.ID)
			}
			seen[row.ID] = true
		}
		next = ""
		if m := link.FindStringSubmatch(body); m != nil {
			next = m[1]
		}
	}
	if len(seen) != 250 || pages != 7 {
		t.Errorf("following the links gave %d alerts on %d pages, want 250 on 7", len(seen), pages)
	}
	if status, body := fetch(t, http.MethodGet, quoted.FindString(lines[4]), ""); status != http.StatusOK || !strings.Contains(body, "You are") && !strings.Contains(body, "local") {
		t.Errorf("%s: %d %s", lines[4], status, body)
	}
	if story := c.stdout.String(); !strings.Contains(story, "refused: NotGranted") || !strings.Contains(story, "GET /api/alerts → 200 from ") {
		t.Errorf("the demo does not tell what was asked for\n%s", c)
	}

	client.CloseIdleConnections()
	c.end(t, exitOK)
	if !strings.HasSuffix(c.stdout.String(), "\nThe demo has ended.\n") {
		t.Errorf("it does not say good-bye\n%s", c)
	}
	if strings.Contains(c.stderr.String()+c.stdout.String(), "eyJ") {
		t.Errorf("a token is in its output\n%s", c)
	}
	goleak.VerifyNone(t, before)
}

// With --allow respond the machine is isolated, for the simulated application
// has the permission then.
func TestTheDemoCanBeAllowedToIsolate(t *testing.T) {
	c := begin(t, nil, "demo", "--address", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--allow", "read,respond")
	_, lines := started(t, c)
	url := regexp.MustCompile(`http://\S+/isolate`).FindString(lines[1])
	if status, body := fetch(t, http.MethodPost, url, `{"Comment":"test"}`); status != http.StatusCreated || !strings.Contains(body, `"type":"Isolate"`) {
		t.Errorf("%s: %d %s", lines[1], status, body)
	}
	client.CloseIdleConnections()
	c.end(t, exitOK)
}

// The usual ports are taken, as by a demo in another window: it says which, all
// of them at once, and how to choose others. Nothing is left running.
func TestTheDemoNamesPortsThatAreTakenAndHowToChooseOthers(t *testing.T) {
	before := goleak.IgnoreCurrent()
	var taken []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		taken = append(taken, l.Addr().String())
	}
	c := begin(t, nil, "demo", "--address", taken[0], "--admin", taken[1])
	select {
	case code := <-c.code:
		if code != exitWrong {
			t.Errorf("it exited with %d\n%s", code, c)
		}
	case <-time.After(patience):
		t.Fatalf("it did not end\n%s", c)
	}
	c.cancel()
	for _, want := range []string{
		fmt.Sprintf("listen on %s: another program has this address", taken[0]),
		fmt.Sprintf("listen on %s: another program has this address", taken[1]),
		"--address 127.0.0.1:PORT and --admin 127.0.0.1:PORT; port 0 takes a free one",
	} {
		if !strings.Contains(c.stderr.String(), want) {
			t.Errorf("it does not say %q\n%s", want, c)
		}
	}
	if strings.Contains(c.stdout.String(), "curl") {
		t.Errorf("it shows lines to paste all the same\n%s", c)
	}
	goleak.VerifyNone(t, before)
}

// The demo is told to end before it has begun.
func TestADemoThatIsEndedAtOnceLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := begin(t, nil, "demo", "--address", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	c.end(t, exitOK)
	goleak.VerifyNone(t, before)
}

// The configuration that the simulator writes is whole, in whichever folder it is.
func TestTheConfigurationThatTheSimulatorWritesIsValid(t *testing.T) {
	before := goleak.IgnoreCurrent()
	for name, args := range map[string][]string{
		"the authority beside it":      nil,
		"the authority in its own way": {"--ca-file", filepath.Join(t.TempDir(), "ca.pem")},
	} {
		file := filepath.Join(t.TempDir(), "sim.yaml")
		c := begin(t, nil, append([]string{"simulate", "--config-file", file}, args...)...)
		for deadline := time.Now().Add(patience); !strings.Contains(c.stdout.String(), "Now: "); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: it says nothing\n%s", name, c)
			}
		}
		if _, err := config.Load(file, func(string) (string, bool) { return simulator.DefaultSecret, true }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.end(t, exitOK)
	}
	goleak.VerifyNone(t, before)
}

// The simulator alone prints what a configuration needs, and ends with its
// context.
func TestTheSimulatorRunsAloneUntilItIsEnded(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := begin(t, nil, "simulate")
	deadline := time.Now().Add(patience)
	for !strings.Contains(c.stdout.String(), "blob_hosts") {
		if time.Now().After(deadline) {
			t.Fatalf("it prints no configuration\n%s", c)
		}
		time.Sleep(10 * time.Millisecond)
	}
	control := regexp.MustCompile(`control port (http://\S+),`).FindStringSubmatch(c.stdout.String())
	if control == nil {
		t.Fatalf("it names no control port\n%s", c)
	}
	if status, body := fetch(t, http.MethodGet, control[1]+"/state", ""); status != http.StatusOK || !strings.Contains(body, `"authority"`) {
		t.Errorf("its control port: %d %.300s", status, body)
	}
	client.CloseIdleConnections()
	c.end(t, exitOK)
	goleak.VerifyNone(t, before)
}
