package policy

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func catalog(t testing.TB, additions ...Operation) *Catalog {
	t.Helper()
	c, err := NewCatalog(additions)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheCatalogHoldsTheDocumentedOperations(t *testing.T) {
	if n := len(Documented()); n != 117 {
		t.Errorf("%d documented operations, want 117", n)
	}
	c := catalog(t)
	if n := len(c.Operations()); n != 117+7+2 {
		t.Errorf("%d operations with those of Graph and those seen, want 126", n)
	}
	for _, op := range c.Operations() {
		if err := validate(op); err != nil {
			t.Errorf("%s: %v", op.ID, err)
		}
		if op.Doc == "" {
			t.Errorf("%s names no page", op.ID)
		}
	}
}

// example fills a template with values.
func example(template string) string {
	return regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(template, "a1")
}

func TestEveryRowIsFoundByItsOwnPath(t *testing.T) {
	c := catalog(t)
	for _, op := range c.Operations() {
		path := example(op.Path)
		for name, p := range map[string]string{
			"as written":         path,
			"in lower case":      fold(path),
			"in upper case":      strings.ToUpper(path),
			"with the version":   strings.Replace(path, "/api/", "/api/v1.0/", 1),
			"with a cased /API/": strings.Replace(path, "/api/", "/API/", 1),
		} {
			got, err := c.Match(op.Method, p)
			if err != nil || got != op {
				t.Errorf("%s %s (%s) gives %v, %v; want %s", op.Method, p, name, got, err, op.ID)
			}
		}
	}
}

func TestMatch(t *testing.T) {
	c := catalog(t)
	for _, tc := range []struct{ name, method, path, want string }{
		{"a list", "GET", "/api/alerts", "alerts.list"},
		{"one of it", "GET", "/api/alerts/da637", "alerts.get"},
		{"HEAD asks for what GET does", "HEAD", "/api/alerts", "alerts.list"},
		{"a fixed segment beats a placeholder", "GET", "/api/machines/SoftwareInventoryByMachine", "machines.softwareInventoryByMachine"},
		{"in any letter case", "GET", "/api/machines/SOFTWAREINVENTORYbymachine", "machines.softwareInventoryByMachine"},
		{"a function with its arguments", "GET", "/api/machines/findbyip(ip='10.248.240.38',timestamp=2019-09-22T08:44:05Z)", "machines.findbyip"},
		{"a function with its arguments the other way round", "GET", "/api/machines/findbyip(timestamp=2019-09-22T08:44:05Z,ip='10.248.240.38')", "machines.findbyip"},
		{"a function with a bare argument", "GET", "/api/machines/FindByIp(ip=10.1.1.1,TIMESTAMP='2019')", "machines.findbyip"},
		{"a quoted argument with a comma, a parenthesis and a quote", "GET", "/api/machines/find(timestamp=1,key='a,b)''c')", "machines.find"},
		{"a function behind a placeholder", "GET", "/api/machineactions/a1/GetLiveResponseResultDownloadLink(index=0)", "machineactions.getLiveResponseResultDownloadLink"},
		{"the count of a collection", "GET", "/api/alerts/$count", "alerts.list"},
		{"the count of one further down", "GET", "/api/machines/a1/alerts/$count", "machines.alerts"},
		{"a file with parentheses in its name", "DELETE", "/api/libraryfiles/script%20(1).ps1", "libraryfiles.delete"},
		{"Graph", "POST", "/v1.0/security/RunHuntingQuery", "graph.hunting.run"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			op, err := c.Match(tc.method, tc.path)
			if err != nil || op.ID != tc.want {
				t.Errorf("Match(%s %s) = %v, %v; want %s", tc.method, tc.path, op, err, tc.want)
			}
		})
	}
}

func TestMatchRefuses(t *testing.T) {
	c := catalog(t)
	for _, tc := range []struct{ name, method, path, allow string }{
		{"a path of nobody", "GET", "/api/nothing", ""},
		{"a path outside the APIs", "GET", "/admin", ""},
		{"the root", "GET", "/", ""},
		{"the empty path", "GET", "", ""},
		{"the version alone", "GET", "/api/v1.0", ""},
		{"the version twice", "GET", "/api/v1.0/v1.0/alerts", ""},
		{"another version", "GET", "/api/v2.0/alerts", ""},
		{"a segment too many", "GET", "/api/alerts/a1/files/a2", ""},
		{"a fixed segment taken for an id", "GET", "/api/machines/SoftwareInventoryByMachine/alerts", ""},
		{"a batch", "POST", "/api/$batch", ""},
		{"a query in a body", "POST", "/api/alerts/$query", ""},
		{"a reference", "GET", "/api/alerts/a1/$ref", ""},
		{"a key in parentheses", "GET", "/api/alerts('a1')", ""},
		{"a bound action", "POST", "/api/machines/a1/Microsoft.Security.isolate", ""},
		{"a function of nobody in place of an id", "GET", "/api/machines/steal(x='1')", ""},
		{"a function without arguments", "GET", "/api/machines/findbyip()", ""},
		{"a function with one argument missing", "GET", "/api/machines/findbyip(ip='1.1.1.1')", ""},
		{"a function with one argument twice", "GET", "/api/machines/findbyip(ip='1.1.1.1',ip='2.2.2.2')", ""},
		{"a function with one argument too many", "GET", "/api/machines/findbyip(ip='1',timestamp=2,x=3)", ""},
		{"a function with an unfinished quote", "GET", "/api/machines/findbyip(ip='1,timestamp=2)", ""},
		{"a function with an empty argument", "GET", "/api/machines/findbyip(ip='',timestamp=2)", ""},
		{"a call in an argument", "GET", "/api/machines/findbyip(ip=f(1),timestamp=2)", ""},
		{"something behind the call", "GET", "/api/machines/findbyip(ip='1',timestamp=2)x)", ""},
		{"the count of one thing", "GET", "/api/alerts/a1/$count", ""},
		{"a long s in a fixed name", "GET", "/api/alert\u017f", ""},
		{"a known path with a wrong method", "DELETE", "/api/alerts", "GET, HEAD"},
		{"a fixed name with the placeholder's method", "GET", "/api/alerts/batchUpdate", "POST"},
		{"a path with several methods", "POST", "/api/alerts/a1", "GET, HEAD, PATCH"},
		{"a method in lower case", "get", "/api/alerts", "GET, HEAD"},
		{"OPTIONS", "OPTIONS", "/api/indicators", "GET, HEAD, POST"},
		{"a write to a count", "POST", "/api/indicators/$count", "GET, HEAD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			op, err := c.Match(tc.method, tc.path)
			var wrong *MethodError
			switch {
			case op != nil:
				t.Errorf("Match(%s %s) = %s, want a refusal", tc.method, tc.path, op.ID)
			case tc.allow == "" && !errors.Is(err, ErrUnknownPath):
				t.Errorf("Match(%s %s) gives %v, want ErrUnknownPath", tc.method, tc.path, err)
			case tc.allow != "" && (!errors.As(err, &wrong) || wrong.Allow != tc.allow):
				t.Errorf("Match(%s %s) gives %v, want a MethodError with %q", tc.method, tc.path, err, tc.allow)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	c := catalog(t)
	for _, tc := range []struct {
		name          string
		allow, deny   []string
		roles, scopes []string
		operation     string
		want          Verdict
		rule          string // the entry that took part
	}{
		{"nothing granted, nothing allowed", nil, nil, []string{"Alert.Read.All"}, nil, "alerts.list", NotGranted, ""},
		{"a read is granted and permitted", []string{"read"}, nil, []string{"Alert.Read.All"}, nil, "alerts.list", Allowed, "read"},
		{"any one permission of the list will do", []string{"read"}, nil, []string{"X", "Alert.ReadWrite.All"}, nil, "alerts.list", Allowed, "read"},
		{"permissions are compared without case", []string{"read"}, nil, []string{"URL.READ.ALL"}, nil, "alerts.domains", Allowed, "read"},
		{"a token without roles lacks the permission", []string{"read"}, nil, nil, nil, "alerts.list", MissingPermission, "read"},
		{"an action is not granted with read", []string{"read", "hunt"}, nil, []string{"Machine.Isolate"}, nil, "machines.isolate", NotGranted, ""},
		{"neither granted nor permitted is not granted", []string{"read"}, nil, nil, nil, "machines.isolate", NotGranted, ""},
		{"an action granted by id", []string{"machines.isolate"}, nil, []string{"Machine.Isolate"}, nil, "machines.isolate", Allowed, "machines.isolate"},
		{"an id in another letter case", []string{"Machines.ISOLATE"}, nil, []string{"Machine.Isolate"}, nil, "machines.isolate", Allowed, "Machines.ISOLATE"},
		{"a glob", []string{"machines.*"}, nil, []string{"Machine.Isolate"}, nil, "machines.isolate", Allowed, "machines.*"},
		{"a method and path", []string{"POST /api/machines/{machine}/isolate"}, nil, []string{"Machine.Isolate"}, nil, "machines.isolate", Allowed, "POST /api/machines/{machine}/isolate"},
		{"deny wins over allow", []string{"respond", "machines.isolate"}, []string{"machines.*"}, []string{"Machine.Isolate"}, nil, "machines.isolate", NotGranted, "machines.*"},
		{"the first allow entry is told", []string{"*", "read"}, nil, []string{"Alert.Read.All"}, nil, "alerts.list", Allowed, "*"},
		{"a user's token needs the delegated permission", []string{"read"}, nil, nil, []string{"Alert.Read"}, "alerts.list", Allowed, "read"},
		{"a user's roles do not count", []string{"read"}, nil, []string{"Alert.Read.All"}, []string{"openid"}, "alerts.list", MissingPermission, "read"},
		{"an application's token does not profit from delegated names", []string{"read"}, nil, []string{"Alert.Read"}, nil, "alerts.list", MissingPermission, "read"},
		{"where no delegated permission is documented no user's token will do", []string{"manage"}, nil, nil, []string{"Ti.ReadWrite", "Ti.ReadWrite.All"}, "indicators.delete", MissingPermission, "manage"},
		{"quarantine takes more than a read permission", []string{"respond"}, nil, []string{"Machine.Read.All", "Machine.ReadWrite.All"}, nil, "machines.stopAndQuarantineFile", MissingPermission, "respond"},
		{"baselines take the permission of their sibling", []string{"read"}, nil, []string{"SecurityBaselinesAssessment.Read.All"}, nil, "baselineProfiles.list", Allowed, "read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g, err := c.Grants(Entries(tc.allow...), Entries(tc.deny...))
			if err != nil {
				t.Fatal(err)
			}
			op, ok := c.ByID(tc.operation)
			if !ok {
				t.Fatalf("no operation %s", tc.operation)
			}
			p := &Policy{Catalog: c}
			d := p.Decide(op, g, Situation{}, c.Permits(tc.roles, tc.scopes))
			granted := tc.want != NotGranted
			if d.Verdict != tc.want || d.Rule.Entry != tc.rule || d.Rule.Allow != granted || d.Allowed() != (tc.want == Allowed) {
				t.Errorf("got %v by %+v, want %v by %q", d.Verdict, d.Rule, tc.want, tc.rule)
			}
		})
	}
}

func TestZeroValuesDeny(t *testing.T) {
	c := catalog(t)
	op, _ := c.ByID("alerts.list")
	all, err := c.Grants(Entries("*"), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &Policy{Catalog: c}
	permits := c.Permits([]string{"Alert.Read.All"}, nil)
	for name, d := range map[string]Decision{
		"the zero decision":            {},
		"no grants":                    p.Decide(op, nil, Situation{}, permits),
		"zero grants":                  p.Decide(op, &Grants{}, Situation{}, permits),
		"no token":                     p.Decide(op, all, Situation{}, nil),
		"a zero token":                 p.Decide(op, all, Situation{}, &Permits{}),
		"no operation":                 p.Decide(nil, all, Situation{}, permits),
		"a zero operation":             p.Decide(&Operation{}, all, Situation{}, permits),
		"grants of another catalog":    p.Decide(op, mustGrants(t, catalog(t), "*"), Situation{}, permits),
		"a token of another catalog":   p.Decide(op, all, Situation{}, catalog(t).Permits([]string{"Alert.Read.All"}, nil)),
		"report mode without a token":  (&Policy{Catalog: c, ReportOnly: true}).Decide(op, all, Situation{}, nil),
		"report mode without a grant":  (&Policy{Catalog: c, ReportOnly: true}).Decide(op, nil, Situation{}, permits),
		"only the operator's half yet": p.Granted(op, all, Situation{}),
	} {
		if d.Allowed() {
			t.Errorf("%s allows: %+v", name, d)
		}
	}
}

func mustGrants(t *testing.T, c *Catalog, allow ...string) *Grants {
	t.Helper()
	g, err := c.Grants(Entries(allow...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestReportLetsPassWhatOnlyTheTokenForbids(t *testing.T) {
	c := catalog(t)
	op, _ := c.ByID("machines.isolate")
	p := &Policy{Catalog: c, ReportOnly: true}
	if d := p.Decide(op, mustGrants(t, c, "respond"), Situation{}, c.Permits(nil, nil)); d.Verdict != Reported || !d.Allowed() {
		t.Errorf("got %v, want Reported, allowed", d.Verdict)
	}
}

func TestUnknownPathsOpenForReadersOnly(t *testing.T) {
	c := catalog(t)
	open, closed := &Policy{Catalog: c, AllowUnknown: true}, &Policy{Catalog: c}
	for _, tc := range []struct {
		method, path string
		service      Service
	}{
		{"GET", "/api/new/thing", ServiceMDE},
		{"HEAD", "/api/new", ServiceMDE},
		{"GET", "/API/incidents/a/b/c", ServiceXDR},
		{"GET", "/v1.0/security/cases", ServiceGraph},
	} {
		op, err := open.Operation(tc.method, tc.path)
		if err != nil || op.Service != tc.service || op.Class != ClassRead {
			t.Errorf("%s %s gives %+v, %v; want a read of %s", tc.method, tc.path, op, err, tc.service)
			continue
		}
		if d := open.Decide(op, mustGrants(t, c, "read"), Situation{}, c.Permits(nil, nil)); !d.Allowed() {
			t.Errorf("%s %s: a reader is refused: %v", tc.method, tc.path, d.Verdict)
		}
		if d := open.Decide(op, mustGrants(t, c, "hunt", "machines.*"), Situation{}, c.Permits(nil, nil)); d.Allowed() {
			t.Errorf("%s %s: one who may not read everything is let through by %+v", tc.method, tc.path, d.Rule)
		}
		if _, err := closed.Operation(tc.method, tc.path); !errors.Is(err, ErrUnknownPath) {
			t.Errorf("%s %s closed gives %v, want ErrUnknownPath", tc.method, tc.path, err)
		}
	}
	for _, tc := range []struct{ method, path string }{
		{"POST", "/api/new"}, {"GET", "/api/machineactions/a1/Microsoft.WindowsDefenderATP.Api.GetPackageUri"}, {"GET", "/api/v1/machineactions/a1/getPackageUri"},
		{"GET", "/api/v1.0/v1.0/libraryfiles"}, {"GET", "/api/v1.0/v1.0/machineactions/a1/getPackageUri"}, {"GET", "/api/machines/m1/machineactions/a1/getPackageUri"},
		{"GET", "/api/machineactions/a1/getPackageUri:"}, {"GET", "/api/machineactions/a1/getPackageUr%69"}, {"GET", "/v1.0/security/v1/alerts_v2"},
		{"GET", "/api/machineactions/1/getPackageUri()"}, {"GET", "/api/machines('1')"}, {"GET", "/api/$metadata"}, {"DELETE", "/api/new"}, {"GET", "/elsewhere"}, {"GET", "/v1.0/users"}, {"GET", "/api"},
	} {
		if op, err := open.Operation(tc.method, tc.path); err == nil {
			t.Errorf("%s %s opens %s, want a refusal", tc.method, tc.path, op.ID)
		}
	}
	if op, err := open.Operation("DELETE", "/api/alerts"); err == nil {
		t.Errorf("a wrong method opens %s", op.ID)
	}
}

func TestAGrantThatNamesNothingIsAnError(t *testing.T) {
	c := catalog(t)
	for _, entry := range []string{"", "reads", "machine.isolate", "GET /api/nothing", "POST /api/alerts", "get /api/alerts", "Read", "machines"} {
		if _, err := c.Grants(Entries(entry), nil); err == nil {
			t.Errorf("allow %q is accepted", entry)
		}
		if _, err := c.Grants(nil, Entries(entry)); err == nil {
			t.Errorf("deny %q is accepted", entry)
		}
		if err := c.CheckPattern(entry); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", entry)) {
			t.Errorf("CheckPattern(%q) = %v, want an error that quotes it", entry, err)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"*", "abc", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"a*c", "abc", true}, {"a*c", "ac", true},
		{"**b**", "abc", true}, {"a*b*c", "axbxbxc", true}, {"abc", "abc", true}, {"", "", true},
		{"a*", "ba", false}, {"*c", "cb", false}, {"a*c", "a", false}, {"abc", "abcd", false}, {"", "a", false}, {"a*b*c", "acb", false},
		{strings.Repeat("*a", 40) + "b", strings.Repeat("a", 5000), false}, // must end
	} {
		if got := glob(c.pattern, c.s); got != c.want {
			t.Errorf("glob(%.20q, %.20q) = %v, want %v", c.pattern, c.s, got, c.want)
		}
	}
}

func TestAdditions(t *testing.T) {
	c := catalog(t,
		Operation{ID: "lab.list", Service: ServiceMDE, Method: "GET", Path: "/api/lab", Class: ClassRead, Application: []Permission{"Lab.Read"}},
		Operation{ID: "users.machines", Application: []Permission{"Lab.Machines"}},
	)
	if op, err := c.Match("GET", "/api/LAB"); err != nil || op.ID != "lab.list" {
		t.Errorf("the added row gives %v, %v", op, err)
	}
	op, err := c.Match("GET", "/api/users/u1/machines")
	if err != nil || !slices.Equal(op.Application, []Permission{"Lab.Machines"}) || !slices.Equal(op.Delegated, []Permission{"Machine.Read", "Machine.ReadWrite"}) || op.Class != ClassRead {
		t.Errorf("the corrected row is %+v, %v", op, err)
	}
}

func TestBadAdditions(t *testing.T) {
	good := Operation{ID: "lab.list", Service: ServiceMDE, Method: "GET", Path: "/api/lab", Class: ClassRead, Application: []Permission{"Lab.Read"}}
	for _, tc := range []struct {
		name   string
		change func(*Operation)
		want   string
	}{
		{"no id", func(o *Operation) { o.ID = "" }, "an id consists of"},
		{"an id that we use", func(o *Operation) { o.ID = "Unknown.mde" }, "taken"},
		{"another service", func(o *Operation) { o.Service = "intune" }, "service"},
		{"another method", func(o *Operation) { o.Method = "get" }, "method"},
		{"another class", func(o *Operation) { o.Class = "reads" }, "class"},
		{"a read that deletes", func(o *Operation) { o.Method = "DELETE" }, "changes something"},
		{"a path elsewhere", func(o *Operation) { o.Path = "/users" }, "begins with neither"},
		{"an empty segment", func(o *Operation) { o.Path = "/api/a//b" }, "empty segment"},
		{"half a placeholder", func(o *Operation) { o.Path = "/api/a{b" }, "neither a name"},
		{"no permission", func(o *Operation) { o.Application = nil }, "permission"},
		{"a row that exists under another id", func(o *Operation) { o.Path = "/api/Alerts" }, "alerts.list"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			op := good
			tc.change(&op)
			_, err := NewCatalog([]Operation{good, op}[1:])
			var e *AdditionError
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.want) || e.Index != 0 {
				t.Errorf("got %v, want an AdditionError that says %q", err, tc.want)
			}
		})
	}
}

// A second, slow reading of the catalog must agree with the matcher.
func FuzzMatch(f *testing.F) {
	c := catalog(f)
	type row struct {
		op *Operation
		re *regexp.Regexp
	}
	var rows []row
	const value = `(?:'(?:[^'/]|'')+'|[^'(),=/]+)`
	for _, op := range c.Operations() {
		f.Add(op.Method, example(op.Path))
		var expr strings.Builder
		for seg := range strings.SplitSeq(op.Path[1:], "/") {
			expr.WriteString("/")
			switch name, args, call := strings.Cut(strings.TrimSuffix(seg, ")"), "("); {
			case call:
				list := strings.Split(args, ",")
				var orders []string
				for _, order := range [][]string{list, {list[len(list)-1], list[0]}}[:min(2, len(list))] {
					var parts []string
					for _, a := range order {
						arg, _, _ := strings.Cut(a, "=")
						parts = append(parts, arg+"="+value)
					}
					orders = append(orders, strings.Join(parts, ","))
				}
				expr.WriteString(name + `\((?:` + strings.Join(orders, "|") + `)\)`)
			case seg[0] == '{':
				expr.WriteString(`[^/$][^/]*`)
			default:
				expr.WriteString(regexp.QuoteMeta(seg))
			}
		}
		pattern := `(?i)^` + expr.String() + `$`
		if _, err := c.Match(http.MethodGet, example(op.Path)+"/$count"); err == nil && op.Method == http.MethodGet {
			pattern = `(?i)^` + expr.String() + `(?:/\$count)?$`
		}
		rows = append(rows, row{op, regexp.MustCompile(pattern)})
	}
	f.Add("GET", "/api/v1.0/alerts/$count")
	f.Add("GET", "/api/machines/find(timestamp=1,key='''')")
	f.Fuzz(func(t *testing.T, method, path string) {
		got, err := c.Match(method, path)
		if (got == nil) == (err == nil) {
			t.Fatalf("Match(%q, %q) = %v, %v", method, path, got, err)
		}
		if got == nil {
			return
		}
		for i := range len(path) {
			if path[i] >= 0x80 {
				return // regexp's (?i) folds more than ASCII, and canonical paths have no such byte
			}
		}
		plain := path
		if len(path) > 10 && foldEqual(path[:10], "/api/v1.0/") {
			plain = "/api/" + path[10:]
		}
		if method == http.MethodHead {
			method = http.MethodGet
		}
		for _, r := range rows {
			if r.op == got {
				if !r.re.MatchString(plain) || r.op.Method != method {
					t.Fatalf("%s %s matches %s (%s %s), which a second reading denies", method, path, got.ID, got.Method, got.Path)
				}
				return
			}
		}
		t.Fatalf("%s is in no row", got.ID)
	})
}

func BenchmarkMatchAndDecide(b *testing.B) {
	c := catalog(b)
	g, err := c.Grants(Entries("read", "hunt", "machines.isolate"), Entries("libraryfiles.*"))
	if err != nil {
		b.Fatal(err)
	}
	p := &Policy{Catalog: c}
	permits := c.Permits([]string{"Alert.Read.All", "Machine.Read.All", "Machine.Isolate"}, nil)
	b.ReportAllocs()
	for b.Loop() {
		op, err := p.Operation("POST", "/api/v1.0/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/Isolate")
		if err != nil || !p.Decide(op, g, Situation{}, permits).Allowed() {
			b.Fatal(op, err)
		}
	}
}
