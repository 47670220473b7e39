package proxy

import (
	"fmt"
	"net/http"
	"testing"
)

func TestWithoutSkip(t *testing.T) {
	for _, c := range []struct {
		query, rest string
		skips       bool
	}{
		{"", "", false},
		{"$top=10", "$top=10", false},
		{"$skip=10", "", true},
		{"$top=10&$skip=20", "$top=10", true},
		{"$skip=20&$filter=a%20eq%20'b&c'", "$filter=a%20eq%20'b&c'", true},
		{"%24skip=20&$top=1", "$top=1", true},
		{"$Skip=20&$top=1", "$top=1", true},
		{"%24%73%6b%69%70=20&$top=1", "$top=1", true},
		{"$skiptoken=abc", "$skiptoken=abc", false},
		{"skip=1&%=2&$ſkip=3", "skip=1&%=2&$ſkip=3", false},
		{"&&$skip&&", "&&&", true},
	} {
		if rest, skips := withoutSkip(c.query); rest != c.rest || skips != c.skips {
			t.Errorf("%q gives %q, %v; want %q, %v", c.query, rest, skips, c.rest, c.skips)
		}
	}
}

func FuzzWithoutSkip(f *testing.F) {
	f.Add("$top=10&$skip=20")
	f.Add("%24skip=1&&=&$skip")
	f.Fuzz(func(t *testing.T, query string) {
		rest, skips := withoutSkip(query)
		if !skips && rest != query {
			t.Errorf("%q has no $skip and becomes %q", query, rest)
		}
		if again, more := withoutSkip(rest); more || again != rest {
			t.Errorf("%q becomes %q, and that %q", query, rest, again)
		}
	})
}

// Pages of a query come from one region, although another is nearest meanwhile.
func TestThePagesOfAQueryComeFromOneRegion(t *testing.T) {
	for _, c := range []struct {
		name, first, link, next string
		sticks                  bool
	}{
		{"by the link of the answer", "/api/alerts", "/api/alerts?$skiptoken=a%2Bb=", "/api/alerts?$skiptoken=a%2Bb=", true},
		{"by a link with escapes of JSON", "/api/alerts", `\/api\/alerts?$skiptoken=a\u0026b=1`, "/api/alerts?$skiptoken=a&b=1", true},
		{"by a link under a tenant's prefix", "/t/contoso/api/alerts", "/api/alerts?$skiptoken=a", "/t/contoso/api/alerts?$skiptoken=a", true},
		{"by $skip beside $top", "/api/incidents?$top=10", "", "/api/incidents?$top=10&$skip=10", true},
		{"another query goes to the nearest", "/api/alerts", "/api/alerts?$skiptoken=a", "/api/alerts?$skiptoken=b", false},
		{"another $top is another query", "/api/incidents?$top=10", "", "/api/incidents?$top=20&$skip=10", false},
		{"a first page goes to the nearest, whatever a link said", "/api/alerts", "/api/alerts?$filter=x", "/api/alerts?$filter=x", false},
		{"the same link of another API is another query", "/api/alerts", "/api/alerts?$skiptoken=a", "/api/incidents?$skiptoken=a", false},
		{"the same path without a query goes to the nearest", "/api/alerts", "/api/alerts?$skiptoken=a", "/api/alerts", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{})
			us, eu := w.regions[0], w.regions[1]
			answer := func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				link := ""
				if c.link != "" {
					link = `,"@odata.nextLink":"https://api.securitycenter.microsoft.com` + c.link + `"`
				}
				fmt.Fprint(w, `{"value":[]`+link+`}`)
			}
			eu.answer(answer)
			us.answer(reset) // the first page comes from eu
			if got := w.do("GET", c.first, ""); got.status != 200 || len(eu.requests()) != 1 {
				t.Fatalf("the first page: %d %s", got.status, got.body)
			}
			us.answer(answer)
			before := len(us.requests())
			if got := w.do("GET", c.next, ""); got.status != 200 {
				t.Fatalf("the next page: %d %s", got.status, got.body)
			}
			if stuck := len(us.requests()) == before; stuck != c.sticks {
				t.Errorf("the next page came from eu: %v, want %v", stuck, c.sticks)
			}
			// What remembers the region is no more than a preference.
			eu.server.Close()
			if got := w.do("GET", c.next, ""); got.status != 200 {
				t.Errorf("when the region is gone: %d %s", got.status, got.body)
			}
		})
	}
}
