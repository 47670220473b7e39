package approval

import (
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// View is a Request in the words of the pages.
type View struct {
	ID      string    `json:"id"`
	State   State     `json:"state"`
	Asked   time.Time `json:"asked"`
	Expires time.Time `json:"expires"`

	Client    string `json:"client"`
	Address   string `json:"address,omitempty"` // none on a Unix socket
	RequestID string `json:"request_id"`
	Tenant    string `json:"tenant"`
	Operation string `json:"operation"`
	Class     string `json:"class"`
	Method    string `json:"method"`
	Path      string `json:"path"`
	Query     string `json:"query,omitempty"`

	ContentType     string `json:"content_type,omitempty"`
	ContentEncoding string `json:"content_encoding,omitempty"`
	// Body is the beginning of a text; Cut says that there is more of it, or that it
	// is none.
	Body       string `json:"body,omitempty"`
	Cut        bool   `json:"body_cut,omitempty"`
	BodyBytes  int64  `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256,omitempty"`

	Decided   time.Time `json:"decided,omitzero"`
	DecidedBy string    `json:"decided_by,omitempty"`
	Comment   string    `json:"comment,omitempty"`
	// May says that whoever looks can decide, Withdraw that it can take back the
	// approval that was given.
	May      bool `json:"may_decide,omitempty"`
	Withdraw bool `json:"may_withdraw,omitempty"`
}

// maxListed bounds what a row of the list shows of a path and of a query, in bytes.
const maxListed = 256

// Row is View without the body, and with the beginning of a long path and query: a
// page holds many of them.
func (r Request) Row() View {
	r.Shown.Body = ""
	r.Call.Path, r.Call.Query = beginning(r.Call.Path), beginning(r.Call.Query)
	v := r.View()
	v.Cut = false
	return v
}

func beginning(s string) string {
	if len(s) <= maxListed {
		return s
	}
	return s[:maxListed] + "…"
}

// Hidden is what of r is shown to somebody who has nothing to do with it.
func (r Request) Hidden() View {
	return View{ID: r.ID, State: r.State, Asked: r.Asked.UTC(), Expires: r.Expires.UTC(), Decided: inUTC(r.Decided), Class: r.Shown.Class}
}

func inUTC(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

// View gives r in the words of the pages. What could trick the eye, such as
// characters that turn the direction of writing, is spelt out.
func (r Request) View() View {
	body, whole := spelt(r.Shown.Body, MaxShown)
	v := View{
		ID: r.ID, State: r.State, Asked: r.Asked.UTC(), Expires: r.Expires.UTC(),
		Client: r.Call.Client, RequestID: r.Shown.RequestID, Tenant: r.Call.Tenant, Operation: r.Call.Operation, Class: r.Shown.Class,
		Method: r.Call.Method, Path: plain(r.Call.Path), Query: plain(r.Call.Query),
		ContentType: plain(r.Call.ContentType), ContentEncoding: plain(r.Call.ContentEncoding),
		BodyBytes: r.Shown.BodyBytes, Body: body, Cut: !whole || int64(len(r.Shown.Body)) < r.Shown.BodyBytes,
		Decided: inUTC(r.Decided), DecidedBy: r.By.Client, Comment: plain(r.Comment),
	}
	if r.Shown.Address.IsValid() {
		v.Address = r.Shown.Address.String()
	}
	if v.BodyBytes > 0 {
		v.BodySHA256 = hex.EncodeToString(r.Call.BodySum[:])
	}
	return v
}

// Beginning is as much of a body as an approver sees; empty where it is no text.
func Beginning(body []byte) string {
	cut := body[:min(len(body), MaxShown)]
	for i := 1; i < utf8.UTFMax && len(cut) < len(body) && !utf8.Valid(cut) && i <= len(cut); i++ {
		if utf8.RuneStart(cut[len(cut)-i]) {
			cut = cut[:len(cut)-i] // half a letter
			break
		}
	}
	if !utf8.Valid(cut) || strings.IndexByte(string(cut), 0) >= 0 {
		return ""
	}
	return string(cut)
}

// plain spells out what is not seen as it is, in at most MaxShown bytes. What is cut
// ends so: …
func plain(s string) string {
	if text, whole := spelt(s, MaxShown); whole {
		return text
	}
	text, _ := spelt(s, MaxShown-len("…"))
	return text + "…"
}

// spelt spells out what is not seen as it is, in at most so many bytes: whole says
// that s ends within them.
func spelt(s string, most int) (text string, whole bool) {
	if len(s) <= most && strings.IndexFunc(s, hidden) < 0 {
		return s, true
	}
	var b strings.Builder
	for _, r := range s {
		letter := string(r)
		if hidden(r) {
			letter = fmt.Sprintf("<U+%04X>", r)
		}
		if b.Len()+len(letter) > most {
			return b.String(), false
		}
		b.WriteString(letter)
	}
	return b.String(), true
}

func hidden(r rune) bool {
	return r == utf8.RuneError || !unicode.IsGraphic(r) && r != '\n' && r != '\r' && r != '\t'
}

// MaxRows is how many rows a Page of many has.
const MaxRows = 50

// Fill puts what a query asks for into a page of many, as show shows each: those that
// are wanted, and in the state of state= if that is there, MaxRows of them, behind as
// many as skip= says.
func (p *Page) Fill(s *Store, query func(name string) string, wanted func(*Request) bool, show func(Request) View) {
	state := State(query("state"))
	skip, _ := strconv.Atoi(query("skip")) // what is no number skips none
	skip = max(skip, 0)
	found, more := s.Newest(time.Now(), func(r *Request) bool {
		return (state == "" || r.State == state) && wanted(r)
	}, skip, MaxRows)
	p.Approvals, p.To = make([]View, 0, len(found)), "approvals/"
	for _, r := range found {
		p.Approvals = append(p.Approvals, show(r))
	}
	if p.More = more; more > 0 {
		next := url.Values{"skip": {strconv.Itoa(skip + MaxRows)}}
		if state != "" {
			next.Set("state", string(state))
		}
		p.Next = "?" + next.Encode()
	}
}

// Page is the page of what waits: all of it, or one.
type Page struct {
	// Client is the client group that looks, By those that may approve.
	Client    string   `json:"client"`
	By        []string `json:"by"`
	Approvals []View   `json:"approvals"` // newest first
	// More is how many are older than those, Next a link to them.
	More int    `json:"more,omitempty"`
	Next string `json:"next,omitempty"`

	// Back leads from the page to the one of all; empty on that one. To leads to the
	// page of one, whose id follows.
	Back string `json:"-"`
	To   string `json:"-"`
}

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page.html").Parse(pageSource))

// Write answers with the page: HTML for a browser, JSON for others.
func (p Page) Write(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept")
	if !Browser(r) {
		h.Set("Content-Type", "application/json; charset=utf-8")
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(p)
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	// Not no-referrer: then a browser would send its forms with Origin: null, as if
	// another site's page had.
	h.Set("Referrer-Policy", "same-origin")
	return page.Execute(w, p)
}

// Browser reports whether a request wants HTML.
func Browser(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }
