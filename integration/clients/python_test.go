//go:build clients

package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// interpreter is the system's own Python, for which its distribution has requests.
const interpreter = "/usr/bin/python3"

// base is where a tool is pointed: the proxy's URL, one with a tenant in it, or
// Microsoft's names.
type base struct {
	name       string
	api, login func(*lab) string
	env        func(*lab) []string
}

var bases = []base{
	{
		"at the proxy's URL",
		func(l *lab) string { return l.plain }, func(l *lab) string { return l.plain },
		func(*lab) []string { return nil },
	},
	{
		"at the tenant's URL",
		func(l *lab) string { return l.secure + "/t/contoso" }, func(l *lab) string { return l.secure + "/t/contoso" },
		func(l *lab) []string { return []string{"REQUESTS_CA_BUNDLE=" + l.caFile} },
	},
	{
		"at Microsoft's names",
		func(*lab) string { return "https://api.securitycenter.microsoft.com" }, func(*lab) string { return "https://login.microsoftonline.com" },
		func(l *lab) []string { return append(l.led(), "PYTHONPATH=.", "REQUESTS_CA_BUNDLE="+l.caFile) },
	},
}

// python runs a script with settings of its own beside those of every tool, and
// reads the JSON that it prints.
func (l *lab) python(b base, script string, more object, into any) {
	l.t.Helper()
	settings := object{
		"api": b.api(l), "login": b.login(l), "tenant": toolTenant, "client_id": toolID, "client_secret": toolSecret,
		"machine": l.sim.MachineID(), "patience": 30, "state": filepath.Join(l.dir, "state"),
	}
	for key, value := range more {
		settings[key] = value
	}
	text, err := json.Marshal(settings)
	if err != nil {
		l.t.Fatal(err)
	}
	env := append(b.env(l), "PYTHONDONTWRITEBYTECODE=1")
	out := l.run("python", env, interpreter, script, l.write("settings.json", text))
	if err := json.Unmarshal([]byte(out), into); err != nil {
		l.t.Fatalf("%s printed no JSON: %v: %s", script, err, out)
	}
}

// scripted starts a lab for a script at each base. A throttled request that the
// script does not notice is set up for it and looked for afterwards.
func scripted(t *testing.T, s setup, throttled string, story func(*lab, base)) {
	t.Helper()
	for _, b := range bases {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, s)
			if throttled != "" {
				l.throttle(throttled)
			}
			story(l, b)
			if n := l.throttled(); throttled != "" && n != 1 {
				t.Errorf("%d requests were answered with 429, want 1", n)
			}
			l.noSecretIn(toolSecret, toolID, url.QueryEscape(toolSecret))
			l.onlyOwnLogins()
		})
	}
}

// A script logs in with a form, with JSON, with GET and its secret in the query, and
// at the newer endpoint; it reads the token's exp, and uses each token.
func TestPythonLogsInInEveryWayThatWasSeen(t *testing.T) {
	t.Parallel()
	scripted(t, setup{}, "/api/alerts", func(l *lab, b base) {
		var got struct{ IDs []string }
		l.python(b, "logins.py", nil, &got)
		first := l.alerts()[0]
		same(l.t, "logins.py", got.IDs, []string{first, first, first, first})
	})
}

// A log shipper follows the links, keeps the last one in a file, and is stopped; the
// proxy is started anew meanwhile; the shipper goes on where it was, and in the end
// every alert came once.
func TestPythonGoesOnFromALinkThatItKept(t *testing.T) {
	t.Parallel()
	scripted(t, setup{sim: simulator.Config{Alerts: 45, PageSize: 10}}, "/api/alerts", func(l *lab, b base) {
		type batch struct {
			IDs   []string
			Pages int
			More  bool
		}
		var first, second batch
		l.python(b, "collect.py", object{"pages": 2}, &first)
		l.restart()
		l.python(b, "collect.py", object{"pages": 100}, &second)
		if first.Pages != 2 || !first.More || second.Pages != 3 || second.More {
			l.t.Errorf("got %d pages and then %d, want 2 and 3", first.Pages, second.Pages)
		}
		same(l.t, "collect.py", slices.Sorted(slices.Values(append(first.IDs, second.IDs...))), slices.Sorted(slices.Values(l.alerts())))
	})
}

// Incidents are paged with $top and $skip; there are no links.
func TestPythonPagesIncidentsWithTopAndSkip(t *testing.T) {
	t.Parallel()
	scripted(t, setup{sim: simulator.Config{Alerts: 60}}, "/api/incidents", func(l *lab, b base) {
		var got struct{ IDs []string }
		l.python(b, "incidents.py", nil, &got)
		_, _, body, err := l.ask(http.MethodGet, l.plain+"/api/incidents?$top=100", "")
		var all struct {
			Value []struct{ IncidentID json.Number }
		}
		if err == nil {
			err = json.Unmarshal(body, &all)
		}
		if err != nil || len(all.Value) < 11 || len(all.Value) > 99 {
			l.t.Fatalf("%d incidents in one page do not make a story: %v", len(all.Value), err)
		}
		var want []string
		for _, i := range all.Value {
			want = append(want, i.IncidentID.String())
		}
		same(l.t, "incidents.py", got.IDs, want)
	})
}

// Machines are looked up with all the oddities that scripts have in their URLs.
func TestPythonLooksMachinesUpWithOddURLs(t *testing.T) {
	t.Parallel()
	scripted(t, setup{}, "/api/machines", func(l *lab, b base) {
		var got struct {
			ByName    []string `json:"by_name"`
			ByOddName []string `json:"by_odd_name"`
			ByNoName  []string `json:"by_no_name"`
			ByAddress []string `json:"by_address"`
			All       int
		}
		l.python(b, "machines.py", nil, &got)
		want := []string{l.sim.MachineID()}
		same(l.t, "by name", got.ByName, want)
		same(l.t, "by a filter with a semicolon", got.ByOddName, want)
		same(l.t, "by a name that nobody has", got.ByNoName, nil)
		same(l.t, "by address", got.ByAddress, want)
		if got.All != 240 {
			l.t.Errorf("with $top=10000 came %d machines, want 240", got.All)
		}
		for _, raw := range []string{"none;such", "findbyip(ip='", "/API/machines/"} {
			if !slices.ContainsFunc(l.upstream(), func(r simulator.Request) bool { return strings.Contains(strings.ReplaceAll(r.Target, "%27", "'"), raw) }) {
				l.t.Errorf("no request with %s arrived", raw)
			}
		}
	})
}

// A playbook without any retry and with five seconds of patience hunts; the first
// answer of Microsoft's is 429. Then it searches an error's text.
func TestPythonHuntsWithoutARetryOfItsOwn(t *testing.T) {
	t.Parallel()
	scripted(t, setup{}, "/api/advancedqueries", func(l *lab, b base) {
		var got struct {
			IDs   []string
			Error string
		}
		l.python(b, "hunt.py", object{"patience": 5}, &got)
		if len(got.IDs) != 3 || !strings.HasPrefix(got.Error, "400 BadRequest: ") {
			l.t.Errorf("hunt.py got %d rows and then %q, want 3 and 400 BadRequest", len(got.IDs), got.Error)
		}
	})
}

// The playbook goes on as it is when its API is being retired, and when it is gone:
// the proxy asks Microsoft Graph, and answers in the old shape.
func TestPythonHuntsOnWhenItsAPIIsRetired(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		hunting, throttled string
		fault              simulator.Fault // a region has one at a time
	}{
		{"graph", "/v1.0/security/runHuntingQuery", simulator.Fault{}},
		{"auto", "", simulator.Fault{Kind: simulator.FaultStatus, Status: http.StatusGone, Match: "/api/advancedqueries"}},
	} {
		t.Run("hunting: "+tc.hunting, func(t *testing.T) {
			scripted(t, setup{tenant: object{"hunting": tc.hunting}}, tc.throttled, func(l *lab, b base) {
				if tc.throttled == "" {
					l.fault(tc.fault)
				}
				var got struct {
					IDs   []string
					Error string
				}
				l.python(b, "hunt.py", nil, &got)
				if len(got.IDs) != 3 || !strings.HasPrefix(got.Error, "400 ") || !strings.Contains(got.Error, "frobnicate") {
					l.t.Errorf("hunt.py got %d rows and then %q, want 3 and a 400 that tells what is wrong", len(got.IDs), got.Error)
				}
				if n := len(slices.DeleteFunc(l.records(), func(r record) bool { return r.Operation != "hunting.runMDE" || r.SentAs != "graph.hunting.run" })); n != 2 {
					l.t.Errorf("%d records of hunting tell that Graph was asked, want 2", n)
				}
			})
		})
	}
}

// responding is a lab whose clients may collect and run things.
var responding = setup{
	permissions: map[string][]string{"mde": {"Machine.CollectForensics", "Machine.LiveResponse", "Library.Manage"}},
	allow:       []string{"read", "hunt", "download", "libraryfiles.*", "machines.collectInvestigationPackage", "machines.runliveresponse"},
	downloads:   true,
}

// A responder uploads a script to the library, runs it on a machine under /API/, and
// reads the result through the proxy's download link.
func TestPythonRunsAScriptOnAMachine(t *testing.T) {
	t.Parallel()
	scripted(t, responding, "/api/machineactions", func(l *lab, b base) {
		var got struct {
			SHA256, Status, Link, Said string
			Started, Deleted           int
		}
		l.python(b, "respond.py", nil, &got)
		content := strings.Repeat("\xef\xbb\xbfGet-Process\r\n--not a boundary--\r\n", 20000)
		sum := sha256.Sum256([]byte(content))
		if got.SHA256 != hex.EncodeToString(sum[:]) {
			l.t.Errorf("the file arrived with the hash %s, want %x", got.SHA256, sum)
		}
		if got.Started != http.StatusCreated || got.Status != "Succeeded" || got.Said != "look around.ps1" || got.Deleted != http.StatusNoContent {
			l.t.Errorf("the story went %+v", got)
		}
		l.downloaded(b, got.Link)
	})
}

// A responder collects a package and downloads it, in two parts because the
// connection ends in the middle.
func TestPythonResumesTheDownloadOfAPackage(t *testing.T) {
	t.Parallel()
	scripted(t, responding, "/api/machineactions", func(l *lab, b base) {
		var got struct {
			Link, Name string
			Broken     *string
			Parts      int
			Whole, Got int
			Files      []string
		}
		l.python(b, "package.py", nil, &got)
		if got.Parts != http.StatusPartialContent || got.Whole != got.Got || got.Broken != nil || len(got.Files) == 0 || !strings.Contains(got.Name, "attachment") {
			l.t.Errorf("the download went %+v", got)
		}
		l.downloaded(b, got.Link)
	})
}

// An asset inventory downloads the files of an export.
func TestPythonDownloadsTheFilesOfAnExport(t *testing.T) {
	t.Parallel()
	scripted(t, responding, "/api/machines/SoftwareInventoryExport", func(l *lab, b base) {
		var got struct {
			Links []string
			Rows  int
		}
		l.python(b, "export.py", nil, &got)
		if got.Rows == 0 {
			l.t.Error("the export has no rows")
		}
		l.downloaded(b, got.Links...)
	})
}

// Where the operator left download links alone they lead to storage, as they came,
// and scripts fetch them there.
func TestPythonDownloadsFromStorageWhereLinksAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := responding
	s.downloads = false
	l := newLab(t, s)
	var got struct {
		Link       string
		Parts      int
		Whole, Got int
		Broken     *string
	}
	direct := bases[0]
	direct.env = func(l *lab) []string { return []string{"REQUESTS_CA_BUNDLE=" + filepath.Join(l.dir, "simulator.pem")} }
	l.python(direct, "package.py", nil, &got)
	if !strings.HasPrefix(got.Link, l.sim.BlobURL()+"/") || got.Parts != http.StatusPartialContent || got.Whole != got.Got || got.Broken != nil {
		t.Errorf("the download went %+v", got)
	}
	l.noSecretIn(toolSecret, toolID, "sig=")
	l.onlyOwnLogins()
}

// downloaded checks that links lead through the proxy, that the audit tells which
// files were fetched, and that what grants the download stands nowhere.
func (l *lab) downloaded(b base, links ...string) {
	l.t.Helper()
	if len(links) == 0 {
		l.t.Error("there is no link")
	}
	var sealed []string
	for _, link := range links {
		rest, ok := strings.CutPrefix(link, b.api(l)+"/blob/")
		if !ok {
			l.t.Errorf("the link %s does not lead through the proxy at %s", link, b.api(l))
			continue
		}
		sealed = append(sealed, rest)
	}
	l.noSecretIn(append(sealed, "sig=")...)
	var files []string
	for _, r := range l.records() {
		if r.File != "" {
			files = append(files, r.File)
			if r.Path != "/blob/{sealed}" || r.Client != "local" || r.Operation == "" {
				l.t.Errorf("the record of a download is %+v", r)
			}
		}
	}
	if len(files) < len(links) {
		l.t.Errorf("the audit names %d files, want %d: %q", len(files), len(links), files)
	}
}
