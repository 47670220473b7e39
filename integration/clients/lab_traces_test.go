package clients

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"defender-proxy/internal/simulator"
)

// upstream lists what arrived at the regions, but for the probes, which carry no
// token.
func (l *lab) upstream() []simulator.Request {
	return slices.DeleteFunc(l.sim.Requests(), func(r simulator.Request) bool {
		return r.Listener != "api" || r.Method == http.MethodHead && r.Header.Get("Authorization") == ""
	})
}

// throttled counts the answers of Microsoft's side that were 429.
func (l *lab) throttled() (n int) {
	for _, r := range l.upstream() {
		if r.Status == http.StatusTooManyRequests {
			n++
		}
	}
	return n
}

// record is one line of the audit.
type record struct {
	Event, Method, Path, Query, Operation, Class, Decision, Code, Client, File string
	RequestID                                                                  string `json:"request_id"`
	SentAs                                                                     string `json:"sent_as"`
	UserAgent                                                                  string `json:"user_agent"`
	Status, Attempts                                                           int
}

// audit gives what the proxy has written to its audit, over all restarts.
func (l *lab) audit() []byte {
	var all []byte
	for _, p := range append(slices.Clone(l.earlier), l.process) {
		all = append(all, p.stdout.bytes()...)
	}
	return all
}

// log gives what the proxy has written to its log, over all restarts.
func (l *lab) log() []byte {
	var all []byte
	for _, p := range append(slices.Clone(l.earlier), l.process) {
		all = append(all, p.stderr.bytes()...)
	}
	return all
}

// records reads the audit's whole lines of requests that have ended.
func (l *lab) records() []record {
	l.t.Helper()
	var all []record
	data := l.audit()
	for line := range bytes.Lines(data[:bytes.LastIndexByte(data, '\n')+1]) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			l.t.Fatalf("an audit record is not JSON: %v: %s", err, line)
		}
		if r.Event == "request" {
			all = append(all, r)
		}
	}
	return all
}

// noSecretIn looks for what a tool posted in everything that the proxy wrote or
// shows: audit, log, and the operator's pages.
func (l *lab) noSecretIn(secrets ...string) {
	l.t.Helper()
	shown := map[string][]byte{"the audit": l.audit(), "the log": l.log()}
	for _, path := range []string{"/", "/metrics", "/-/usage", "/-/regions", "/-/tenants"} {
		_, _, body, err := l.ask(http.MethodGet, l.admin+path, "")
		if err != nil {
			l.t.Fatal(err)
		}
		shown[path] = body
	}
	if len(l.records()) == 0 {
		l.t.Error("the audit has no record: nothing was looked at")
	}
	for where, text := range shown {
		for _, s := range secrets {
			for _, form := range []string{s, url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s))} {
				if bytes.Contains(text, []byte(form)) {
					l.t.Errorf("%s holds the secret %q of a tool", where, form)
				}
			}
		}
	}
}

// onlyOwnLogins looks at what arrived at Microsoft's side: logins of the proxy's own
// application alone, and no token but those it got there.
func (l *lab) onlyOwnLogins() {
	l.t.Helper()
	for _, r := range l.sim.Requests() {
		switch {
		case r.Listener == "entra" && (r.App != simulator.DefaultClientID || r.Proof != "secret" || r.Grant != "client_credentials"):
			l.t.Errorf("what is not the proxy's own login arrived: %s %s %q by application %q with %q: %d", r.Method, r.Target, r.Grant, r.App, r.Proof, r.Status)
		case r.Listener == "blob" && r.Header.Get("Authorization") != "":
			l.t.Errorf("storage was sent an Authorization: %s", r.Target)
		}
	}
	for _, r := range l.sim.Refused() {
		l.t.Errorf("a token that the simulator did not make arrived at %s: %s", r.Path, r.Reason)
	}
}
