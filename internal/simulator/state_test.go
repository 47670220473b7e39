package simulator

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// timed is a simulator whose clock stands still.
func timed(t *testing.T, cfg Config) (*peer, *clock) {
	t.Helper()
	c := &clock{t: time.Now()}
	cfg.Now, cfg.ActionTime = c.now, time.Minute
	return start(t, cfg), c
}

func TestAnActionRunsItsCourse(t *testing.T) {
	p, clock := timed(t, quick())
	token := p.token("mde")
	eu := p.Endpoint("eu")
	id := p.get("mde", "/api/machines?$top=1").rows(t)[0]["id"].(string)
	collect := func() answer {
		return p.do("POST", eu+"/api/machines/"+id+"/collectInvestigationPackage", token, `{"Comment":"look"}`)
	}
	a := collect()
	action, _ := a.object(t)["id"].(string)
	if a.status != 201 || a.object(t)["status"] != "Pending" || a.header.Get("Location") != "https://api.securitycenter.microsoft.com/api/machineactions/"+action {
		t.Fatalf("got %d %s, Location %s", a.status, a.body, a.header.Get("Location"))
	}
	if again := collect(); again.status != 400 || again.code() != "ActiveRequestAlreadyExists" {
		t.Errorf("a second one: got %d %s", again.status, again.body)
	}
	status := func() any {
		return p.do("GET", eu+"/api/machineactions/"+action, token, "").object(t)["status"]
	}
	link := func() answer { return p.do("GET", eu+"/api/machineactions/"+action+"/getPackageUri", token, "") }
	clock.advance(90 * time.Second)
	if got := status(); got != "InProgress" {
		t.Errorf("after 90 s it is %v", got)
	}
	if a := link(); a.status != 404 {
		t.Errorf("the package before the end: got %d %s", a.status, a.body)
	}
	clock.advance(time.Minute)
	if got := status(); got != "Succeeded" {
		t.Errorf("after 150 s it is %v", got)
	}
	url, _ := link().object(t)["value"].(string)
	if !strings.HasPrefix(url, p.BlobURL()+"/packages/") {
		t.Fatalf("got link %q", url)
	}
	got := p.do("GET", url, "", "")
	z, err := zip.NewReader(bytes.NewReader(got.body), int64(len(got.body)))
	if err != nil || len(z.File) != 4 {
		t.Errorf("the package is no archive: %v", err)
	}
	clock.advance(11 * time.Minute)
	if a := p.do("GET", url, "", ""); a.status != 403 {
		t.Errorf("an expired link: got %d", a.status)
	}
	filtered := p.do("GET", eu+"/api/machineactions?$filter=machineId%20eq%20'"+id+"'%20and%20status%20eq%20'Succeeded'%20and%20type%20eq%20'CollectInvestigationPackage'", token, "")
	if !slices.ContainsFunc(filtered.rows(t), func(r map[string]any) bool { return r["id"] == action }) {
		t.Errorf("the list lacks it: %s", filtered.body)
	}
}

func TestACancelledActionStaysCancelled(t *testing.T) {
	p, clock := timed(t, quick())
	token := p.token("mde")
	id := p.get("mde", "/api/machines?$top=1").rows(t)[0]["id"].(string)
	action := p.do("POST", p.Endpoint("eu")+"/api/machines/"+id+"/isolate", token, `{"Comment":"x"}`).object(t)["id"].(string)
	cancel := func() answer {
		return p.do("POST", p.Endpoint("us")+"/api/machineactions/"+action+"/cancel", token, `{"Comment":"never mind"}`)
	}
	if a := cancel(); a.status != 200 || a.object(t)["status"] != "Cancelled" || a.object(t)["cancellationComment"] != "never mind" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	clock.advance(10 * time.Minute)
	if a := cancel(); a.status != 400 {
		t.Errorf("cancelled twice: got %d %s", a.status, a.body)
	}
	if a := p.do("GET", p.Endpoint("uk")+"/api/machineactions/"+action, token, ""); a.object(t)["status"] != "Cancelled" {
		t.Errorf("later it is %s", a.body)
	}
}

func TestLiveResponseLeavesATranscript(t *testing.T) {
	p, clock := timed(t, quick())
	token := p.token("mde")
	id := p.get("mde", "/api/machines?$top=1").rows(t)[0]["id"].(string)
	a := p.do("POST", p.Endpoint("eu")+"/API/machines/"+id+"/runliveresponse", token,
		`{"Comment":"x","Commands":[{"type":"RunScript","params":[{"key":"ScriptName","value":"triage.sh"},{"key":"Args","value":"-v"}]}]}`)
	action := a.object(t)["id"].(string)
	path := p.Endpoint("eu") + "/api/machineactions/" + action + "/GetLiveResponseResultDownloadLink(index=0)"
	if a := p.do("GET", path, token, ""); a.status != 404 {
		t.Errorf("before the end: got %d", a.status)
	}
	clock.advance(3 * time.Minute)
	url, _ := p.do("GET", path, token, "").object(t)["value"].(string)
	out := p.do("GET", url, "", "").object(t)
	if out["script_name"] != "triage.sh" || out["exit_code"] != 0.0 {
		t.Errorf("got %v", out)
	}
	if a := p.do("GET", strings.Replace(path, "index=0", "index=1", 1), token, ""); a.status != 404 {
		t.Errorf("another command: got %d", a.status)
	}
}

func TestWritesAreReadBack(t *testing.T) {
	p := start(t, quick())
	token := p.token("mde")
	eu, us := p.Endpoint("eu"), p.Endpoint("us")
	alert := p.get("mde", "/api/alerts?$top=1&$filter=status%20ne%20'Resolved'").rows(t)[0]
	path := "/api/alerts/" + alert["id"].(string)

	p.do("PATCH", eu+path, token, `{"status":"Resolved","assignedTo":"me","classification":"FalsePositive","determination":"Clean","comment":"checked"}`)
	got := p.do("GET", us+path, token, "").object(t)
	if got["status"] != "Resolved" || got["assignedTo"] != "me" || got["classification"] != "FalsePositive" || got["resolvedTime"] == nil {
		t.Errorf("the alert is %v", got)
	}
	if c := got["comments"].([]any); len(c) != 1 || c[0].(map[string]any)["comment"] != "checked" || c[0].(map[string]any)["createdBy"] != DefaultClientID {
		t.Errorf("its comments are %v", c)
	}
	graph := p.get("graph", "/v1.0/security/alerts_v2/"+alert["id"].(string)).object(t)
	if graph["status"] != "resolved" || graph["classification"] != "falsePositive" {
		t.Errorf("Graph shows %v %v", graph["status"], graph["classification"])
	}

	machine := "/api/machines/" + alert["machineId"].(string)
	p.do("POST", eu+machine+"/tags", token, `{"Value":"it's hot","Action":"Add"}`)
	tagged := p.do("GET", us+"/api/machines?$filter=machineTags/any(tag:%20tag%20eq%20'it''s%20hot')", token, "").rows(t)
	if len(tagged) != 1 || tagged[0]["id"] != alert["machineId"] {
		t.Errorf("tagged are %v", tagged)
	}
	p.do("POST", eu+machine+"/tags", token, `{"Value":"it's hot","Action":"Remove"}`)
	if n := string(p.do("GET", us+"/api/machines/$count?$filter=machineTags/any(t:t%20eq%20'it''s%20hot')", token, "").body); n != "0" {
		t.Errorf("after removal %s machines have the tag", n)
	}

	ind := `{"indicatorValue":"bad.example","indicatorType":"DomainName","action":"Allowed","title":"%s","description":"d"}`
	first := p.do("POST", eu+"/api/indicators", token, fmt.Sprintf(ind, "one")).object(t)
	second := p.do("POST", eu+"/api/indicators", token, fmt.Sprintf(ind, "two")).object(t)
	if first["id"] != second["id"] || second["title"] != "two" {
		t.Errorf("an indicator was not updated: %v then %v", first, second)
	}
	imported := p.do("POST", eu+"/api/indicators/import", token, `{"Indicators":[`+fmt.Sprintf(ind, "three")+`,{"indicatorValue":"x"}]}`).rows(t)
	if imported[0]["isFailed"] != false || imported[1]["isFailed"] != true || imported[1]["failureReason"] == nil {
		t.Errorf("the import tells %v", imported)
	}
	if a := p.do("DELETE", eu+"/api/indicators/"+first["id"].(string), token, ""); a.status != 204 {
		t.Errorf("delete: got %d %s", a.status, a.body)
	}
	if a := p.do("DELETE", eu+"/api/indicators/"+first["id"].(string), token, ""); a.status != 404 {
		t.Errorf("delete again: got %d %s", a.status, a.body)
	}

	event := `{"machineId":"` + alert["machineId"].(string) + `","severity":"High","title":"new","description":"d","recommendedAction":"r","eventTime":"2026-01-02T03:04:05Z","reportId":"1","category":"Exploit"}`
	one := p.do("POST", eu+"/api/alerts/CreateAlertByReference", token, event).object(t)
	two := p.do("POST", eu+"/api/alerts/CreateAlertByReference", token, event).object(t)
	if one["id"] != two["id"] || one["machineId"] != alert["machineId"] {
		t.Errorf("an alert was not merged: %v, %v", one["id"], two["id"])
	}
	incident := p.get("xdr", fmt.Sprintf("/api/incidents/%v", one["incidentId"])).object(t)
	if alerts := incident["alerts"].([]any); len(alerts) != 1 || alerts[0].(map[string]any)["alertId"] != one["id"] {
		t.Errorf("the incident of the new alert is %v", incident)
	}

	if err := p.Reset(); err != nil {
		t.Fatal(err)
	}
	if got := p.get("mde", path).object(t); got["status"] == "Resolved" {
		t.Error("after a reset the alert is still resolved")
	}
}

func TestAnApplicationWithoutTiReadWriteAllSeesItsOwnIndicators(t *testing.T) {
	cfg := quick()
	cfg.Tenants[0].Apps = append(cfg.Tenants[0].Apps, App{
		ClientID: "44444444-4444-4444-4444-444444444444", Secrets: []string{"s"}, Permissions: map[string][]string{"mde": {"Ti.ReadWrite"}},
	})
	p := start(t, cfg)
	form := secretForm(1, "client_id", "44444444-4444-4444-4444-444444444444", "client_secret", "s")
	token := p.form(tenantPath+"/oauth2/token", form).object(t)["access_token"].(string)
	if rows := p.do("GET", p.Endpoint("eu")+"/api/indicators", token, "").rows(t); len(rows) != 0 {
		t.Errorf("it sees %d indicators of others", len(rows))
	}
	p.do("POST", p.Endpoint("eu")+"/api/indicators", token, `{"indicatorValue":"own.example","indicatorType":"DomainName","action":"Allowed","title":"t","description":"d"}`)
	if rows := p.do("GET", p.Endpoint("eu")+"/api/indicators", token, "").rows(t); len(rows) != 1 {
		t.Errorf("it sees %d indicators, want its own", len(rows))
	}
	if a := p.do("DELETE", p.Endpoint("eu")+"/api/indicators/1000", token, ""); a.status != 404 {
		t.Errorf("deleting another's: got %d", a.status)
	}
}

func TestExportFilesAreGzipOfTheRowsThatPagesHave(t *testing.T) {
	p, clock := timed(t, quick())
	token := p.token("mde")
	doc := p.do("GET", p.Endpoint("eu")+"/api/machines/SoftwareInventoryExport", token, "").object(t)
	var lines []string
	links := doc["exportFiles"].([]any)
	for _, link := range links {
		a := p.do("GET", link.(string), "", "")
		z, err := gzip.NewReader(bytes.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(strings.TrimSpace(string(text)), "\n")...)
	}
	rows := p.do("GET", p.Endpoint("eu")+"/api/machines/SoftwareInventoryByMachine", token, "").rows(t)
	if len(lines) != len(rows) || len(rows) == 0 {
		t.Errorf("%d lines in files, %d rows in pages", len(lines), len(rows))
	}
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Fatalf("not JSON: %s", l)
		}
	}
	link := links[0].(string)
	whole := p.do("GET", link, "", "").body
	r, err := http.NewRequest("GET", link, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Range", "bytes=10-19")
	part, err := p.send(r)
	if err != nil || part.status != 206 || !bytes.Equal(part.body, whole[10:20]) {
		t.Errorf("a range: got %d with %d bytes, %v", part.status, len(part.body), err)
	}
	for name, change := range map[string]func(string) string{
		"another signature": func(s string) string { return strings.Replace(s, "sig=", "sig=A", 1) },
		"no signature":      func(s string) string { return s[:strings.Index(s, "&sig=")] },
		"another expiry":    func(s string) string { return strings.Replace(s, "&se=2", "&se=3", 1) },
		"another file":      func(s string) string { return strings.Replace(s, "part-00000", "part-00001", 1) },
	} {
		a := p.do("GET", change(link), "", "")
		if a.status != 403 || !strings.Contains(string(a.body), "<Code>AuthenticationFailed</Code>") {
			t.Errorf("%s: got %d %s", name, a.status, a.body)
		}
	}
	if a := p.do("GET", link, token, ""); a.status != 400 || !strings.Contains(string(a.body), "InvalidAuthenticationInfo") {
		t.Errorf("a link with a token: got %d %s", a.status, a.body)
	}
	clock.advance(61 * time.Minute)
	if a := p.do("GET", link, "", ""); a.status != 403 || !strings.Contains(string(a.body), "time frame") {
		t.Errorf("an expired link: got %d %s", a.status, a.body)
	}
	if a := p.do("GET", p.blobLink("exports/"+DefaultTenantID+"/machines.softwareInventoryExport/part-00009.json.gz", clock.now(), time.Hour), "", ""); a.status != 404 {
		t.Errorf("a file that is not there: got %d %s", a.status, a.body)
	}
}

func TestQuotasAreThoseOfTheDocumentation(t *testing.T) {
	cfg := quick()
	cfg.Quotas = true
	p, clock := timed(t, cfg)
	mde, xdr := p.token("mde"), p.token("xdr")
	eu, us := p.Endpoint("eu"), p.Endpoint("us")
	links := "/api/machines/SoftwareInventoryExport" // 5 a minute, 20 an hour
	var last answer
	for i := range 6 {
		last = p.do("GET", []string{eu, us}[i%2]+links, mde, "")
	}
	if last.status != 429 || last.code() != "TooManyRequests" || last.header.Get("Retry-After") != "60" {
		t.Errorf("the sixth: got %d %s, Retry-After %s", last.status, last.body, last.header.Get("Retry-After"))
	}
	if a := p.do("GET", eu+"/api/alerts?$top=1", mde, ""); a.status != 200 {
		t.Errorf("another operation: got %d", a.status)
	}
	clock.advance(61 * time.Second)
	if a := p.do("GET", eu+links, mde, ""); a.status != 200 {
		t.Errorf("a minute later: got %d", a.status)
	}
	for range 50 {
		last = p.do("GET", eu+"/api/incidents?$top=1", xdr, "")
	}
	if last.status != 200 {
		t.Errorf("the fiftieth incident call: got %d", last.status)
	}
	last = p.do("GET", eu+"/api/incidents/1", xdr, "")
	if last.status != 429 || last.header.Get("Retry-After") != "" || !strings.Contains(string(last.body), "50 calls per minute. You can send requests again in 60 seconds") {
		t.Errorf("the fifty-first, of another operation: got %d %s %v", last.status, last.body, last.header)
	}
	if a := p.do("HEAD", eu+"/api/", "", ""); a.status != 401 {
		t.Errorf("a probe: got %d", a.status)
	}
}
