package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// Secrets of every kind go through the proxy on every way that there is: answers,
// refusals, failures of Entra and of regions, the log at its most talkative. The
// secrets carry marks, and none of what the process gives away holds one: log,
// records, metrics, pages, refusals. Each mark is looked for where it must be,
// too, so that a mark that nobody could find fails the story.
func TestNoSecretLeavesTheProcess(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	s := setup{
		permissions: map[string][]string{"mde": {"Machine.Isolate", "Machine.CollectForensics"}},
		sim:         simulator.Config{ActionTime: 1},
		config: func(c object) {
			allow(c, "read", "hunt", "download", "machines.isolate", "machines.collectInvestigationPackage")
			inRegions(c, "eu", "uk")
			c["audit"] = object{"file": file}
			c["regions"] = object{"probe_interval": "1s", "first_byte_timeout": "1s", "connect_timeout": "1s"}
		},
	}
	w := simulated(t, s)
	w.process = start(t, "debug", w.file, secretVariable+"="+simulator.DefaultSecret)
	w.ready()

	// Every token that this Entra ID signs begins with the same header, so that
	// the header of one marks them all.
	token := strings.TrimSpace(string(w.run(t, "token", "--config", w.file, "--reveal")))
	header, _, ok := strings.Cut(token, ".")
	if !ok || !strings.HasPrefix(header, "eyJ") {
		t.Fatalf("token --reveal prints no token (%d bytes)", len(token))
	}
	claims := w.run(t, "token", "--config", w.file)
	if !bytes.Contains(claims, []byte("Alert.Read.All")) {
		t.Fatalf("token prints no claims: %s", claims)
	}

	marks := map[string]string{
		"client secret":          simulator.DefaultSecret,
		"token":                  header,
		"caller's authorization": "canary-authorization",
		"caller's cookie":        "canary-cookie",
		"query with a secret":    "canary-query-secret",
		"filter":                 "canary-filter",
		"body":                   "canary-body",
		"signature of a link":    "sig=",
	}
	var refused bytes.Buffer // what callers got of the proxy's own
	var links, answered int
	sent := []string{"Authorization", "Bearer canary-authorization", "Cookie", "s=canary-cookie"}
	query := "client_secret=canary-query-secret&access_token=canary-query-secret&password=canary-query-secret&$filter=" + "title%20eq%20%27canary-filter%27"
	note := func(a answer) {
		if a.ours() {
			refused.Write(a.body)
			fmt.Fprintln(&refused, a.header)
		} else {
			answered++
			links += bytes.Count(a.body, []byte(marks["signature of a link"]))
			fmt.Fprintln(&refused, a.header) // headers in any case
			if bytes.Contains(a.body, []byte(header)) || bytes.Contains(a.body, []byte(simulator.DefaultSecret)) {
				t.Errorf("an answer holds a token or the secret")
			}
		}
	}
	body := `{"Comment":"canary-body","Query":"DeviceInfo | where DeviceName == 'canary-body' | take 1"}`
	machine := w.sim.MachineID()
	traffic := func() {
		for _, path := range []string{
			"/api/alerts?" + query, "/api/machines?" + query, "/api/machines/SoftwareInventoryExport?" + query, "/api/secrets?" + query,
			"/api/alerts/%2e%2e?" + query, "/t/fabrikam/api/alerts?" + query, "/api/indicators?" + query, "/?" + query, "/-/whoami?" + query,
			"/-/operations?" + query, "/-/explain?path=/api/alerts&" + query,
		} {
			note(w.get(path, sent...))
		}
		note(w.get("/api/alerts?"+query, append(sent, "Host", "rebound.example")...))
		note(w.get("/api/alerts?"+query, append(sent, "Origin", "https://evil.example")...))
		for _, path := range []string{"/api/advancedqueries/run", "/api/machines/" + machine + "/isolate", "/api/machines/x/offboard", "/api/nothing"} {
			note(w.do(http.MethodPost, path+"?"+query, body, sent...))
		}
		note(w.do("DELETE", "/api/alerts?"+query, "", sent...))
	}

	traffic()
	// A link to a package: signed, and no business of the log's.
	a := w.do(http.MethodPost, "/api/machines/"+machine+"/collectInvestigationPackage", `{"Comment":"canary-body"}`)
	var action struct{ ID string }
	if err := json.Unmarshal(a.body, &action); err != nil || a.status != http.StatusCreated {
		t.Fatalf("collect: %v", a)
	}
	note(w.get("/api/machineactions/" + action.ID + "/getPackageUri"))
	for _, f := range []simulator.Fault{
		{Kind: simulator.FaultStatus, Status: 503}, {Kind: simulator.FaultUnauthorized, Count: 1}, {Kind: simulator.FaultThrottle}, {Kind: simulator.FaultTruncate},
		{Kind: simulator.FaultRedirect, Location: "https://evil.example/?sig=canary-signature&access_token=" + header},
		{Kind: simulator.FaultUpgrade}, {Kind: simulator.FaultHugeHeaders}, {Kind: simulator.FaultCookies},
		{Kind: simulator.FaultReset, Match: "/"}, {Kind: simulator.FaultRefuse}, {Kind: simulator.FaultTLS},
	} {
		for _, region := range []string{"eu", "uk"} {
			if err := w.sim.SetRegion(region, f); err != nil {
				t.Fatal(err)
			}
		}
		traffic()
	}
	for _, region := range []string{"eu", "uk"} {
		if err := w.sim.SetRegion(region, simulator.Fault{}); err != nil {
			t.Fatal(err)
		}
	}
	// The secret is not the right one any more, and the tokens are worthless.
	if err := w.sim.SetSecrets(simulator.DefaultTenantID, simulator.DefaultClientID, "another"); err != nil {
		t.Fatal(err)
	}
	w.sim.Revoke()
	traffic()

	if links == 0 || answered < 20 {
		t.Fatalf("%d signed links in %d answers: the story has lost its point", links, answered)
	}
	given := map[string][]byte{"the caller's refusals and headers": refused.Bytes()}
	for _, path := range []string{"/", "/-/healthy", "/-/ready", "/-/regions", "/-/tenants", "/metrics"} {
		given["the operator's "+path] = w.get(w.admin + path).body
	}
	given["the answer to a reload"] = w.do(http.MethodPost, w.admin+"/-/reload", "").body
	for _, path := range []string{"/", "/-/whoami", "/-/operations"} {
		given["the caller's "+path] = w.get(path).body
	}
	w.stop()
	if code := w.wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
	audit, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	given["the audit file"], given["stdout"], given["stderr"] = audit, w.stdout.bytes(), w.stderr.bytes()
	for where, text := range given {
		for what, mark := range marks {
			if at := bytes.Index(text, []byte(mark)); at >= 0 {
				t.Errorf("%s shows the mark of the %s at byte %d of %d", where, what, at, len(text))
			}
		}
		if jwt := regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}`).Find(text); jwt != nil {
			t.Errorf("%s shows what begins like a token", where)
		}
	}

	// The marks can be found where they must be: the search would see them.
	arrived := false
	for _, r := range w.sim.Requests() {
		arrived = arrived || strings.Contains(r.Target, marks["filter"])
		if strings.Contains(r.Target, "canary-query-secret") || strings.Contains(fmt.Sprint(r.Header), "canary-") {
			t.Errorf("a credential of the caller's arrived at Microsoft's side: %+v", r)
		}
	}
	if !arrived {
		t.Errorf("the filter's mark arrived nowhere")
	}
	for _, must := range []struct{ where, mark string }{
		{"the audit file", "machines.isolate"}, {"the audit file", "TokenUnavailable"}, {"the audit file", "RegionUnavailable"},
		{"the audit file", "/api/alerts"}, {"stderr", "got a token"}, {"stderr", "AADSTS7000215"},
		{"the operator's /metrics", "defender_proxy_requests_total"}, {"the caller's refusals and headers", "NotGranted"},
	} {
		if !bytes.Contains(given[must.where], []byte(must.mark)) {
			t.Errorf("%s does not hold %s: the story did not go that way", must.where, must.mark)
		}
	}
}

// run runs another command of the binary and gives its standard output.
func (w *world) run(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := command([]string{secretVariable + "=" + simulator.DefaultSecret}, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", args[0], err, errs.String())
	}
	return out
}
