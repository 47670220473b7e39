package links

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestReaderTellsOfTheNextLinks(t *testing.T) {
	long := strings.Repeat("x", maxNext-len("/api/a?"))
	for name, tc := range map[string]struct {
		doc  string
		want []string
	}{
		"a next link, from its path on": {
			`{"value":[],"@odata.nextLink":"https://api.securitycenter.microsoft.com/api/alerts?$skiptoken=a%2Bb"}`,
			[]string{"/api/alerts?$skiptoken=a%2Bb"},
		},
		"its escapes are undone": {
			`{"@odata.nextLink" : "https:\/\/x\/\u0061pi\/alerts?$skiptoken=a\u0026b=\"\\\u00e9\ud83d\ude00"}`,
			[]string{"/api/alerts?$skiptoken=a&b=\"\\é😀"},
		},
		"each of several, in their order": {
			`[{"@odata.nextLink":"https://x/api/a"},{"v@odata.nextLink":"https://x/v1.0/security/b#f"},{"@odata.nextLink":"https://x/api/a"}]`,
			[]string{"/api/a", "/v1.0/security/b#f", "/api/a"},
		},
		"a context or delta link is none": {
			`{"@odata.context":"https://x/api/$metadata#A","@odata.deltaLink":"https://x/api/d"}`, nil,
		},
		"a link that is not rewritten is none": {
			`[{"@odata.nextLink":"https://x/secret"},{"@odata.nextLink":"/api/a"},{"@odata.nextLink":null},{"a":"\"@odata.nextLink\":\"https://x/api/a\""}]`, nil,
		},
		"the longest":                       {`{"@odata.nextLink":"https://x/api/a?` + long + `"}`, []string{"/api/a?" + long}},
		"one that is longer is not told":    {`[{"@odata.nextLink":"https://x/api/a?x` + long + `"},{"@odata.nextLink":"https://x/api/b"}]`, []string{"/api/b"}},
		"one that breaks off is not told":   {`{"@odata.nextLink":"https://x/api/a`, nil},
		"one that is no JSON is not told":   {`{"@odata.nextLink":"https://x/api/a?\x"}`, nil},
		"one with a control is not told":    {"{\"@odata.nextLink\":\"https://x/api/a?\n\"}", nil},
		"what is no UTF-8 is told replaced": {"{\"@odata.nextLink\":\"https://x/api/a?\xff\"}", []string{"/api/a?\uFFFD"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := toldOf(t, tc.doc, mustTarget(t, home)); !slices.Equal(got, tc.want) {
				t.Errorf("got  %.300q\nwant %.300q", got, tc.want)
			}
		})
	}
	if got := toldOf(t, `{"@odata.nextLink":"https://x/api/a"}`, Target{}); got != nil {
		t.Errorf("without a target: got %q, want none", got)
	}
}

func TestReaderTellsOfALinkBeforeItsEndIsHandedOut(t *testing.T) {
	src, feed := io.Pipe()
	r := NewReader(src, mustTarget(t, home))
	var told []string
	r.OnNext = func(link string) { told = append(told, link) }
	go func() {
		_, _ = io.WriteString(feed, `{"@odata.nextLink":"https://x/api/a?b`)
		_, _ = io.WriteString(feed, `c",`)
		_ = feed.Close()
	}()
	buf := make([]byte, 4096)
	for _, want := range []struct {
		out  string
		told []string
	}{{`{"@odata.nextLink":"` + home + `/api/a?b`, nil}, {`c",`, []string{"/api/a?bc"}}} {
		n, err := r.Read(buf)
		if err != nil || string(buf[:n]) != want.out || !slices.Equal(told, want.told) {
			t.Fatalf("got %q, %v and told of %q, want %q and %q", buf[:n], err, told, want.out, want.told)
		}
	}
}
