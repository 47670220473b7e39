package approval

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestBeginningIsTextAndBounded(t *testing.T) {
	for _, c := range []struct {
		name, body, want string
	}{
		{"nothing", "", ""},
		{"JSON", `{"a":"ü"}`, `{"a":"ü"}`},
		{"a long text", strings.Repeat("x", MaxShown+5), strings.Repeat("x", MaxShown)},
		{"a letter that is cut in two", strings.Repeat("x", MaxShown-1) + "üü", strings.Repeat("x", MaxShown-1)},
		{"a letter that is cut after three of four", strings.Repeat("x", MaxShown-3) + "😀😀", strings.Repeat("x", MaxShown-3)},
		{"no text", "\xff\xfe\x00", ""},
		{"no text at its beginning", "\xff" + strings.Repeat("x", MaxShown+5), ""},
		{"text that ends in half a letter", "abc\xc3", ""},
		{"a NUL", "a\x00b", ""},
	} {
		if got := Beginning([]byte(c.body)); got != c.want {
			t.Errorf("%s: got %d bytes %.40q, want %d bytes", c.name, len(got), got, len(c.want))
		}
	}
}

func FuzzWhatAnApproverSeesTricksNobody(f *testing.F) {
	f.Add([]byte(`{"Comment":"x"}`))
	f.Add([]byte("\u202egnp.exe \u200b \x1b[2J <script>"))
	f.Add([]byte(strings.Repeat("ä", MaxShown)))
	f.Fuzz(func(t *testing.T, body []byte) {
		text := Beginning(body)
		if len(text) > MaxShown || !utf8.ValidString(text) || text != "" && !strings.HasPrefix(string(body), text) {
			t.Fatalf("the beginning of %q is %q", body, text)
		}
		if shown := plain(text); strings.ContainsFunc(shown, hidden) || plain(shown) != shown {
			t.Fatalf("%q is shown as %q", body, shown)
		}
	})
}

func sample() Request {
	c := isolate("<script>alert(1)</script>")
	c.Query = "a=\u202eb"
	return Request{
		ID: "ABC", Call: c, State: Pending, Asked: start, Expires: start.Add(within),
		Shown: Shown{RequestID: "r1", Address: netip.MustParseAddr("10.0.0.7"), Class: "respond", Body: `{"Comment":"</pre><b>x"}`, BodyBytes: 24},
	}
}

func TestThePageIsJSONForProgramsAndHTMLForBrowsers(t *testing.T) {
	v := sample().View()
	v.May = true
	p := Page{Client: "leads", By: []string{"leads", "chiefs"}, Approvals: []View{v}, To: "approvals/"}
	w := httptest.NewRecorder()
	if err := p.Write(w, httptest.NewRequest("GET", "/", nil)); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Client    string
		By        []string
		Approvals []map[string]any
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Approvals) != 1 || got.Client != "leads" || len(got.By) != 2 {
		t.Fatalf("got %s, %v", w.Body, err)
	}
	for key, want := range map[string]any{
		"id": "ABC", "state": "pending", "asked": "2026-11-21T12:00:00Z", "expires": "2026-11-21T12:15:00Z", "client": "soc", "address": "10.0.0.7",
		"operation": "machines.isolate", "query": "a=<U+202E>b", "body": `{"Comment":"</pre><b>x"}`, "body_bytes": 24.0, "may_decide": true,
	} {
		if got.Approvals[0][key] != want {
			t.Errorf("%s is %v, want %v", key, got.Approvals[0][key], want)
		}
	}
	for _, key := range []string{"decided", "decided_by", "body_cut", "comment"} {
		if v, there := got.Approvals[0][key]; there {
			t.Errorf("%s is there: %v", key, v)
		}
	}

	browser := httptest.NewRequest("GET", "/", nil)
	browser.Header.Set("Accept", "text/html,*/*;q=0.8")
	w = httptest.NewRecorder()
	if err := p.Write(w, browser); err != nil {
		t.Fatal(err)
	}
	html := w.Body.String()
	if strings.Contains(html, "<form") || !strings.Contains(html, `href="approvals/ABC"`) {
		t.Errorf("a list has buttons, or no link, in\n%s", html)
	}
	p.To, p.Back = "", "../approvals"
	w = httptest.NewRecorder()
	if err := p.Write(w, browser); err != nil {
		t.Fatal(err)
	}
	html = w.Body.String()
	for _, want := range []string{`action="ABC/approve"`, `action="ABC/deny"`, `method="post"`, "machines.isolate", "&lt;/pre&gt;", "&lt;U&#43;202E&gt;b", "leads</b>, <b>chiefs"} {
		if !strings.Contains(html, want) {
			t.Errorf("%s is not in\n%s", want, html)
		}
	}
	for _, never := range []string{"<script", "</pre><b>", "beginning of the body"} {
		if strings.Contains(html, never) {
			t.Errorf("%s is in\n%s", never, html)
		}
	}
	h := w.Header()
	if !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || !strings.Contains(h.Get("Content-Security-Policy"), "form-action 'self'") || h.Get("Referrer-Policy") != "same-origin" {
		t.Errorf("the headers are %v", h)
	}
}

// A list holds no bodies, and little of each call: whoever asks for it must not cost
// more than a page.
func TestAListHasFiftyRowsAndNoBodies(t *testing.T) {
	s := New()
	for i := range MaxOpenPerClient {
		c := isolate(fmt.Sprint(i))
		c.Query = strings.Repeat("\u202e", 2000)
		if _, err := s.Ask(c, Shown{Body: strings.Repeat("\x01", MaxShown), BodyBytes: MaxShown}, within, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	query := url.Values{"state": {"pending"}}
	var seen []string
	for pages := 1; ; pages++ {
		p := Page{Client: "leads"}
		p.Fill(s, query.Get, func(*Request) bool { return true }, Request.Row)
		w := httptest.NewRecorder()
		if err := p.Write(w, httptest.NewRequest("GET", "/", nil)); err != nil || w.Body.Len() > 256<<10 || strings.Contains(w.Body.String(), "U+0001") {
			t.Errorf("a page has %d bytes: %.300s, %v", w.Body.Len(), w.Body, err)
		}
		for _, v := range p.Approvals {
			seen = append(seen, v.Path)
		}
		if p.Next == "" {
			if pages != 2 || p.More != 0 || len(seen) != MaxOpenPerClient || seen[0] != isolate("99").Path || seen[99] != isolate("0").Path {
				t.Errorf("%d pages with %d rows, %v", pages, len(seen), seen)
			}
			break
		}
		if p.More != MaxOpenPerClient-MaxRows || len(p.Approvals) != MaxRows || p.Next != "?skip=50&state=pending" {
			t.Errorf("%d rows, %d more behind %s", len(p.Approvals), p.More, p.Next)
		}
		query, _ = url.ParseQuery(p.Next[1:])
	}
	for _, odd := range []string{"-1", "x", "99999999999999999999999"} {
		var p Page
		p.Fill(s, url.Values{"skip": {odd}}.Get, func(*Request) bool { return true }, Request.Row)
		if p.More+len(p.Approvals) != MaxOpenPerClient && len(p.Approvals) != 0 {
			t.Errorf("skip=%s: %d rows and %d more", odd, len(p.Approvals), p.More)
		}
	}
}

func TestWhatIsSpeltOutIsBounded(t *testing.T) {
	r := sample()
	r.Shown.Body, r.Shown.BodyBytes = strings.Repeat("\x01", MaxShown), MaxShown
	if v := r.View(); len(v.Body) > MaxShown || len(v.Body) < MaxShown-8 || !v.Cut || !strings.HasSuffix(v.Body, "<U+0001>") {
		t.Errorf("%d bytes are shown, cut %v", len(v.Body), v.Cut)
	}
	r.Call.Query = strings.Repeat("\xff", MaxShown)
	if v := r.View(); len(v.Query) > MaxShown || !strings.HasSuffix(v.Query, "<U+FFFD>…") {
		t.Errorf("%d bytes of the query are shown", len(v.Query))
	}
	r.Shown.Body = strings.Repeat("x", MaxShown)
	if v := r.View(); v.Body != r.Shown.Body || v.Cut {
		t.Errorf("%d bytes are shown, cut %v", len(v.Body), v.Cut)
	}
}

func TestThePageSaysWhatIsNotShownAndWhoDecided(t *testing.T) {
	cut, binary, done := sample(), sample(), sample()
	cut.Shown.BodyBytes = 9000
	binary.Shown.Body = ""
	done.State, done.By, done.Decided, done.Comment = Denied, lead, start.Add(time.Minute), "<i>no</i>"
	browser := httptest.NewRequest("GET", "/", nil)
	browser.Header.Set("Accept", "text/html")
	for _, c := range []struct {
		name string
		r    Request
		want string
	}{
		{"a long body", cut, "the beginning of the body only"},
		{"a body that is no text", binary, "is no text and is not shown"},
		{"a denial", done, "Denied by <b>leads</b> at 2026-11-21 12:01:00 UTC: &lt;i&gt;no&lt;/i&gt;"},
	} {
		w := httptest.NewRecorder()
		if err := (Page{Approvals: []View{c.r.View()}}).Write(w, browser); err != nil {
			t.Fatal(err)
		}
		if html := w.Body.String(); !strings.Contains(html, c.want) || strings.Contains(html, "<form") {
			t.Errorf("%s: %q is not in\n%s", c.name, c.want, html)
		}
	}
	w := httptest.NewRecorder()
	if err := (Page{}).Write(w, browser); err != nil || !strings.Contains(w.Body.String(), "Nothing waits") {
		t.Errorf("an empty page: %v %s", err, w.Body)
	}
}
