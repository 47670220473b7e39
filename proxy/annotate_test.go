package proxy

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestANoteIsAppendedToTheComment(t *testing.T) {
	const note = " [defender-proxy: local, request 1]"
	for _, c := range []struct{ name, in, want string }{
		{"an action's comment", `{"Comment":"found malware","IsolationType":"Full"}`, `{"Comment":"found malware` + note + `","IsolationType":"Full"}`},
		{"the comment of an alert", `{"status":"New","comment":"x"}`, `{"status":"New","comment":"x` + note + `"}`},
		{"white space stays", "{ \"Comment\"\t:\r\n \"x\" , \"a\" : [ 1 ] }\n", "{ \"Comment\"\t:\r\n \"x" + note + "\" , \"a\" : [ 1 ] }\n"},
		{"a byte order mark stays", "\xef\xbb\xbf" + `{"Comment":"x"}`, "\xef\xbb\xbf" + `{"Comment":"x` + note + `"}`},
		{"escapes and their ends stay", `{"Comment":"a\"b\\","b":"\u00e9\ud83d"}`, `{"Comment":"a\"b\\` + note + `","b":"\u00e9\ud83d"}`},
		{"bytes that are no UTF-8 stay", "{\"Comment\":\"caf\xe9\"}", "{\"Comment\":\"caf\xe9" + note + "\"}"},
		{"large numbers stay", `{"n":12345678901234567890.10,"Comment":"x"}`, `{"n":12345678901234567890.10,"Comment":"x` + note + `"}`},
		{"in any letter case", `{"COMMENT":"x"}`, `{"COMMENT":"x` + note + `"}`},
		{"in any spelling", `{"\u0043omment":"x"}`, `{"\u0043omment":"x` + note + `"}`},
		{"each of several", `{"Comment":"x","comment":"y","Comment":"z"}`, `{"Comment":"x` + note + `","comment":"y` + note + `","Comment":"z` + note + `"}`},
		{"a note in the caller's words changes nothing", `{"Comment":"x [defender-proxy: soc, request 0]"}`, `{"Comment":"x [defender-proxy: soc, request 0]` + note + `"}`},

		{"no comment", `{"IsolationType":"Full"}`, ""},
		{"an empty comment, which Microsoft refuses", `{"Comment":""}`, ""},
		{"a blank comment", `{"Comment":" \t\u00a0"}`, ""},
		{"a comment that is no text", `{"Comment":["x"],"comment":null,"COMMENT":{"Comment":"x"},"cOMMENT":1}`, ""},
		{"a comment further in", `{"a":{"Comment":"x"},"b":[{"Comment":"x"}]}`, ""},
		{"comment as a value", `{"a":"Comment","b":"Comment"}`, ""},
		{"a name that only begins so", `{"Comments":"x","Comment ":"y"}`, ""},
		{"an array", `[{"Comment":"x"}]`, ""},
		{"a text", `"Comment"`, ""},
		{"nothing", ``, ""},
		{"what breaks off", `{"Comment":"x"`, ""},
		{"what has more behind it", `{"Comment":"x"} {}`, ""},
		{"a form", `Comment=x`, ""},
		{"quotation marks that JSON does not have", `{'Comment':'x'}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" {
				c.want = c.in
			}
			in := []byte(c.in)
			if got := annotate(in, "local, request 1"); string(got) != c.want {
				t.Errorf("\ngot  %q\nwant %q", got, c.want)
			}
			if string(in) != c.in {
				t.Errorf("the body that was given became %q", in)
			}
		})
	}
	if got := string(annotate([]byte(`{"Comment":"x"}`), "söc \"1\"\\\n😀")); got != `{"Comment":"x [defender-proxy: s\u00f6c \"1\"\\\u000a\ud83d\ude00]"}` {
		t.Errorf("the name of a group that needs escapes gives %s", got)
	}
}

// FuzzAnnotate: a body that is JSON stays the same JSON but for its comments,
// which end with the note, and without the note it is the body that was given.
func FuzzAnnotate(f *testing.F) {
	for _, s := range []string{
		`{"Comment":"x"}`, `{"a":{"Comment":"x"},"comment" : "y\\"}`, "\xef\xbb\xbf{\"\\u0043omment\":\"\xff\"}", `[]`, `{"Comment":"\ud83d","Comment":""}`, `{"x":"\",\"Comment\":\"y"}`,
	} {
		f.Add([]byte(s), "local, request 1")
	}
	f.Fuzz(func(t *testing.T, body []byte, who string) {
		if len(who) < 4 || bytes.Contains(body, []byte(escaped(who))) {
			return // the note could not be told from the body
		}
		got := annotate(bytes.Clone(body), who)
		note := escaped(" [defender-proxy: " + who + "]")
		if plain := bytes.ReplaceAll(got, []byte(note), nil); !bytes.Equal(plain, body) {
			t.Fatalf("%q becomes %q", body, got)
		}
		text := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
		if !json.Valid(text) {
			if !bytes.Equal(got, body) {
				t.Errorf("%q, which is no JSON, becomes %q", body, got)
			}
			return
		}
		if want := annotatedMembers(t, text, note); !reflect.DeepEqual(members(t, bytes.TrimPrefix(got, []byte("\xef\xbb\xbf"))), want) {
			t.Errorf("%q becomes %q, want members %q", body, got, want)
		}
	})
}

// member is a name of the outermost object and what stands there.
type member struct{ name, value string }

// members reads the outermost object with encoding/json, nil where it is none.
func members(t *testing.T, text []byte) (all []member) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		all = append(all, member{name.(string), string(value)})
	}
	return all
}

func annotatedMembers(t *testing.T, text []byte, note string) []member {
	all := members(t, text)
	for i, m := range all {
		var comment any
		if err := json.Unmarshal([]byte(m.value), &comment); err != nil {
			t.Fatal(err)
		}
		if s, ok := comment.(string); ok && strings.ToLower(m.name) == "comment" && strings.TrimSpace(s) != "" {
			all[i].value = strings.TrimSuffix(m.value, `"`) + note + `"`
		}
	}
	return all
}

// The portal shows the comment of an action beside the application's name, and so
// who really asked; the record has the same request id.
func TestAnActionTellsThePortalWhoAsked(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.Annotate = true }})
	annotated := func(method, target, body string, header ...string) (sent arrival, got *reply) {
		t.Helper()
		before := len(w.regions[0].requests())
		got = w.do(method, target, body, header...)
		all := w.regions[0].requests()
		if len(all) != before+1 {
			t.Fatalf("%s %s: %d requests arrived: %d %s", method, target, len(all)-before, got.status, got.body)
		}
		return all[before], got
	}
	const action = `{"Comment":"found malware","IsolationType":"Full"}`

	sent, got := annotated("POST", "/api/machines/m1/isolate", action, "Content-Type", "application/json")
	id := got.header.Get("X-Request-Id")
	if want := `{"Comment":"found malware [defender-proxy: local, request ` + id + `]","IsolationType":"Full"}`; sent.body != want || sent.length != int64(len(want)) || id == "" {
		t.Errorf("upstream got %d bytes: %s, want %s", sent.length, sent.body, want)
	}
	if rec := w.records.String(); strings.Count(rec, `"annotated":true`) != 2 {
		t.Errorf("the intent and the outcome should both say so: %s", rec)
	}

	for name, c := range map[string]struct {
		method, target, body string
		header               []string
	}{
		"an upload":                 {"POST", "/api/machines/m1/isolate", "--x\r\n\r\n" + action + "\r\n--x--", []string{"Content-Type", "multipart/form-data; boundary=x"}},
		"an action without comment": {"POST", "/api/machines/m1/isolate", `{"IsolationType":"Full"}`, nil},
		"a hunting query":           {"POST", "/api/advancedqueries/run", `{"Query":"DeviceInfo","Comment":"x"}`, nil},
		"a read with a body":        {"GET", "/api/alerts", `{"Comment":"x"}`, nil},
		"a long upload":             {"POST", "/api/machines/m1/isolate", strings.Repeat("x", maxKept+1), []string{"Content-Type", "multipart/form-data; boundary=x"}},
	} {
		if sent, _ := annotated(c.method, c.target, c.body, c.header...); sent.body != c.body {
			t.Errorf("%s becomes %.200s", name, sent.body)
		}
	}
	if rec := w.records.String(); strings.Count(rec, `"annotated":true`) != 2 {
		t.Errorf("records say that something else was changed: %s", rec)
	}

	w = newWorld(t, options{})
	if sent, _ := annotated("POST", "/api/machines/m1/isolate", action); sent.body != action {
		t.Errorf("where nobody asked for it, upstream got %s", sent.body)
	}
}

// What is sent twice is annotated once: after a 401 the same body goes out.
func TestARepeatedActionIsAnnotatedOnce(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.Annotate = true }})
	w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
		if len(w.regions[0].requests()) == 1 {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(rw, "{}")
	})
	got := w.do("POST", "/api/machines/m1/isolate", `{"Comment":"x"}`)
	sent := w.regions[0].requests()
	if got.status != http.StatusOK || len(sent) != 2 || sent[0].body != sent[1].body || strings.Count(sent[1].body, "defender-proxy") != 1 {
		t.Errorf("got %d, upstream got %+v", got.status, sent)
	}
}

// A caller cannot keep its name out of the portal by the way it sends its body.
func TestAWriteThatCannotBeAnnotatedIsRefused(t *testing.T) {
	w := newWorld(t, options{deps: func(d *Deps) { d.Annotate = true }})
	const action = `{"Comment":"found malware"}`
	long := `{"Comment":"` + strings.Repeat("x", maxKept) + `"}`
	const asking = "100-continue" // a body that is refused is not sent: httptest's server would reset its connection
	for _, c := range []struct {
		name, body string
		header     []string
		why        string // empty: it passes
		noted      bool
	}{
		{name: "identity is no encoding", body: action, header: []string{"Content-Encoding", "identity"}, noted: true},
		{name: "nor is an empty one", body: action, header: []string{"Content-Encoding", ""}, noted: true},
		{name: "nor a list of them", body: action, header: []string{"Content-Encoding", " Identity, "}, noted: true},
		{name: "a byte order mark", body: "\xef\xbb\xbf " + action, header: []string{"Content-Type", "application/json"}, noted: true},
		{name: "another type, and JSON all the same", body: action, header: []string{"Content-Type", "text/plain"}, noted: true},
		{name: "gzip", body: action, header: []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, why: "packed"},
		{name: "gzip behind identity", body: action, header: []string{"Content-Encoding", "identity, gzip"}, why: "packed"},
		{name: "gzip of another type", body: action, header: []string{"Content-Type", "text/plain", "Content-Encoding", "gzip"}, why: "packed"},
		{name: "a long one", body: long, header: []string{"Content-Type", "application/json", "Expect", asking}, why: "262144"},
		{name: "a long one of no type", body: long, header: []string{"Expect", asking}, why: "262144"},
		{name: "UTF-16", body: "{\x00}\x00", header: []string{"Content-Type", "application/json; charset=utf-16"}, why: "not JSON in UTF-8"},
		{name: "JSON that is none", body: `{'Comment':'x'}`, header: []string{"Content-Type", "application/json"}, why: "not JSON in UTF-8"},
		{name: "a type of Microsoft's", body: `{"Comment":"x",}`, header: []string{"Content-Type", "application/vnd.x+json"}, why: "not JSON in UTF-8"},
		{name: "what begins with a brace", body: " \n{x", header: []string{"Content-Type", "text/plain"}, why: "not JSON in UTF-8"},
		{name: "what has no type", body: "Comment=x", why: "not JSON in UTF-8"},
		{name: "no body"},
		{name: "an upload", body: "--x\r\n\r\n{\r\n--x--", header: []string{"Content-Type", "Multipart/form-data; boundary=x"}},
		{name: "another type", body: "Comment=x", header: []string{"Content-Type", "application/x-www-form-urlencoded"}},
	} {
		before := w.arrivals()
		got := w.do("POST", isolatePath, c.body, c.header...)
		all := w.regions[0].requests()
		switch {
		case c.why != "":
			if got.code() != "InvalidRequest" || !strings.Contains(got.message(), c.why) || len(all) != before {
				t.Errorf("%s: %d %s", c.name, got.status, got.body)
			}
		case got.status != 200 || len(all) != before+1 || strings.Contains(all[before].body, "[defender-proxy: local, request ") != c.noted:
			t.Errorf("%s: %d %s", c.name, got.status, got.body)
		}
	}
	w = newWorld(t, options{roles: append([]string{"Alert.ReadWrite.All"}, allRoles...), allow: []string{"*"}, deps: func(d *Deps) { d.Annotate = true }})
	for _, target := range []string{"/api/indicators", "/api/alerts/batchUpdate"} { // manage and triage
		if got := w.do("POST", target, action, "Content-Encoding", "gzip"); got.code() != "InvalidRequest" {
			t.Errorf("%s: %d %s", target, got.status, got.body)
		}
	}
	if got := w.do("POST", "/api/advancedqueries/run", action, "Content-Encoding", "gzip"); got.status != 200 {
		t.Errorf("a query: %d %s", got.status, got.body)
	}
	if got := newWorld(t, options{}).do("POST", isolatePath, action, "Content-Encoding", "gzip"); got.status != 200 {
		t.Errorf("where nobody asked for it: %d %s", got.status, got.body)
	}
}
