package links

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// turned reads a document whose links all become NEW(n), n being their number.
func turned(t testing.TB, src io.Reader) (out string, offered []string) {
	t.Helper()
	b, err := io.ReadAll(NewDownloads(src, func(url string) (string, bool) {
		offered = append(offered, url)
		return fmt.Sprintf("NEW(%d)", len(offered)), true
	}))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), offered
}

func TestDownloadsAreFoundWhereAStringIsOne(t *testing.T) {
	long := "https://x/" + strings.Repeat("a", maxLink-len("https://x/"))
	deep := strings.Repeat("[", maxDepth)
	for _, c := range []struct {
		name, in, out string
		offered       []string
	}{
		{"the value of a package's link", `{"@odata.context":"x","value":"https://b/p.zip?sig=a%2B"}`, `{"@odata.context":"x","value":"NEW(1)"}`, []string{"https://b/p.zip?sig=a%2B"}},
		{"an array of links", `{"exportFiles" : [ "https://b/1" ,` + "\n\t" + `"https://b/2"],"generatedTime":"2026"}`, `{"exportFiles" : [ "NEW(1)" ,` + "\n\t" + `"NEW(2)"],"generatedTime":"2026"}`, []string{"https://b/1", "https://b/2"}},
		{"escapes", `{"value":"https:\/\/b\/p?a=1\u0026b=2"}`, `{"value":"NEW(1)"}`, []string{"https://b/p?a=1&b=2"}},
		{"a first letter in an escape", `["\u0068ttp\u003A//b"]`, `["NEW(1)"]`, []string{"http://b"}},
		{"capitals", `["HTTPS://B"]`, `["NEW(1)"]`, []string{"HTTPS://B"}},
		{"a document that is one", `"https://b"`, `"NEW(1)"`, []string{"https://b"}},
		{"quotation marks of its own", `{"value":"\"https://b:443/safedownload/p.zip?token=a%2f\""}`, `{"value":"\"NEW(1)\""}`, []string{"https://b:443/safedownload/p.zip?token=a%2f"}},
		{"the same in escapes", `{"value":"\u0022https://b\u0022"}`, `{"value":"\u0022NEW(1)\u0022"}`, []string{"https://b"}},
		{"a quotation mark on one side", `["\"https://b","https://b\"","\"https://b\"\""]`, "", nil},
		{"the name of a member", `{"https://b":1,"a":{"https://c":"https://d"}, "https://e" : "f"}`, `{"https://b":1,"a":{"https://c":"NEW(1)"}, "https://e" : "f"}`, []string{"https://d"}},
		{"a part of a longer string", `{"a":"see https://b","b":"https://b and more","c":"[https://b]","d":"\"value\":\"https://b\""}`, "", nil},
		{"null, nothing, numbers", `{"value":null,"a":"","b":1,"c":[],"d":{},"e":true,"f":[null]}`, "", nil},
		{"other schemes", `["ftp://b","//b","https:/b","http:b","httpss://b","/api/alerts","h","https","https:/","http"]`, "", nil},
		{"what no URL holds", `["https://b/é","https://b/\u00e9","https://b/\n","https://b/ ","https://b/\\","https://b/<\"","https://b/\u0000"]`, "", nil},
		{"behind a nested document", `{"a":{"b":[{"https://c":1}]},"v":"https://d"}`, `{"a":{"b":[{"https://c":1}]},"v":"NEW(1)"}`, []string{"https://d"}},
		{"behind strings full of escapes", `["\\","\\\"https://b\\","https://c"]`, `["\\","\\\"https://b\\","NEW(1)"]`, []string{"https://c"}},
		{"behind a mark of the byte order", "\ufeff" + `["https://b"]`, "\ufeff" + `["NEW(1)"]`, []string{"https://b"}},
		{"lines of JSON", `{"https://a":"https://b"}` + "\n" + `{"https://c":"https://d"}`, `{"https://a":"NEW(1)"}` + "\n" + `{"https://c":"NEW(2)"}`, []string{"https://b", "https://d"}},
		{"the longest", `["` + long + `"]`, `["NEW(1)"]`, []string{long}},
		{"one that is longer", `["` + long + `a","https://b"]`, `["` + long + `a","NEW(1)"]`, []string{"https://b"}},
		{"one that is much longer", `["` + strings.Repeat(long, 5) + `","https://b"]`, `["` + strings.Repeat(long, 5) + `","NEW(1)"]`, []string{"https://b"}},
		{"as deep as can be", deep + `"https://b"`, deep + `"NEW(1)"`, []string{"https://b"}},
		{"too deep, and behind it", deep + `["https://b"` + strings.Repeat("]", maxDepth) + `,"https://b"`, "", nil},
		{"one that does not end", `[1,"https://b`, `[1,`, nil},
		{"one that does not end, in quotation marks of its own", `[1,"\"https://b\"`, `[1,`, nil},
		{"one that ends in an escape", `["https://b\`, `[`, nil},
		{"one that ends in its scheme", `["htt`, "", nil},
		{"a text that does not end", `["https`, "", nil},
		{"no JSON", `]]}},::"https://b":"https://c""`, `]]}},::"NEW(1)":"NEW(2)""`, []string{"https://b", "https://c"}},
		{"nothing at all", ``, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.out
			if want == "" {
				want = c.in
			}
			for name, src := range map[string]io.Reader{
				"whole": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in)),
				"its end with its last bytes": iotest.DataErrReader(strings.NewReader(c.in)), "in halves": iotest.HalfReader(strings.NewReader(c.in)),
			} {
				got, offered := turned(t, src)
				if got != want || !slices.Equal(offered, c.offered) {
					t.Errorf("%s: got %.300q\nwant %.300q\noffered %.300q\nwant    %.300q", name, got, want, offered, c.offered)
				}
			}
		})
	}
}

func TestWhatIsNotTurnedStays(t *testing.T) {
	const doc = `{"value":"https:\/\/b\/p?a=1\u0026b=2","x":["https://c","https://d"]}`
	got, err := io.ReadAll(NewDownloads(strings.NewReader(doc), func(url string) (string, bool) { return "NEW", url == "https://c" }))
	if want := strings.Replace(doc, "https://c", "NEW", 1); err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestWhatTurnGivesIsWrittenAsJSON(t *testing.T) {
	for _, link := range []string{"http://127.0.0.1:8080/t/a/blob/AB-_", `"` + "\n" + `\ é<>&`, ""} {
		got, err := io.ReadAll(NewDownloads(strings.NewReader(`{"value":"https://b"}`), func(string) (string, bool) { return link, true }))
		var doc struct{ Value string }
		if err != nil || json.Unmarshal(got, &doc) != nil || doc.Value != link {
			t.Errorf("%q comes as %s, %v", link, got, err)
		}
	}
}

func TestErrorsOfTheSourceComeBehindItsBytes(t *testing.T) {
	broken := errors.New("broken")
	for doc, want := range map[string]string{
		`{"value":"https://b`: `{"value":`, `{"value":"https://b"`: `{"value":"NEW"`, `{"value":"htt`: `{"value":`, `{"value":"some text`: `{"value":"some text`, `{"val`: `{"val`,
	} {
		for name, src := range map[string]io.Reader{"whole": strings.NewReader(doc), "byte by byte": iotest.OneByteReader(strings.NewReader(doc))} {
			got, err := io.ReadAll(NewDownloads(io.MultiReader(src, iotest.ErrReader(broken)), func(string) (string, bool) { return "NEW", true }))
			if string(got) != want || err != broken {
				t.Errorf("%s, %s: got %s, %v, want %s and the source's error", doc, name, got, err, want)
			}
		}
	}
	if _, err := io.ReadAll(NewDownloads(iotest.ErrReader(nil), nil)); err != io.ErrNoProgress {
		t.Errorf("a source that gives nothing: %v", err)
	}
}

// Both readers work on the same document, as package proxy chains them.
func TestLinksAndDownloadsInOneDocument(t *testing.T) {
	const doc = `{"@odata.context":"https://api.security.microsoft.com/api/$metadata#E","exportFiles":["https://b/1?sig=a","https://b/2"],"@odata.nextLink":"https://api.security.microsoft.com/api/machines/SoftwareInventoryExport?$skiptoken=a%2Bb"}`
	src := NewReader(iotest.OneByteReader(strings.NewReader(doc)), mustTarget(t, home))
	var offered []string
	got, err := io.ReadAll(NewDownloads(src, func(url string) (string, bool) {
		offered = append(offered, url)
		return home + "/blob/S", strings.HasPrefix(url, "https://b/")
	}))
	want := strings.NewReplacer("https://api.security.microsoft.com", home, "https://b/1?sig=a", home+"/blob/S", "https://b/2", home+"/blob/S").Replace(doc)
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s\noffered %q", got, err, want, offered)
	}
}

// downloadsReference turns the links of valid JSON slowly and by other means.
func downloadsReference(t testing.TB, doc []byte) (out string, offered []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var b strings.Builder
	var done, last int64
	var stack []bool
	isKey := false
	for {
		tok, err := d.Token()
		if err == io.EOF {
			b.Write(doc[done:])
			return b.String(), offered
		}
		if err != nil {
			t.Fatalf("reference: %v", err)
		}
		end := d.InputOffset()
		object := len(stack) > 0 && stack[len(stack)-1]
		if s, ok := tok.(string); ok {
			if object && isKey {
				isKey, last = false, end
				continue
			}
			start := last + int64(bytes.IndexByte(doc[last:end], '"')) + 1
			raw := string(doc[start : end-1])
			before, after := "", ""
			if n := quoted([]byte(raw)); n > 0 && len(s) > 1 && strings.HasSuffix(s, `"`) {
				before = raw[:n]
				after = `\"`
				if !strings.HasSuffix(raw, after) {
					after = `\u0022`
				}
				s = s[1 : len(s)-1]
			}
			low := strings.ToLower(s)
			if (strings.HasPrefix(low, "https://") || strings.HasPrefix(low, "http://")) && !strings.ContainsFunc(s, notURL) && len(raw) <= maxLink && len(stack) <= maxDepth {
				offered = append(offered, s)
				fmt.Fprintf(&b, "%s%sNEW(%d)%s", doc[done:start], before, len(offered), after)
				done = end - 1
			}
		}
		last = end
		switch tok {
		case json.Delim('{'), json.Delim('['):
			stack = append(stack, tok == json.Delim('{'))
			isKey = tok == json.Delim('{')
			if len(stack) > maxDepth {
				b.Write(doc[done:])
				return b.String(), offered
			}
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		isKey = len(stack) > 0 && stack[len(stack)-1]
	}
}

// checkDownloads holds the reader against the reference, whole and in odd pieces.
func checkDownloads(t testing.TB, doc []byte, seed uint64) {
	t.Helper()
	whole, offered := turned(t, bytes.NewReader(doc))
	rnd := rand.New(rand.NewPCG(seed, 2))
	for _, most := range []int{1, 7, 100} {
		n := 0
		r := NewDownloads(&pieces{src: bytes.NewReader(doc), rnd: rnd, max: most}, func(string) (string, bool) {
			n++
			return fmt.Sprintf("NEW(%d)", n), true
		})
		if got := readOddly(t, r, rnd, most); string(got) != whole {
			t.Fatalf("in pieces of up to %d bytes: got %q\nin one piece %q", most, got, whole)
		}
	}
	if !json.Valid(doc) {
		return
	}
	want, links := downloadsReference(t, doc)
	if whole != want || !slices.Equal(offered, links) {
		t.Fatalf("document  %q\ngot       %q\nreference %q\noffered   %q\nreference %q", doc, whole, want, offered, links)
	}
	if !json.Valid([]byte(whole)) {
		t.Fatalf("document %q: the output is no longer JSON: %q", doc, whole)
	}
}

// FuzzDownloads holds the reader against encoding/json, and against itself on other
// splits of the document.
func FuzzDownloads(f *testing.F) {
	for i, s := range append([]string{
		`{"value":"https://b/p?sig=a%2B","exportFiles":["https:\/\/b\/\u0026",null,""]}`,
		`{"value":"\"https://b\"","https://k":{"https://l":["https://m"]}}`,
		`["\\\"","https://b\\","http://\u0022","\u0022http://b\""]`,
	}, seeds...) {
		f.Add([]byte(s), uint64(i))
	}
	f.Fuzz(func(t *testing.T, doc []byte, seed uint64) { checkDownloads(t, doc, seed) })
}

// TestDownloadsAgreeWithTheReference builds documents from the words that matter,
// which a fuzzer of bytes is slow to find.
func TestDownloadsAgreeWithTheReference(t *testing.T) {
	words := []string{
		`https://`, `HTTP://`, `https:\/\/`, `\u0068ttps://`, `b`, `/p?sig=a%2B`, `\"`, `\u0022`, `\\`, `\u0026`, `é`, ` `, `\n`, `ftp://`, `\ud83d`, `,`, `:`, `{`, `]`, ``, ``, ``,
	}
	spaces := []string{``, ` `, "\r\n\t"}
	rnd := rand.New(rand.NewPCG(3, 4))
	pick := func(words []string) string { return words[rnd.IntN(len(words))] }
	text := func() string {
		s := `"`
		if rnd.IntN(2) == 0 {
			s += pick([]string{`\"`, `\u0022`, ``, ``}) + pick(words[:4]) + `b`
		}
		for range rnd.IntN(4) {
			s += pick(words)
		}
		return s + `"`
	}
	var document func(depth int) string
	document = func(depth int) string {
		switch n := rnd.IntN(5); {
		case n <= 1:
			return text()
		case n == 2 || depth == 0:
			return pick([]string{`null`, `-1.5e3`, `true`, `""`, `{}`, `[]`})
		case n == 3:
			return `[` + document(depth-1) + pick(spaces) + `,` + document(depth-1) + `]`
		}
		var b strings.Builder
		for i := range 3 {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(pick(spaces) + text() + pick(spaces) + `:` + pick(spaces) + document(depth-1))
		}
		return `{` + b.String() + `}`
	}
	changed := 0
	for i := range 5000 {
		doc := document(4)
		if !json.Valid([]byte(doc)) {
			t.Fatalf("the generator made no JSON: %s", doc)
		}
		checkDownloads(t, []byte(doc), uint64(i))
		if got, _ := turned(t, strings.NewReader(doc)); got != doc {
			changed++
		}
	}
	if changed < 500 {
		t.Errorf("only %d of 5000 documents held a link: the generator is too weak", changed)
	}
}

func TestAnExportOfThousandsOfLinks(t *testing.T) {
	const n = 5000
	var b strings.Builder
	b.WriteString(`{"exportFiles":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"https://prod.blob.core.windows.net/e/part-%05d.json.gz?%s&sig=a"`, i, strings.Repeat("x", 600))
	}
	b.WriteString(`],"generatedTime":"2026-11-21T00:00:00Z"}`)
	got, offered := turned(t, strings.NewReader(b.String()))
	var doc struct{ ExportFiles []string }
	if err := json.Unmarshal([]byte(got), &doc); err != nil || len(doc.ExportFiles) != n || len(offered) != n || doc.ExportFiles[n-1] != fmt.Sprintf("NEW(%d)", n) {
		t.Errorf("%d links, %d offered, %v", len(doc.ExportFiles), len(offered), err)
	}
}

// BenchmarkDownloads reads a document with an alert's density of strings, and one that
// is full of links.
func BenchmarkDownloads(b *testing.B) {
	var export strings.Builder
	export.WriteString(`{"exportFiles":[""`)
	for i := range 2000 {
		fmt.Fprintf(&export, `,"https://prod.blob.core.windows.net/e/part-%05d.json.gz?%s&sig=a"`, i, strings.Repeat("x", 400))
	}
	export.WriteString(`]}`)
	for _, c := range []struct {
		name string
		doc  []byte
	}{{"Rows", alertPage(1 << 20)}, {"Links", []byte(export.String())}} {
		b.Run(c.name, func(b *testing.B) {
			src := bytes.NewReader(nil)
			p := make([]byte, 32<<10)
			b.SetBytes(int64(len(c.doc)))
			b.ReportAllocs()
			for b.Loop() {
				src.Reset(c.doc)
				r := NewDownloads(src, func(string) (string, bool) { return "http://127.0.0.1:8080/blob/x", true })
				for {
					if _, err := r.Read(p); err == io.EOF {
						break
					}
				}
			}
		})
	}
}
