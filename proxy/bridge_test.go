package proxy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"defender-proxy/policy"
	"defender-proxy/regions"
)

const (
	runMDE   = "/api/advancedqueries/run"
	runXDR   = "/api/advancedhunting/run"
	runGraph = "/v1.0/security/runHuntingQuery"
	aQuery   = `{"Query":"DeviceInfo | take 2"}`

	graphAnswer = `{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#microsoft.graph.security.huntingQueryResults","schema":[{"name":"A","type":"Int64"}],"results":[{"A@odata.type":"#Int64","A":1},{"A":2}]}`
	mdeAnswer   = `{"Schema":[{"Name":"A","Type":"Int64"}],"Results":[{"A":1},{"A":2}]}`
)

var huntRoles = []string{"AdvancedQuery.Read.All", "AdvancedHunting.Read.All", "ThreatHunting.Read.All", "Alert.Read.All"}

// hunts makes a world with a way of hunting. old and graph answer for the two
// APIs.
func hunts(t *testing.T, way Hunting, old, graph http.HandlerFunc, more ...func(*options)) *world {
	t.Helper()
	o := options{graph: true, roles: huntRoles, regions: []regions.Name{"us"}, deps: func(d *Deps) { d.Tenants[0].Hunting = way }}
	if way == HuntingAuto {
		o.additions = unending()
	}
	for _, f := range more {
		f(&o)
	}
	w := newWorld(t, o)
	for place, h := range map[*region]http.HandlerFunc{w.regions[0]: old, w.graph: graph} {
		if h == nil {
			h = gives(200, `{"Schema":[],"Results":[]}`)
		}
		if place != nil {
			place.answer(h)
		}
	}
	return w
}

// unending puts the end of the older hunting calls out of sight: what is tried here has
// to be so after the day as well.
func unending() (all []policy.Operation) {
	for id := range shapes {
		all = append(all, policy.Operation{ID: id, Sunset: "2999-01-01"})
	}
	return all
}

// gives answers with a status, headers and a body.
func gives(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// with adds a change to those of the dependencies.
func with(more func(*Deps)) func(*options) {
	return func(o *options) {
		before := o.deps
		o.deps = func(d *Deps) { before(d); more(d) }
	}
}

// asked gives what arrived, the older API's first and Graph's in their order, and
// fails where a request, or the token of another service, came to the wrong host.
func (w *world) asked() (all []arrival) {
	w.t.Helper()
	all = w.regions[0].requests()
	if w.graph != nil {
		all = append(all, w.graph.requests()...)
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return a.at.Compare(b.at) })
	for _, a := range all {
		host, audience := strings.TrimPrefix(w.regions[0].server.URL, "https://"), "https://mde.example"
		switch {
		case strings.HasPrefix(a.target, "/v1.0/"):
			host, audience = strings.TrimPrefix(w.graph.server.URL, "https://"), "https://graph.example"
		case strings.HasPrefix(asciiLower(a.target), runXDR):
			audience = "https://xdr.example"
		}
		var claims jwt.RegisteredClaims
		bearer := strings.TrimPrefix(a.header.Get("Authorization"), "Bearer ")
		if _, _, err := jwt.NewParser().ParseUnverified(bearer, &claims); err != nil || a.host != host || !slices.Equal(claims.Audience, jwt.ClaimStrings{audience}) || !slices.Contains(w.entra.tokens(), bearer) {
			w.t.Errorf("%s %s came to %s with a token for %v (%v), want %s and %s", a.method, a.target, a.host, claims.Audience, err, host, audience)
		}
	}
	return all
}

func (w *world) paths() (all []string) {
	for _, a := range w.asked() {
		all = append(all, a.target)
	}
	return all
}

func TestOldHuntingCallsAreAnsweredByGraphInTheOldShape(t *testing.T) {
	w := hunts(t, HuntingGraph, gives(404, ""), gives(200, graphAnswer, "request-id", "r1", "OData-Version", "4.0", "ETag", "x"))
	got := w.do("POST", runMDE+"?tracking=1", aQuery, "Content-Type", "application/json; charset=utf-8", "If-Match", "x", "Range", "bytes=0-1")
	if got.status != 200 || got.body != mdeAnswer || got.header.Get("Content-Type") != "application/json; charset=utf-8" || got.header.Get("Request-Id") != "r1" {
		t.Errorf("got %d %s %v", got.status, got.body, got.header)
	}
	for _, name := range []string{"Odata-Version", "Etag"} {
		if got.header[name] != nil {
			t.Errorf("%s of Graph's form is told: %v", name, got.header[name])
		}
	}
	if got.header.Get("Content-Length") != strconv.Itoa(len(mdeAnswer)) {
		t.Errorf("length %s", got.header.Get("Content-Length"))
	}
	a := w.asked()[0]
	if a.method != "POST" || a.target != runGraph || a.body != aQuery || a.header.Get("Content-Type") != "application/json; charset=utf-8" || a.header["If-Match"] != nil || a.header["Range"] != nil {
		t.Errorf("what arrived: %+v", a)
	}
	rec := w.recordsOf(got)[0]
	if rec["operation"] != "hunting.runMDE" || rec["sent_as"] != "graph.hunting.run" || rec["class"] != "hunt" || rec["path"] != runMDE || rec["rule"] != "hunt" || rec["decision"] != "allowed" {
		t.Errorf("record %v", rec)
	}

	xdr := w.do("POST", runXDR, aQuery)
	var stats struct {
		Stats struct {
			ExecutionTime float64
			Dataset       []struct {
				Rows int `json:"table_row_count"`
				Size int `json:"table_size"`
			} `json:"dataset_statistics"`
		}
		Schema, Results []any
	}
	if err := json.Unmarshal([]byte(xdr.body), &stats); err != nil || len(stats.Stats.Dataset) != 1 || stats.Stats.Dataset[0].Rows != 2 || stats.Stats.Dataset[0].Size != 14 || stats.Stats.ExecutionTime <= 0 || len(stats.Results) != 2 || len(stats.Schema) != 1 {
		t.Errorf("for XDR: %v, %s", err, xdr.body)
	}
	// By its own name Graph's answer stays as it is, but for its links.
	if got := w.do("POST", runGraph, aQuery); got.body != strings.Replace(graphAnswer, "https://graph.microsoft.com", w.server.URL, 1) || got.header["Sunset"] != nil || got.header["Odata-Version"] == nil {
		t.Errorf("of Graph by its name: %s %v", got.body, got.header)
	}
}

// What an old tool sends has to be JSON for Graph, and is called so only where it is.
func TestTheBodyGoesToGraphAsItCame(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct{ name, body, kind, want string }{
		{"JSON that is called so", aQuery, "application/json", "application/json"},
		{"JSON with a charset", aQuery, "application/json;charset=utf-8", "application/json;charset=utf-8"},
		{"JSON that curl calls a form", " \n" + aQuery, form, "application/json"},
		{"JSON that curl calls a form, with a charset", aQuery, form + "; charset=utf-8", "application/json"},
		{"JSON without a type", aQuery, "", "application/json"},
		{"JSON behind a byte order mark", "\xef\xbb\xbf" + aQuery, form, "application/json"},
		{"a form", "Query=DeviceInfo", form, form},
		{"a list", "[1]", form, form},
		{"half of JSON", `{"Query":`, form, form},
		{"JSON that says it is packed", aQuery, form, form},
		{"JSON that is called text", aQuery, "text/plain", "text/plain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := hunts(t, HuntingGraph, nil, gives(200, graphAnswer))
			header := []string{"Content-Type", c.kind}
			if c.kind == "" {
				header = nil
			}
			if strings.Contains(c.name, "packed") {
				header = append(header, "Content-Encoding", "gzip")
			}
			w.do("POST", runMDE, c.body, header...)
			if a := w.asked(); len(a) != 1 || a[0].body != c.body || a[0].header.Get("Content-Type") != c.want {
				t.Errorf("got %+v", a)
			}
		})
	}
	t.Run("to the older API with the type that it came with", func(t *testing.T) {
		w := hunts(t, HuntingLegacy, nil, nil)
		w.do("POST", runMDE, aQuery, "Content-Type", form)
		if a := w.asked(); len(a) != 1 || a[0].target != runMDE || a[0].header.Get("Content-Type") != form {
			t.Errorf("got %+v", a)
		}
	})
}

func TestPackedAnswersOfGraphAreUnpackedAndPackedAgain(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, graphAnswer)
	_ = z.Close()
	w := hunts(t, HuntingGraph, nil, gives(200, b.String(), "Content-Encoding", "gzip"))
	if got := w.do("POST", runMDE, aQuery); got.body != mdeAnswer || got.header["Content-Encoding"] != nil {
		t.Errorf("for a caller that takes it plain: %q %v", got.body, got.header)
	}
	got := w.do("POST", runMDE, aQuery, "Accept-Encoding", "gzip")
	plain, err := gzip.NewReader(strings.NewReader(got.body))
	if err != nil || got.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%v %v", err, got.header)
	}
	if text, err := io.ReadAll(plain); err != nil || string(text) != mdeAnswer {
		t.Errorf("for a caller that takes gzip: %s, %v", text, err)
	}
}

func TestThePermissionIsThatOfWhatIsSent(t *testing.T) {
	for _, c := range []struct {
		name    string
		way     Hunting
		roles   []string
		code    string
		message string
	}{
		{"graph, with Graph's alone", HuntingGraph, []string{"ThreatHunting.Read.All"}, "", ""},
		{"graph, with the old one alone", HuntingGraph, []string{"AdvancedQuery.Read.All"}, "MissingPermission", "is sent to Microsoft Graph as POST " + runGraph + " (hunting: graph of tenant contoso), which needs ThreatHunting.Read.All"},
		{"legacy, with Graph's alone", HuntingLegacy, []string{"ThreatHunting.Read.All"}, "MissingPermission", "POST " + runMDE + " needs AdvancedQuery.Read.All"},
		{"auto, with the old one alone", HuntingAuto, []string{"AdvancedQuery.Read.All"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := hunts(t, c.way, nil, gives(200, graphAnswer), func(o *options) { o.roles = c.roles })
			got := w.do("POST", runMDE, aQuery)
			if got.code() != c.code || !strings.Contains(got.message(), c.message) || (c.code == "") != (len(w.paths()) == 1) {
				t.Errorf("got %d %s, asked %q", got.status, got.body, w.paths())
			}
		})
	}
	t.Run("in report mode it passes and is told", func(t *testing.T) {
		w := hunts(t, HuntingGraph, nil, gives(200, graphAnswer), func(o *options) { o.roles = []string{"AdvancedQuery.Read.All"} }, with(func(d *Deps) { d.Policy.ReportOnly = true }))
		got := w.do("POST", runMDE, aQuery)
		if rec := w.recordsOf(got)[0]; got.status != 200 || !strings.Contains(fmt.Sprint(rec["reason"]), "lacks ThreatHunting.Read.All") {
			t.Errorf("got %d, record %v", got.status, rec)
		}
	})
}

// The operator's half asks for the operation that was asked for.
func TestTheGrantIsThatOfWhatIsAskedFor(t *testing.T) {
	ask := func(t *testing.T, allow, deny []policy.Entry, body string) *reply {
		w := hunts(t, HuntingGraph, nil, gives(200, graphAnswer), with(granting(t, allow, deny)))
		return w.do("POST", runMDE, body, "Content-Type", "application/json")
	}
	for _, c := range []struct {
		name        string
		allow, deny []policy.Entry
		body        string
		code        string
	}{
		{"the old operation alone is granted", policy.Entries("hunting.runMDE"), nil, aQuery, ""},
		{"Graph's alone is granted", policy.Entries("graph.hunting.run"), nil, aQuery, "NotGranted"},
		{"the old one is denied", policy.Entries("hunt"), policy.Entries("hunting.*"), aQuery, "NotGranted"},
		{"Graph's is denied, which says nothing of the old one", policy.Entries("hunt"), policy.Entries("graph.hunting.run"), aQuery, ""},
		{"a condition that holds", []policy.Entry{when(t, `request.body.Query.startsWith("DeviceInfo") && request.operation == "hunting.runMDE"`, "hunt")}, nil, aQuery, ""},
		{"a condition that does not", []policy.Entry{when(t, `request.body.Query.startsWith("DeviceInfo")`, "hunt")}, nil, `{"Query":"EmailEvents"}`, "NotGranted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ask(t, c.allow, c.deny, c.body); got.code() != c.code {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
}

func TestARefusedTokenIsRenewedOnTheBridge(t *testing.T) {
	n := 0
	w := hunts(t, HuntingGraph, nil, func(rw http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			gives(401, `{"error":{"code":"InvalidAuthenticationToken","message":"m"}}`)(rw, r)
			return
		}
		gives(200, graphAnswer)(rw, r)
	})
	got := w.do("POST", runMDE, aQuery)
	a := w.asked()
	if got.body != mdeAnswer || len(a) != 2 || a[0].header.Get("Authorization") == a[1].header.Get("Authorization") {
		t.Errorf("got %d %s after %d requests", got.status, got.body, len(a))
	}
}

func TestAShortThrottleOfGraphsIsWaitedOut(t *testing.T) {
	n := 0
	w := hunts(t, HuntingGraph, nil, func(rw http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			gives(429, ``, "Retry-After", "0")(rw, r)
			return
		}
		gives(200, graphAnswer)(rw, r)
	}, func(o *options) { o.limits = func(l *Limits) { l.MaxWait = 5 * time.Second } })
	if got := w.do("POST", runMDE, aQuery); got.body != mdeAnswer {
		t.Errorf("got %d %s", got.status, got.body)
	}
}
