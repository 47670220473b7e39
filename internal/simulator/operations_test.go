package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"defender-proxy/policy"
)

// example is a request for an operation, and what the documentation says of
// its answer.
type example struct {
	path   string
	body   string
	status int // 200 when 0
	// members must be there: in each row of value for a collection (with at
	// least one row), else in the object.
	rows    bool
	members string
}

const (
	alertMembers  = "id incidentId severity status machineId computerDnsName evidence mitreTechniques relatedUser comments"
	deviceMembers = "id computerDnsName osPlatform lastSeen healthStatus riskScore exposureLevel machineTags ipAddresses onboardingStatus"
	actionMembers = "id type requestor requestorComment status machineId creationDateTimeUtc"
	softMembers   = "id name vendor weaknesses exposedMachines impactScore"
	cveMembers    = "id name description severity cvssV3 exposedMachines publishedOn"
	refMembers    = "id computerDnsName osPlatform rbacGroupName"
	recoMembers   = "id productName recommendationName severityScore remediationType status"
	taskMembers   = "id title createdOn status dueOn fixedDevices targetDevices"
	indMembers    = "id indicatorValue indicatorType action title createdBy"
	fileMembers   = "sha1 sha256 size determinationType"
	scanMembers   = "id scanType scanName isActive target targetType scannerAgent"
)

// examples has one for each operation of the catalog.
func examples(p *peer) map[string]example {
	f := p.directory.tenant(DefaultTenantID).fleet()
	a := f.alerts[0]
	m := f.machines[a.links.machine]
	fileOf, domainOf, ipOf, userOf := f.files[a.links.file], f.domains[a.links.domain], f.ips[a.links.ip], f.users[a.links.user]
	weak := slices.IndexFunc(f.vulns, func(v vulnerability) bool { return v.ExposedMachines > 0 })
	cve := f.vulns[weak].ID
	soft := f.softwares[f.vulns[weak].software].ID
	windows := f.machines[0].ID
	seen := m.LastSeen.Format(time.RFC3339)
	comment := `{"Comment":"because"}`
	machine, al := "/api/machines/"+m.ID, "/api/alerts/"+a.ID
	act := func(name, body string) example {
		return example{path: "/api/machines/" + windows + "/" + name, body: body, status: 201, members: actionMembers}
	}
	export := func(path string) example { return example{path: path, members: "exportFiles generatedTime"} }
	page := func(path, members string) example {
		return example{path: path, rows: true, members: "deviceId " + members}
	}
	// An action of each kind that the reads below need, finished long ago.
	f.actions = append(f.actions,
		action{begun: p.now().Add(-time.Hour), machineAction: machineAction{ID: "done-package", Type: "CollectInvestigationPackage", MachineID: m.ID}},
		action{begun: p.now().Add(-time.Hour), machineAction: machineAction{ID: "done-session", Type: "LiveResponse", MachineID: m.ID, Commands: []commandResult{{Command: command{Type: "RunScript"}}}}},
		action{begun: p.now(), machineAction: machineAction{ID: "running", Type: "Other", MachineID: m.ID, Commands: []commandResult{}}},
	)
	created := `{"machineId":"` + m.ID + `","severity":"Low","title":"t","description":"d","recommendedAction":"r","eventTime":"2026-01-02T03:04:05Z","reportId":"20776","category":"Exploit"}`
	ind := `{"indicatorValue":"220e7d15b011d7fac48f2bd61114db1022197f7f","indicatorType":"FileSha1","action":"Audit","generateAlert":true,"title":"t","description":"d"}`
	scan := `{"scanType":"Windows","scanName":"s","isActive":true,"target":"10.0.0.1","targetType":"Ip","intervalInHours":1,"scannerAgent":{"machineId":"` + f.agents[0].MachineID + `"}}`
	gAlert, gIncident := "id incidentId status severity title createdDateTime evidence", "id displayName status severity createdDateTime customTags"
	query := `{"Query":"DeviceInfo | take 3"}`
	return map[string]example{
		"hunting.runMDE":                                 {path: "/api/advancedqueries/run", body: query, members: "Schema Results"},
		"hunting.runMDEByKey":                            {path: "/api/advancedqueries?key=" + url.QueryEscape("DeviceInfo | limit 2"), members: "Schema Results"},
		"hunting.runXDR":                                 {path: "/api/advancedhunting/run", body: query, members: "Stats Schema Results"},
		"graph.hunting.run":                              {path: "/v1.0/security/runHuntingQuery", body: query, members: "@odata.context schema results"},
		"alerts.list":                                    {path: "/api/alerts", rows: true, members: alertMembers},
		"alerts.batchUpdate":                             {path: "/api/alerts/batchUpdate", body: `{"alertIds":["` + a.ID + `"],"status":"InProgress"}`},
		"alerts.createAlertByReference":                  {path: "/api/alerts/CreateAlertByReference", body: created, members: alertMembers},
		"alerts.get":                                     {path: al, members: alertMembers},
		"alerts.update":                                  {path: al, body: `{"status":"Resolved","classification":"FalsePositive"}`, members: alertMembers},
		"alerts.domains":                                 {path: al + "/domains", rows: true, members: "host"},
		"alerts.files":                                   {path: al + "/files", rows: true, members: fileMembers},
		"alerts.ips":                                     {path: al + "/ips", rows: true, members: "id"},
		"alerts.machine":                                 {path: al + "/machine", members: deviceMembers},
		"alerts.user":                                    {path: al + "/user", members: "id accountName accountDomain logonTypes"},
		"baselineConfigurations.list":                    {path: "/api/baselineConfigurations", rows: true, members: "id name category complianceLevels"},
		"baselineProfiles.list":                          {path: "/api/baselineProfiles", rows: true, members: "id name operatingSystem settingsNumber"},
		"browserextensions.permissionsinfo":              {path: "/api/browserextensions/permissionsinfo", rows: true, members: "key permissionName description"},
		"configurationScore.list":                        {path: "/api/configurationScore", members: "time score"},
		"deviceAuthenticatedScanAgents.list":             {path: "/api/DeviceAuthenticatedScanAgents", rows: true, members: "id machineId machineName lastSeen"},
		"deviceAuthenticatedScanAgents.get":              {path: "/api/DeviceAuthenticatedScanAgents/" + f.agents[0].ID, members: "id machineId machineName lastSeen"},
		"deviceAuthenticatedScanDefinitions.list":        {path: "/api/DeviceAuthenticatedScanDefinitions", rows: true, members: scanMembers},
		"deviceAuthenticatedScanDefinitions.create":      {path: "/api/DeviceAuthenticatedScanDefinitions", body: scan, members: scanMembers},
		"deviceAuthenticatedScanDefinitions.batchDelete": {path: "/api/DeviceAuthenticatedScanDefinitions/BatchDelete", body: `{"ScanDefinitionIds":["` + f.scans[1].ID + `"]}`, status: 204},
		"deviceAuthenticatedScanDefinitions.update":      {path: "/api/DeviceAuthenticatedScanDefinitions/" + f.scans[0].ID, body: `{"scanName":"renamed","isActive":false}`, members: scanMembers},
		"deviceAuthenticatedScanDefinitions.getScanHistoryByScanDefinitionId": {path: "/api/DeviceAuthenticatedScanDefinitions/GetScanHistoryByScanDefinitionId",
			body: `{"ScanDefinitionIds":["` + f.scans[0].ID + `"]}`, rows: true, members: "scanDefinitionId sessionId scanStatus"},
		"deviceAuthenticatedScanDefinitions.getScanHistoryBySessionId": {path: "/api/DeviceAuthenticatedScanDefinitions/GetScanHistoryBySessionId",
			body: `{"SessionIds":["` + f.sessions[0].SessionID + `"]}`, rows: true, members: "scanDefinitionId sessionId scanStatus"},
		"deviceavinfo.list":             {path: "/api/deviceavinfo", rows: true, members: "machineId computerDnsName avMode avEngineVersion quickScanResult"},
		"domains.alerts":                {path: "/api/domains/" + domainOf + "/alerts", rows: true, members: alertMembers},
		"domains.machines":              {path: "/api/domains/" + domainOf + "/machines", rows: true, members: deviceMembers},
		"domains.stats":                 {path: "/api/domains/" + domainOf + "/stats?lookBackHours=24", members: "host orgPrevalence organizationPrevalence orgFirstSeen"},
		"exposureScore.list":            {path: "/api/exposureScore", members: "time score"},
		"exposureScore.byMachineGroups": {path: "/api/exposureScore/ByMachineGroups", rows: true, members: "time score rbacGroupName"},
		"files.get":                     {path: "/api/files/" + fileOf.SHA256, members: fileMembers},
		"files.alerts":                  {path: "/api/files/" + fileOf.SHA1 + "/alerts", rows: true, members: alertMembers},
		"files.machines":                {path: "/api/files/" + fileOf.SHA1 + "/machines", rows: true, members: deviceMembers},
		"files.stats":                   {path: "/api/files/" + fileOf.SHA1 + "/stats", members: "sha1 organizationPrevalence globallyPrevalence topFileNames"},
		"indicators.list":               {path: "/api/indicators", rows: true, members: indMembers},
		"indicators.get":                {path: "/api/indicators/1003", members: indMembers},
		"indicators.create":             {path: "/api/indicators", body: ind, members: indMembers},
		"indicators.batchDelete":        {path: "/api/indicators/BatchDelete", body: `{"IndicatorIds":["1000","1001"]}`, status: 204},
		"indicators.import":             {path: "/api/indicators/import", body: `{"Indicators":[` + ind + `]}`, rows: true, members: "id indicator isFailed failureReason"},
		"indicators.delete":             {path: "/api/indicators/1002", status: 204},
		"investigations.list":           {path: "/api/investigations", rows: true, members: "id startTime state machineId triggeringAlertId"},
		"investigations.get":            {path: "/api/investigations/" + a.ID, members: "id startTime state machineId triggeringAlertId"},
		"ips.alerts":                    {path: "/api/ips/" + ipOf + "/alerts", rows: true, members: alertMembers},
		"ips.stats":                     {path: "/api/ips/" + ipOf + "/stats", members: "ipAddress organizationPrevalence orgFirstSeen orgLastSeen"},
		"libraryfiles.list":             {path: "/api/libraryfiles", rows: true, members: "fileName sha256 creationTime hasParameters"},
		"libraryfiles.create":           {path: "/api/libraryfiles", body: "multipart", members: "fileName sha256 creationTime hasParameters"},
		"libraryfiles.delete":           {path: "/api/libraryfiles/list%20processes.ps1", status: 204},
		"machineactions.list":           {path: "/api/machineactions", rows: true, members: actionMembers},
		"machineactions.get":            {path: "/api/machineactions/" + f.actions[0].ID, members: actionMembers},
		"machineactions.cancel":         {path: "/api/machineactions/running/cancel", body: comment, members: actionMembers + " cancellationComment"},
		"machineactions.getPackageUri":  {path: "/api/machineactions/done-package/GetPackageUri", members: "@odata.context value"},
		"machineactions.getLiveResponseResultDownloadLink": {path: "/api/machineactions/done-session/GetLiveResponseResultDownloadLink(index=0)", members: "@odata.context value"},
		"machines.list": {path: "/api/machines", rows: true, members: deviceMembers},
		"machines.addOrRemoveTagForMultipleMachines":       {path: "/api/machines/AddOrRemoveTagForMultipleMachines", body: `{"Value":"t","Action":"Add","MachineIds":["` + m.ID + `"]}`, rows: true, members: deviceMembers},
		"machines.baselineComplianceAssessmentByMachine":   page("/api/machines/BaselineComplianceAssessmentByMachine", "configurationId isCompliant"),
		"machines.baselineComplianceAssessmentExport":      export("/api/machines/BaselineComplianceAssessmentExport"),
		"machines.browserExtensionsInventoryByMachine":     page("/api/Machines/BrowserExtensionsInventoryByMachine", "extensionId browserName"),
		"machines.browserextensionsinventoryExport":        export("/api/machines/browserextensionsinventoryExport?sasValidHours=2"),
		"machines.certificateAssessmentByMachine":          page("/api/machines/certificateAssessmentByMachine", "thumbprint issuedTo"),
		"machines.certificateAssessmentExport":             export("/api/machines/certificateAssessmentExport"),
		"machines.find":                                    {path: "/api/machines/find(timestamp=" + seen + ",key=" + m.LastIPAddress + ")", rows: true, members: deviceMembers},
		"machines.findbyip":                                {path: "/api/machines/findbyip(ip='" + m.LastIPAddress + "',timestamp=" + seen + ")", rows: true, members: deviceMembers},
		"machines.findbytag":                               {path: "/api/machines/findbytag?tag=" + url.QueryEscape(firstTag(f)[:2]) + "&useStartsWithFilter=true", rows: true, members: deviceMembers},
		"machines.hardwareFirmwareInventoryByMachine":      page("/api/machines/HardwareFirmwareInventoryByMachine", "componentType"),
		"machines.hardwareFirmwareInventoryExport":         export("/api/machines/HardwareFirmwareInventoryExport"),
		"machines.infoGatheringExport":                     export("/api/machines/InfoGatheringExport"),
		"machines.secureConfigurationsAssessmentByMachine": page("/api/machines/SecureConfigurationsAssessmentByMachine", "configurationId isApplicable"),
		"machines.secureConfigurationsAssessmentExport":    export("/api/machines/SecureConfigurationsAssessmentExport"),
		"machines.softwareInventoryByMachine":              page("/api/machines/SoftwareInventoryByMachine", "softwareName endOfSupportStatus"),
		"machines.softwareInventoryExport":                 export("/api/machines/SoftwareInventoryExport"),
		"machines.softwareInventoryNonCpeExport":           export("/api/machines/SoftwareInventoryNonCpeExport"),
		"machines.softwareInventoryNoProductCodeByMachine": page("/api/machines/SoftwareInventoryNoProductCodeByMachine", "softwareName"),
		"machines.softwareVulnerabilitiesByMachine":        page("/api/machines/SoftwareVulnerabilitiesByMachine", "cveId cvssScore"),
		"machines.softwareVulnerabilitiesExport":           export("/api/machines/SoftwareVulnerabilitiesExport"),
		"machines.softwareVulnerabilityChangesByMachine":   page("/api/machines/SoftwareVulnerabilityChangesByMachine?sinceTime="+p.now().Add(-5*day).UTC().Format(time.RFC3339), "status eventTimestamp"),
		"machines.get":                         {path: machine, members: deviceMembers},
		"machines.update":                      {path: machine, body: `{"deviceValue":"High","machineTags":["x"]}`, members: deviceMembers},
		"machines.alerts":                      {path: machine + "/alerts", rows: true, members: alertMembers},
		"machines.collectInvestigationPackage": act("collectInvestigationPackage", comment),
		"machines.getmissingkbs":               {path: machine + "/getmissingkbs", rows: true, members: "id name productsNames url"},
		"machines.isolate":                     act("isolate", `{"Comment":"c","IsolationType":"Selective"}`),
		"machines.logonusers":                  {path: machine + "/logonusers", rows: true, members: "id accountName"},
		"machines.offboard":                    act("offboard", comment),
		"machines.recommendations":             {path: machine + "/recommendations", rows: true, members: recoMembers},
		"machines.restrictCodeExecution":       act("restrictCodeExecution", comment),
		"machines.runAntiVirusScan":            act("runAntiVirusScan", `{"Comment":"c","ScanType":"Quick"}`),
		"machines.runliveresponse": {path: "/API/machines/" + windows + "/runliveresponse", status: 201, members: actionMembers + " commands",
			body: `{"Comment":"c","Commands":[{"type":"RunScript","params":[{"key":"ScriptName","value":"triage.sh"}]},{"type":"GetFile","params":[{"key":"Path","value":"/tmp/x"}]}]}`},
		"machines.setDeviceValue":                 {path: machine + "/setDeviceValue", body: `{"DeviceValue":"Low"}`, members: deviceMembers},
		"machines.software":                       {path: machine + "/software", rows: true, members: softMembers},
		"machines.startInvestigation":             {path: machine + "/startInvestigation", body: comment, status: 201, members: "id startTime state machineId"},
		"machines.stopAndQuarantineFile":          act("StopAndQuarantineFile", `{"Comment":"c","Sha1":"`+fileOf.SHA1+`"}`),
		"machines.tags":                           {path: machine + "/tags", body: `{"Value":"t2","Action":"Add"}`, members: deviceMembers},
		"machines.unisolate":                      act("unisolate", comment),
		"machines.unrestrictCodeExecution":        act("unrestrictCodeExecution", comment),
		"machines.vulnerabilities":                {path: "/api/machines/" + exposed(f) + "/vulnerabilities", rows: true, members: cveMembers},
		"recommendations.list":                    {path: "/api/recommendations", rows: true, members: recoMembers},
		"recommendations.get":                     {path: "/api/recommendations/va-_-" + soft, members: recoMembers},
		"recommendations.machineReferences":       {path: "/api/recommendations/va-_-" + soft + "/machineReferences", rows: true, members: refMembers},
		"recommendations.software":                {path: "/api/recommendations/va-_-" + soft + "/software", members: softMembers},
		"recommendations.vulnerabilities":         {path: "/api/recommendations/va-_-" + soft + "/vulnerabilities", rows: true, members: cveMembers},
		"remediationTasks.list":                   {path: "/api/remediationtasks/", rows: true, members: taskMembers},
		"remediationTasks.get":                    {path: "/api/remediationTasks/" + f.remediationTasks()[0].ID, members: taskMembers},
		"remediationTasks.machineReferences":      {path: "/api/remediationTasks/" + f.remediationTasks()[0].ID + "/machinereferences", rows: true, members: refMembers},
		"software.list":                           {path: "/api/Software", rows: true, members: softMembers},
		"software.get":                            {path: "/api/Software/" + soft, members: softMembers},
		"software.distributions":                  {path: "/api/Software/" + soft + "/distributions", rows: true, members: "version installations vulnerabilities"},
		"software.getmissingkbs":                  {path: "/api/Software/" + soft + "/getmissingkbs", rows: true, members: "id name productsNames url"},
		"software.machineReferences":              {path: "/api/Software/" + soft + "/machineReferences", rows: true, members: refMembers},
		"software.vulnerabilities":                {path: "/api/Software/" + soft + "/vulnerabilities", rows: true, members: cveMembers},
		"users.alerts":                            {path: "/api/users/" + userOf.AccountName + "/alerts", rows: true, members: alertMembers},
		"users.machines":                          {path: "/api/users/" + userOf.AccountName + "/machines", rows: true, members: deviceMembers},
		"vulnerabilities.list":                    {path: "/api/Vulnerabilities", rows: true, members: cveMembers},
		"vulnerabilities.machinesVulnerabilities": {path: "/api/vulnerabilities/machinesVulnerabilities", rows: true, members: "id cveId machineId productName severity"},
		"vulnerabilities.get":                     {path: "/api/vulnerabilities/" + cve, members: cveMembers},
		"vulnerabilities.machineReferences":       {path: "/api/vulnerabilities/" + cve + "/machineReferences", rows: true, members: refMembers},
		"incidents.list":                          {path: "/api/incidents", rows: true, members: "incidentId incidentName createdTime status severity alerts tags"},
		"incidents.get":                           {path: fmt.Sprintf("/api/incidents/%d", a.IncidentID), members: "incidentId incidentName createdTime status severity alerts"},
		"incidents.update":                        {path: fmt.Sprintf("/api/incidents/%d", a.IncidentID), body: `{"status":"Resolved","tags":["x"],"comment":"c"}`, members: "incidentId comments tags"},
		"graph.alerts.list":                       {path: "/v1.0/security/alerts_v2", rows: true, members: gAlert},
		"graph.alerts.get":                        {path: "/v1.0/security/alerts_v2/" + a.ID, members: gAlert},
		"graph.alerts.update":                     {path: "/v1.0/security/alerts_v2/" + a.ID, body: `{"status":"inProgress"}`, members: gAlert},
		"graph.incidents.list":                    {path: "/v1.0/security/incidents", rows: true, members: gIncident},
		"graph.incidents.get":                     {path: fmt.Sprintf("/v1.0/security/incidents/%d", a.IncidentID), members: gIncident},
		"graph.incidents.update":                  {path: fmt.Sprintf("/v1.0/security/incidents/%d", a.IncidentID), body: `{"status":"active","customTags":["y"]}`, members: gIncident},
	}
}

// firstTag is a tag that some machine has.
func firstTag(f *fleet) string {
	for _, m := range f.machines {
		if len(m.MachineTags) > 0 {
			return m.MachineTags[0]
		}
	}
	return "none"
}

// exposed is a machine with a vulnerability.
func exposed(f *fleet) string {
	for _, m := range f.machines {
		found := ""
		f.exposures(&m, func(install, *vulnerability) bool { found = m.ID; return false })
		if found != "" {
			return found
		}
	}
	return "none"
}

const upload = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"new.ps1\"\r\nContent-Type: text/plain\r\n\r\nGet-Date\r\n" +
	"--b\r\nContent-Disposition: form-data; name=\"ParametersDescription\"\r\n\r\nnone\r\n--b--\r\n"

func (p *peer) example(method, token string, e example) answer {
	p.t.Helper()
	if e.body != "multipart" {
		return p.do(method, p.Endpoint("eu")+e.path, token, e.body)
	}
	r, err := http.NewRequest(method, p.Endpoint("eu")+e.path, strings.NewReader(upload))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	a, err := p.send(r)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func TestEveryOperationOfTheCatalogAnswersInItsShapeAndOnlyWithItsPermission(t *testing.T) {
	p := start(t, quick())
	all := examples(p)
	rows := slices.Concat(policy.Documented(), policy.Graph(), policy.Seen())
	if len(rows) != len(all) {
		t.Errorf("%d examples for %d operations", len(all), len(rows))
	}
	tokens := map[string]string{}
	for service := range resources {
		tokens[service] = p.token(service)
		if err := p.SetPermissions(DefaultTenantID, DefaultClientID, service, "Other.Read.All"); err != nil {
			t.Fatal(err)
		}
	}
	poor := map[string]string{}
	for service := range resources {
		poor[service] = p.token(service)
	}
	for _, op := range rows {
		t.Run(op.ID, func(t *testing.T) {
			e, ok := all[op.ID]
			if !ok {
				t.Fatal("no example")
			}
			if e.status == 0 {
				e.status = 200
			}
			p := &peer{p.Simulator, t, p.client}
			denied := p.example(op.Method, poor[string(op.Service)], e)
			if denied.status != 403 || denied.code() != "Forbidden" {
				t.Errorf("without the permission: got %d %s, want 403 Forbidden", denied.status, denied.body)
			}
			for _, perm := range op.Application {
				if _, odd := corrected[op.ID]; !odd && !strings.Contains(string(denied.body), string(perm)) {
					t.Errorf("the refusal does not name %s: %s", perm, denied.body)
				}
			}
			if a := p.example(op.Method, "", e); a.status != 401 || a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("without a token: got %d, want 401 with a challenge", a.status)
			}
			got := p.example(op.Method, tokens[string(op.Service)], e)
			if got.status != e.status {
				t.Fatalf("got %d %s, want %d", got.status, got.body, e.status)
			}
			if got.header.Get("OData-Version") != "4.0" || got.header.Get("request-id") == "" {
				t.Errorf("headers lack OData-Version or request-id: %v", got.header)
			}
			if e.members == "" {
				if len(got.body) != 0 {
					t.Errorf("got a body, want none: %s", got.body)
				}
				return
			}
			objects := []map[string]any{got.object(t)}
			if e.rows {
				if objects = got.rows(t); len(objects) == 0 {
					t.Fatalf("no rows: %s", got.body)
				}
			}
			for _, o := range objects {
				for _, name := range strings.Fields(e.members) {
					if _, ok := o[name]; !ok {
						t.Fatalf("member %s is missing in %v", name, o)
					}
				}
			}
		})
	}
}

func TestAllWritesNameWhatIsMissing(t *testing.T) {
	p := start(t, quick())
	f := p.directory.tenant(DefaultTenantID).fleet()
	windows, linux := f.machines[0].ID, f.machines[5].ID
	token := p.token("mde")
	for _, c := range []struct{ name, method, path, body, code string }{
		{"an action without a comment", "POST", "/api/machines/" + windows + "/isolate", `{"IsolationType":"Full"}`, "MissingRequiredParameter"},
		{"a comment under another letter case", "POST", "/api/machines/" + windows + "/isolate", `{"comment":"c"}`, "MissingRequiredParameter"},
		{"an unknown isolation", "POST", "/api/machines/" + windows + "/isolate", `{"Comment":"c","IsolationType":"Half"}`, "InvalidInput"},
		{"no body", "POST", "/api/machines/" + windows + "/isolate", "", "InvalidRequestBody"},
		{"a body that is no object", "POST", "/api/machines/" + windows + "/isolate", `[1]`, "InvalidRequestBody"},
		{"a comment that is a number", "POST", "/api/machines/" + windows + "/isolate", `{"Comment":1}`, "InvalidRequestBody"},
		{"an unknown machine", "POST", "/api/machines/nobody/isolate", `{"Comment":"c"}`, "ResourceNotFound"},
		{"offboarding Linux", "POST", "/api/machines/" + linux + "/offboard", `{"Comment":"c"}`, "OsPlatformNotSupported"},
		{"a file by a bad hash", "POST", "/api/machines/" + windows + "/StopAndQuarantineFile", `{"Comment":"c","Sha1":"x"}`, "InvalidHashValue"},
		{"a scan without a type", "POST", "/api/machines/" + windows + "/runAntiVirusScan", `{"Comment":"c"}`, "MissingRequiredParameter"},
		{"commands out of order", "POST", "/api/machines/" + windows + "/runliveresponse", `{"Commands":[{"type":"GetFile","params":[{"key":"Path","value":"x"}]},{"type":"PutFile","params":[{"key":"FileName","value":"x"}]}]}`, "InvalidInput"},
		{"an indicator that is a range", "POST", "/api/indicators", `{"indicatorValue":"10.0.0.0/8","indicatorType":"IpAddress","action":"Allowed","title":"t","description":"d"}`, "InvalidIpAddress"},
		{"Audit without an alert", "POST", "/api/indicators", `{"indicatorValue":"a.example","indicatorType":"DomainName","action":"Audit","title":"t","description":"d"}`, "InvalidInput"},
		{"too many indicators to delete", "POST", "/api/indicators/BatchDelete", `{"IndicatorIds":[` + strings.Repeat(`"1",`, 500) + `"1"]}`, "MaximumBatchSizeExceeded"},
		{"an unknown indicator", "DELETE", "/api/indicators/424242", "", "ResourceNotFound"},
		{"an alert with an unknown status", "PATCH", "/api/alerts/" + f.alerts[0].ID, `{"status":"Done"}`, "InvalidInput"},
		{"an address that is none", "GET", "/api/ips/999.1.1.1/alerts", "", "InvalidIpAddress"},
		{"a domain that is none", "GET", "/api/domains/nodots/alerts", "", "InvalidDomainName"},
		{"a hash that is none", "GET", "/api/files/abc", "", "InvalidHashValue"},
		{"a time long ago", "GET", "/api/machines/findbyip(ip='10.0.0.1',timestamp=2019-09-22T08:44:05Z)", "", "InvalidInput"},
		{"an address without quotes", "GET", "/api/machines/findbyip(ip=10.0.0.1,timestamp=2019-09-22T08:44:05Z)", "", "ResourceNotFound"},
		{"changes without sinceTime", "GET", "/api/machines/SoftwareVulnerabilityChangesByMachine", "", "MissingRequiredParameter"},
		{"links for too long", "GET", "/api/machines/SoftwareInventoryExport?sasValidHours=7", "", "InvalidInput"},
		{"an unknown path", "GET", "/api/nothing", "", "ResourceNotFound"},
		{"a doubled slash", "GET", "//api/alerts", "", "ResourceNotFound"},
		{"a wrong method", "DELETE", "/api/alerts", "", "MethodNotAllowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := p.try(c.method, p.Endpoint("eu")+c.path, token, c.body)
			if err != nil {
				t.Fatal(err)
			}
			if a.code() != c.code {
				t.Errorf("got %d %s, want code %s", a.status, a.body, c.code)
			}
			var e struct{ Error map[string]string }
			if err := json.Unmarshal(a.body, &e); err != nil || len(e.Error["target"]) != 36 || e.Error["message"] == "" {
				t.Errorf("not Microsoft's form: %s", a.body)
			}
		})
	}
}
