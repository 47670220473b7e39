package proxy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// zip packs each part by itself: a gzip file may have several members (RFC 1952,
// section 2.2).
func zip(t testing.TB, parts ...string) string {
	t.Helper()
	var out bytes.Buffer
	for _, part := range parts {
		z := gzip.NewWriter(&out)
		if _, err := io.WriteString(z, part); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// unzip is what a caller makes of an answer in gzip.
func unzip(packed string) (string, error) {
	z, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		return "", err
	}
	plain, err := io.ReadAll(z)
	return string(plain), err
}

const (
	upstreamPage = `{"@odata.context":"https:\/\/api.securitycenter.microsoft.com\/api\/$metadata#Alerts","value":[{"a":"\"@odata.nextLink\":\"https://x/api/a\""}],"@odata.nextLink":"https://us.api.security.microsoft.com/api/alerts?$skiptoken=a%2Bb\u0026c\u003dd"}`
	homePage     = `{"@odata.context":"HOME\/api\/$metadata#Alerts","value":[{"a":"\"@odata.nextLink\":\"https://x/api/a\""}],"@odata.nextLink":"HOME/api/alerts?$skiptoken=a%2Bb\u0026c\u003dd"}`
)

// longPage makes a page so long that it is not read whole.
func longPage(page string) string {
	return strings.Replace(page, `"value":[`, `"value":[`+strings.Repeat(`{"id":"da1","title":"again"},`, 20_000), 1)
}

// An upstream, or something between, may pack what nobody asked it to.
func TestWhatIsPackedWithoutBeingAskedForComesPlain(t *testing.T) {
	for name, page := range map[string][2]string{"short": {upstreamPage, homePage}, "long": {longPage(upstreamPage), longPage(homePage)}} {
		w := newWorld(t, options{})
		want := strings.ReplaceAll(page[1], "HOME", w.server.URL)
		for _, chunks := range []bool{false, true} {
			packed := zip(t, page[0])
			w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				rw.Header().Set("Content-Encoding", "gzip")
				rw.Header().Set("Vary", "Accept-Encoding")
				if !chunks {
					rw.Header().Set("Content-Length", strconv.Itoa(len(packed)))
				}
				_, _ = io.WriteString(rw, packed)
			})
			for _, accept := range []string{"", "identity", "br", "deflate, br", "gzip;q=0", "gzip; q=0.000, br", "identity;q=0"} {
				got := w.do("GET", "/api/alerts", "", "Accept-Encoding", accept)
				if got.status != 200 || got.body != want || got.err != nil || got.header["Content-Encoding"] != nil || got.header.Get("Vary") != "Accept-Encoding" {
					t.Errorf("%s, in chunks %v, Accept-Encoding %q: got %d %v, %d bytes of %d, %v", name, chunks, accept, got.status, got.header, len(got.body), len(want), got.err)
				}
				if n := got.header.Get("Content-Length"); n != "" && n != strconv.Itoa(len(want)) {
					t.Errorf("%s, in chunks %v, Accept-Encoding %q: Content-Length %s, want %d or none", name, chunks, accept, n, len(want))
				}
			}
			for _, accept := range []string{"gzip", "br;q=1, GZIP ;q=0.1", "*", "gzip;q=0.001"} {
				got := w.do("GET", "/api/alerts", "", "Accept-Encoding", accept)
				if plain, err := unzip(got.body); plain != want || err != nil || got.header.Get("Content-Encoding") != "gzip" {
					t.Errorf("%s, in chunks %v, Accept-Encoding %q: got %v, %d bytes of %d, %v", name, chunks, accept, got.header, len(plain), len(want), err)
				}
				if n := got.header.Get("Content-Length"); n != "" && n != strconv.Itoa(len(got.body)) {
					t.Errorf("%s: Content-Length %s of %d bytes", name, n, len(got.body))
				}
			}
		}
	}
}

// A HEAD has the headers that its GET would have, as far as they are known, and says
// nothing of a body that is not there.
func TestAHEADSaysWhatItsGETWould(t *testing.T) {
	w := newWorld(t, options{})
	for _, c := range []struct {
		name             string
		answer, accept   []string
		length, encoding string
	}{
		{"without a length", []string{"Content-Type", "application/json"}, nil, "", ""},
		{"without a length or a type", nil, nil, "", ""},
		{"of a document whose links are turned", []string{"Content-Type", "application/json", "Content-Length", "100"}, nil, "", ""},
		{"of a file", []string{"Content-Type", "application/zip", "Content-Length", "100"}, nil, "100", ""},
		{"of a document in gzip", []string{"Content-Type", "application/json", "Content-Encoding", "gzip", "Content-Length", "100"}, []string{"Accept-Encoding", "gzip"}, "", "gzip"},
		{"of one that is packed without being asked for", []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, nil, "", ""},
	} {
		w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(c.answer); i += 2 {
				rw.Header().Set(c.answer[i], c.answer[i+1])
			}
			_ = http.NewResponseController(rw).Flush()
		})
		got := w.do("HEAD", "/api/alerts", "", c.accept...)
		if got.status != 200 || got.body != "" || got.header.Get("Content-Length") != c.length || got.header.Get("Content-Encoding") != c.encoding {
			t.Errorf("a HEAD %s: got %d %v", c.name, got.status, got.header)
		}
	}
}

// The names of encodings are compared without regard to case, and gzip has two
// (RFC 9110, section 8.4.1).
func TestGzipIsKnownByAllItsNames(t *testing.T) {
	w := newWorld(t, options{})
	want := strings.ReplaceAll(homePage, "HOME", w.server.URL)
	for _, name := range []string{"gzip", "GZip", "x-gzip", "X-GZIP"} {
		w.regions[0].answer(jsonAnswer(zip(t, upstreamPage), "Content-Encoding", name))
		if got := w.do("GET", "/api/alerts", ""); got.body != want || got.header["Content-Encoding"] != nil {
			t.Errorf("%s, not asked for: got %v %q", name, got.header, got.body)
		}
		got := w.do("GET", "/api/alerts", "", "Accept-Encoding", "gzip")
		if plain, err := unzip(got.body); plain != want || err != nil || got.header.Get("Content-Encoding") != name {
			t.Errorf("%s: got %v %q, %v", name, got.header, plain, err)
		}
	}
	for _, name := range []string{"identity", "Identity"} {
		w.regions[0].answer(jsonAnswer(upstreamPage, "Content-Encoding", name))
		if got := w.do("GET", "/api/alerts", ""); got.body != want {
			t.Errorf("%s: got %v %q", name, got.header, got.body)
		}
	}
}

// Some servers say gzip of an answer that has no body at all.
func TestNothingInGzipIsNothing(t *testing.T) {
	w := newWorld(t, options{})
	for _, chunks := range []bool{false, true} {
		w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			rw.Header().Set("Content-Encoding", "gzip")
			if chunks {
				_ = http.NewResponseController(rw).Flush()
			}
		})
		for _, accept := range []string{"gzip", "identity"} {
			got := w.do("GET", "/api/alerts", "", "Accept-Encoding", accept)
			if got.status != 200 || got.body != "" || got.err != nil || got.header["Content-Encoding"] != nil {
				t.Errorf("in chunks %v, asked for %s: got %d %v %q, %v", chunks, accept, got.status, got.header, got.body, got.err)
			}
		}
	}
}

// The bytes of a part were counted in the whole as Microsoft has it.
func TestAPartOfADocumentPassesUntouched(t *testing.T) {
	w := newWorld(t, options{})
	part := upstreamPage[:150]
	w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Content-Range", "bytes 0-149/"+strconv.Itoa(len(upstreamPage)))
		rw.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(rw, part)
	})
	got := w.do("GET", "/api/alerts", "", "Range", "bytes=0-149")
	if got.status != 206 || got.body != part || got.header.Get("Content-Length") != "150" {
		t.Errorf("got %d %v %q", got.status, got.header, got.body)
	}
}

// Gzip is a stream of members, blocks and bytes, and none of their bounds are those of
// the document, of its links, or of the pieces in which it comes.
func TestLinksAreTurnedInGzipHoweverItIsSplit(t *testing.T) {
	w := newWorld(t, options{})
	want := strings.ReplaceAll(homePage, "HOME", w.server.URL)
	var everyByte []string
	for _, b := range []byte(upstreamPage) {
		everyByte = append(everyByte, string(b))
	}
	var stored, flushed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&stored, gzip.NoCompression)
	_, _ = io.WriteString(z, upstreamPage)
	_ = z.Close()
	z, _ = gzip.NewWriterLevel(&flushed, gzip.BestCompression)
	z.Name, z.Comment, z.Extra = "alerts.json", "with all that a header may have", []byte("x")
	for _, b := range everyByte {
		_, _ = io.WriteString(z, b)
		_ = z.Flush()
	}
	_ = z.Close()
	for name, packed := range map[string]string{
		"one member":                   zip(t, upstreamPage),
		"two members":                  zip(t, upstreamPage[:200], upstreamPage[200:]),
		"a member for each byte":       zip(t, everyByte...),
		"empty members":                zip(t, "", upstreamPage, "", ""),
		"nothing compressed":           stored.String(),
		"a block and a flush per byte": flushed.String(),
	} {
		for _, size := range []int{len(packed), 1 << 10, 1} {
			if size == 1 && len(packed) > 1<<10 {
				size = 7
			}
			w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				rw.Header().Set("Content-Encoding", "gzip")
				for rest := packed; rest != ""; {
					n := min(size, len(rest))
					_, _ = io.WriteString(rw, rest[:n])
					_ = http.NewResponseController(rw).Flush()
					rest = rest[n:]
				}
			})
			got := w.do("GET", "/api/alerts", "", "Accept-Encoding", "gzip")
			if plain, err := unzip(got.body); plain != want || err != nil || got.err != nil {
				t.Errorf("%s in pieces of %d: got %q, %v, %v", name, size, plain, err, got.err)
			}
			if got := w.do("GET", "/api/alerts", ""); got.body != want || got.err != nil {
				t.Errorf("%s in pieces of %d, plain: got %q, %v", name, size, got.body, got.err)
			}
		}
	}
}

// What cannot be unpacked to its end must not look complete, packed again or plain.
func TestGzipThatIsBrokenDoesNotLookComplete(t *testing.T) {
	w := newWorld(t, options{})
	for pageName, page := range map[string]string{"short": upstreamPage, "long": longPage(upstreamPage)} {
		whole := zip(t, page)
		wrongSum := []byte(whole)
		wrongSum[len(wrongSum)-8] ^= 1
		wrongSize := []byte(whole)
		wrongSize[len(wrongSize)-1] ^= 1
		for name, packed := range map[string]string{
			"without its last byte":      whole[:len(whole)-1],
			"without its end":            whole[:len(whole)-8],
			"cut in the middle":          whole[:len(whole)/2],
			"cut in its header":          whole[:5],
			"with a wrong sum":           string(wrongSum),
			"with a wrong size":          string(wrongSize),
			"with something behind it":   whole + "behind",
			"with half a member behind":  whole + whole[:20],
			"that is not what it says":   page,
			"that is in deflate instead": deflated(t, page),
		} {
			for _, chunks := range []bool{false, true} {
				w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Content-Type", "application/json")
					rw.Header().Set("Content-Encoding", "gzip")
					if !chunks {
						rw.Header().Set("Content-Length", strconv.Itoa(len(packed)))
					}
					_, _ = io.WriteString(rw, packed)
				})
				for _, accept := range []string{"gzip", "identity"} {
					got := w.do("GET", "/api/alerts", "", "Accept-Encoding", accept)
					if got.code() == "InvalidAnswer" && got.status == 502 || got.err != nil {
						continue
					}
					t.Errorf("%s, gzip %s, in chunks %v, asked for %s: looks complete: %d %v, %d bytes", pageName, name, chunks, accept, got.status, got.header, len(got.body))
				}
			}
		}
	}
}

func deflated(t testing.TB, text string) string {
	t.Helper()
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(z, text)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Nothing but gzip and identity is asked for. An upstream that sends something else
// all the same gives what the proxy cannot read: it passes with the name of its
// encoding, and its links lead to Microsoft, where no token of the proxy's follows.
func TestEncodingsThatNobodyAskedForPassUntouched(t *testing.T) {
	w := newWorld(t, options{})
	for _, c := range []struct{ coding, body string }{
		{"br", "\x8b\x02\x80{}\x03"}, {"deflate", deflated(t, upstreamPage)}, {"zstd", "\x28\xb5\x2f\xfd"}, {"gzip, gzip", zip(t, zip(t, upstreamPage))}, {"compress", "\x1f\x9d"},
	} {
		w.regions[0].answer(jsonAnswer(c.body, "Content-Encoding", c.coding))
		for _, accept := range []string{"", "br, gzip", c.coding} {
			got := w.do("GET", "/api/alerts", "", "Accept-Encoding", accept)
			if got.status != 200 || got.body != c.body || got.header.Get("Content-Encoding") != c.coding || got.header.Get("Content-Length") != strconv.Itoa(len(c.body)) {
				t.Errorf("%s, asked for %q: got %d %v %q", c.coding, accept, got.status, got.header, got.body)
			}
		}
	}
	for _, up := range w.regions[0].requests() {
		if asked := up.header.Get("Accept-Encoding"); asked != "gzip" && asked != "identity" {
			t.Errorf("upstream was asked for %q", asked)
		}
	}
}

// What is no JSON is nobody's to unpack: an export of a caller's is a file in gzip.
func TestGzipThatIsNoJSONStaysAsItIs(t *testing.T) {
	w := newWorld(t, options{})
	packed := zip(t, upstreamPage)
	for _, header := range [][]string{
		{"Content-Type", "text/csv", "Content-Encoding", "gzip"}, {"Content-Type", "application/gzip"}, {"Content-Type", "application/octet-stream", "Content-Encoding", "gzip"},
	} {
		w.regions[0].answer(jsonAnswer(packed, header...))
		for _, accept := range []string{"gzip", "identity"} {
			got := w.do("GET", "/api/alerts", "", "Accept-Encoding", accept)
			if got.body != packed || got.header.Get("Content-Length") != strconv.Itoa(len(packed)) || len(header) > 2 && got.header.Get("Content-Encoding") != "gzip" {
				t.Errorf("%v, asked for %s: got %v, %d bytes of %d", header, accept, got.header, len(got.body), len(packed))
			}
		}
	}
}

// A JSON answer may be empty, begin with a byte order mark, or be no JSON after all.
func TestOddJSONBodiesComeAsTheyAre(t *testing.T) {
	w := newWorld(t, options{})
	for name, body := range map[string]string{
		"nothing": "", "a space": " ", "null": "null", "a byte order mark alone": "\ufeff", "a number": "137", "half a document": `{"value":[{"id":"d`, "a page of HTML": "<html>", "zeros": "\x00\x00",
		"UTF-16": "\xff\xfe{\x00}\x00", "a link that is absent": `{"value":[]}`, "a link that is null": `{"value":[],"@odata.nextLink":null}`, "a link that is empty": `{"value":[],"@odata.nextLink":""}`,
	} {
		for _, chunks := range []bool{false, true} {
			w.regions[0].answer(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/json; charset=utf-8")
				if !chunks {
					rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
				}
				_, _ = io.WriteString(rw, body)
				_ = http.NewResponseController(rw).Flush()
			})
			got := w.do("GET", "/api/alerts", "")
			if got.status != 200 || got.body != body || got.err != nil || got.header.Get("Content-Type") != "application/json; charset=utf-8" {
				t.Errorf("%s, in chunks %v: got %d %v %q %v", name, chunks, got.status, got.header, got.body, got.err)
			}
			if n := got.header.Get("Content-Length"); !chunks && n != strconv.Itoa(len(body)) {
				t.Errorf("%s: Content-Length %q", name, n)
			}
		}
	}
	w.regions[0].answer(jsonAnswer("\ufeff" + upstreamPage))
	if got, want := w.do("GET", "/api/alerts", ""), "\ufeff"+strings.ReplaceAll(homePage, "HOME", w.server.URL); got.body != want {
		t.Errorf("behind a byte order mark: got %q, want %q", got.body, want)
	}
}
