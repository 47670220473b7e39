package integration

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
	"defender-proxy/policy"
)

// Every operation of the catalog that reads is asked for, with ids that earlier
// answers gave, as a script would find them. Where the demo tenant's token
// permits it Microsoft's side answers; where not, the caller is told which
// permission is missing and where to get it, and nothing was sent.
func TestEveryReadOperationAnswersOrNamesThePermissionThatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	catalog, err := policy.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	held := simulator.DefaultTenant().Apps[0].Permissions
	find := newFinder(w)

	permitted, missing := 0, 0
	for _, op := range catalog.Operations() {
		if op.Class != policy.ClassRead && op.Class != policy.ClassHunt {
			continue
		}
		path, body := find.request(op)
		before := len(w.upstream())
		a := w.do(op.Method, path, body)
		arrived := w.upstream()[before:]
		if slices.ContainsFunc(op.Application, func(p policy.Permission) bool { return slices.Contains(held[string(op.Service)], string(p)) }) {
			permitted++
			if a.status != http.StatusOK || a.ours() || a.err != nil {
				t.Errorf("%s: %s %s: %v", op.ID, op.Method, path, a)
			}
			if len(arrived) != 1 || arrived[0].Operation != op.ID || arrived[0].Status != http.StatusOK {
				t.Errorf("%s: arrived %+v", op.ID, arrived)
			}
			continue
		}
		missing++
		code, message := a.refused()
		if a.status != http.StatusForbidden || code != "MissingPermission" || !a.ours() || !strings.Contains(message, string(op.Application[0])) ||
			!strings.Contains(message, "https://entra.microsoft.com/") {
			t.Errorf("%s: %s %s: %v", op.ID, op.Method, path, a)
		}
		if len(arrived) != 0 {
			t.Errorf("%s was refused, and arrived: %+v", op.ID, arrived)
		}
	}
	if permitted < 70 || missing == 0 {
		t.Errorf("%d operations were permitted and %d were not: the story has lost its point", permitted, missing)
	}
}

// finder turns templates of the catalog into requests.
type finder struct {
	w *world
	// ids are by the beginning of the template, in lower case.
	ids map[string]string
}

func newFinder(w *world) *finder {
	w.t.Helper()
	f := &finder{w: w, ids: make(map[string]string)}
	alert := f.first("/api/alerts", "")
	id := alert["id"].(string)
	f.ids["/api/alerts/"] = id
	f.ids["/v1.0/security/alerts_v2/"] = id
	f.ids["/api/investigations/"] = f.first("/api/investigations", "")["id"].(string)
	f.ids["/api/domains/"] = f.first("/api/alerts/"+id+"/domains", "")["host"].(string)
	f.ids["/api/ips/"] = f.first("/api/alerts/"+id+"/ips", "")["id"].(string)
	f.ids["/api/files/"] = f.first("/api/alerts/"+id+"/files", "")["sha1"].(string)
	f.ids["/api/users/"] = alert["relatedUser"].(map[string]any)["userName"].(string)
	for path, field := range map[string]string{
		"/api/machines": "id", "/api/machineactions": "id", "/api/recommendations": "id", "/api/remediationTasks": "id",
		"/api/Software": "id", "/api/vulnerabilities": "id", "/api/DeviceAuthenticatedScanAgents": "id", "/v1.0/security/incidents": "id",
	} {
		f.ids[strings.ToLower(path)+"/"] = f.first(path, "")[field].(string)
	}
	f.ids["/api/indicators/"] = "1000" // the application may not list them
	f.ids["/api/incidents/"] = f.ids["/v1.0/security/incidents/"]
	return f
}

// first is the first row of a collection.
func (f *finder) first(path, query string) map[string]any {
	f.w.t.Helper()
	a := f.w.get(path + query)
	var body struct{ Value []map[string]any }
	if err := json.Unmarshal(a.body, &body); err != nil || a.status != http.StatusOK || len(body.Value) == 0 {
		f.w.t.Fatalf("%s has no row: %v", path, a)
	}
	return body.Value[0]
}

var placeholder = regexp.MustCompile(`\{[A-Za-z]+\}`)

// request is one that the operation answers with 200.
func (f *finder) request(op *policy.Operation) (path, body string) {
	f.w.t.Helper()
	machine := func() map[string]any { return f.first("/api/machines", "") }
	switch op.ID {
	case "machines.find":
		m := machine()
		return "/api/machines/find(timestamp=" + m["lastSeen"].(string) + ",key=" + m["lastIpAddress"].(string) + ")", ""
	case "machines.findbyip":
		m := machine()
		return "/api/machines/findbyip(ip='" + m["lastIpAddress"].(string) + "',timestamp=" + m["lastSeen"].(string) + ")", ""
	case "machines.findbytag":
		return op.Path + "?tag=a&useStartsWithFilter=true", ""
	case "machines.softwareVulnerabilityChangesByMachine":
		return op.Path + "?pageSize=10&sinceTime=" + time.Now().Add(-24*time.Hour).UTC().Format(time.RFC3339), ""
	case "deviceAuthenticatedScanDefinitions.getScanHistoryByScanDefinitionId":
		return op.Path, `{"ScanDefinitionIds":["` + f.first("/api/DeviceAuthenticatedScanDefinitions", "")["id"].(string) + `"]}`
	case "deviceAuthenticatedScanDefinitions.getScanHistoryBySessionId":
		_, list := f.request(&policy.Operation{ID: "deviceAuthenticatedScanDefinitions.getScanHistoryByScanDefinitionId"})
		a := f.w.do(http.MethodPost, "/api/DeviceAuthenticatedScanDefinitions/GetScanHistoryByScanDefinitionId", list)
		var history struct{ Value []struct{ SessionID string } }
		if err := json.Unmarshal(a.body, &history); err != nil || len(history.Value) == 0 {
			f.w.t.Fatalf("no scan history: %v", a)
		}
		return op.Path, `{"SessionIds":["` + history.Value[0].SessionID + `"]}`
	}
	if op.ID == "hunting.runMDEByKey" {
		return op.Path + "?key=DeviceInfo%20%7C%20take%203", ""
	}
	if op.Class == policy.ClassHunt {
		return op.Path, `{"Query":"DeviceInfo | take 3"}`
	}
	path = op.Path
	if at := placeholder.FindStringIndex(path); at != nil {
		id, ok := f.ids[strings.ToLower(path[:at[0]])]
		if !ok {
			f.w.t.Fatalf("%s: nobody knows an id for %s", op.ID, op.Path)
		}
		path = path[:at[0]] + url.PathEscape(id) + path[at[1]:]
	}
	if strings.HasSuffix(path, "ByMachine") {
		path += "?pageSize=10"
	}
	return path, ""
}
