package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"defender-proxy/internal/clients"
)

// A key opens what its group may do, on whichever listener: sent to another one of
// the proxy's it must not reach Microsoft, forward_headers or not.
func TestAKeyOfAGroupThatTheListenerDoesNotHaveEndsHere(t *testing.T) {
	key, err := clients.NewKey("X-Api-Key", localKey)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, options{
		listener: Listener{Clients: []string{"everybody"}},
		deps: func(d *Deps) {
			grants := d.Clients[0].Grants
			from := []clients.Source{clients.Addresses(netip.MustParsePrefix("127.0.0.0/8"))}
			d.Clients = []Client{
				{Name: "responder", From: from, Keys: []clients.Key{key}, Grants: grants},
				{Name: "everybody", From: from, Grants: grants},
			}
			d.ForwardHeaders = []string{"X-Api-Key"}
		}})
	if got := w.do("GET", "/api/alerts", "", "X-Api-Key", localKey); got.status != 200 {
		t.Errorf("got %d, want 200", got.status)
	}
	arrived := 0
	for _, region := range w.regions {
		for _, r := range region.requests() {
			arrived++
			for name, values := range r.header {
				if strings.Contains(strings.Join(values, ""), localKey) {
					t.Errorf("the key arrived in %s", name)
				}
			}
		}
	}
	if arrived != 1 {
		t.Errorf("%d requests arrived, want 1", arrived)
	}
}

// The names and prefixes are those in the source of allows: a header that is added
// there and that could carry a key fails here.
func TestNoHeaderThatGoesOutCarriesAKey(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "headers.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	list, n := newHeaderList(nil), 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "allows" {
			continue
		}
		ast.Inspect(f, func(node ast.Node) bool {
			text, ok := node.(*ast.BasicLit)
			if !ok || text.Kind != token.STRING {
				return true
			}
			name, err := strconv.Unquote(text.Value)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, "-") {
				name += "X"
			}
			n++
			if !list.allows(name) {
				t.Errorf("%s does not go out", name)
			}
			if _, err := clients.NewKey(name, localKey); err == nil {
				t.Errorf("%s goes out, and a key is let into it", name)
			}
			return true
		})
	}
	if n < 16 {
		t.Errorf("allows names %d headers, want 16 at least", n)
	}
}
