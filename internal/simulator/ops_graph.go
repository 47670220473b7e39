package simulator

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Resource types of Microsoft Graph security
// (learn.microsoft.com/graph/api/resources/security-alert, security-incident).
// They show the same alerts and incidents as the older APIs.

type graphAlert struct {
	ID                   string         `json:"id"`
	ProviderAlertID      string         `json:"providerAlertId"`
	IncidentID           string         `json:"incidentId"`
	Status               string         `json:"status" odata:"filter"`
	Severity             string         `json:"severity" odata:"filter"`
	Classification       optional       `json:"classification" odata:"filter"`
	Determination        optional       `json:"determination" odata:"filter"`
	ServiceSource        string         `json:"serviceSource" odata:"filter"`
	DetectionSource      string         `json:"detectionSource"`
	ProductName          string         `json:"productName"`
	DetectorID           string         `json:"detectorId"`
	TenantID             string         `json:"tenantId"`
	Title                string         `json:"title"`
	Description          string         `json:"description"`
	RecommendedActions   string         `json:"recommendedActions"`
	Category             string         `json:"category"`
	AssignedTo           optional       `json:"assignedTo" odata:"filter"`
	AlertWebURL          string         `json:"alertWebUrl"`
	IncidentWebURL       string         `json:"incidentWebUrl"`
	ActorDisplayName     optional       `json:"actorDisplayName"`
	ThreatDisplayName    optional       `json:"threatDisplayName"`
	ThreatFamilyName     optional       `json:"threatFamilyName"`
	MitreTechniques      []string       `json:"mitreTechniques"`
	CreatedDateTime      instant        `json:"createdDateTime" odata:"filter"`
	LastUpdateDateTime   instant        `json:"lastUpdateDateTime" odata:"filter"`
	ResolvedDateTime     instant        `json:"resolvedDateTime"`
	FirstActivityTime    instant        `json:"firstActivityDateTime"`
	LastActivityDateTime instant        `json:"lastActivityDateTime"`
	SystemTags           []string       `json:"systemTags"`
	Comments             []graphComment `json:"comments"`
	Evidence             []any          `json:"evidence"`
}

type graphComment struct {
	ODataType            string  `json:"@odata.type"`
	Comment              string  `json:"comment"`
	CreatedByDisplayName string  `json:"createdByDisplayName"`
	CreatedDateTime      instant `json:"createdDateTime"`
}

type graphIncident struct {
	ID                 string         `json:"id"`
	TenantID           string         `json:"tenantId"`
	Status             string         `json:"status" odata:"filter"`
	IncidentWebURL     string         `json:"incidentWebUrl"`
	RedirectIncidentID optional       `json:"redirectIncidentId"`
	DisplayName        string         `json:"displayName"`
	CreatedDateTime    instant        `json:"createdDateTime" odata:"filter"`
	LastUpdateDateTime instant        `json:"lastUpdateDateTime" odata:"filter"`
	AssignedTo         optional       `json:"assignedTo" odata:"filter"`
	Classification     string         `json:"classification" odata:"filter"`
	Determination      string         `json:"determination" odata:"filter"`
	Severity           string         `json:"severity" odata:"filter"`
	CustomTags         []string       `json:"customTags"`
	SystemTags         []string       `json:"systemTags"`
	Description        optional       `json:"description"`
	LastModifiedBy     string         `json:"lastModifiedBy"`
	ResolvingComment   optional       `json:"resolvingComment"`
	Comments           []graphComment `json:"comments"`
	Alerts             []graphAlert   `json:"alerts" odata:"expand"`
}

func graphHandlers() map[string]handler {
	return map[string]handler{
		// Graph gives at most 2,000 alerts or 50 incidents a page.
		"graph.alerts.list": list(collection{name: "security/alerts_v2", maxTop: 2000}, func(c *call) ([]graphAlert, error) {
			var out []graphAlert
			machines := snapshot(c.fleet, &c.fleet.machines)
			for _, a := range snapshot(c.fleet, &c.fleet.alerts) {
				out = append(out, c.fleet.graph(a, machines))
			}
			return out, nil
		}),
		"graph.alerts.get": one("security/alerts_v2", func(c *call) (graphAlert, error) {
			a, p := c.fleet.alert(c.id())
			if p != nil {
				return graphAlert{}, p
			}
			return c.fleet.graph(a, snapshot(c.fleet, &c.fleet.machines)), nil
		}),
		"graph.alerts.update": updateGraphAlert,
		"graph.incidents.list": list(collection{name: "security/incidents", maxTop: 50, page: 50}, func(c *call) ([]graphIncident, error) {
			var out []graphIncident
			alerts := c.fleet.alertsByIncident()
			for _, in := range snapshot(c.fleet, &c.fleet.incidents) {
				out = append(out, c.fleet.graphIncident(in, alerts[in.ID]))
			}
			return out, nil
		}),
		"graph.incidents.get": one("security/incidents", func(c *call) (graphIncident, error) {
			in, p := c.incident()
			if p != nil {
				return graphIncident{}, p
			}
			return c.fleet.graphIncident(in, c.fleet.alertsByIncident()[in.ID]), nil
		}),
		"graph.incidents.update": func(c *call) (reply, error) {
			in, p := c.updateIncident(smallAll, "customTags")
			if p != nil {
				return reply{}, p
			}
			return entity(c, "security/incidents", c.fleet.graphIncident(in, c.fleet.alertsByIncident()[in.ID]))
		},
	}
}

// Graph writes the older APIs' words with a small first letter.

func small(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

func large(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func smallAll(words []string) []string {
	var out []string
	for _, w := range words {
		out = append(out, small(w))
	}
	return out
}

func updateGraphAlert(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	var status, classification, determination string
	for _, p := range []*problem{
		f.optionalOneOf("status", &status, smallAll(alertStatuses)...),
		f.optionalOneOf("classification", &classification, smallAll(classifications)...),
		f.optionalOneOf("determination", &determination, smallAll(determinations)...),
	} {
		if p != nil {
			return reply{}, p
		}
	}
	assigned, p := f.text("assignedTo")
	if p != nil {
		return reply{}, p
	}
	_, assigns := f["assignedTo"]
	if status == "" && classification == "" && determination == "" && !assigns {
		return reply{}, problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: it names nothing to update.")
	}
	ch := alertChange{large(status), large(classification), large(determination), assigned, "", assigns}
	a, p := c.fleet.changeAlert(c.id(), c.now, func(a *alert) { ch.apply(c, a) })
	if p != nil {
		return reply{}, p
	}
	return entity(c, "security/alerts_v2", c.fleet.graph(a, snapshot(c.fleet, &c.fleet.machines)))
}

func graphComments(all []comment) []graphComment {
	out := []graphComment{}
	for _, one := range all {
		out = append(out, graphComment{"#microsoft.graph.security.alertComment", one.Comment, one.CreatedBy, one.CreatedTime})
	}
	return out
}

// graph is an alert in Graph's form.
func (f *fleet) graph(a alert, machines []machine) graphAlert {
	m, u, x := machines[a.links.machine], f.users[a.links.user], f.files[a.links.file]
	when := a.AlertCreationTime.Format(time.RFC3339)
	evidence := func(kind string, rest ...member) any {
		return append(members{
			{"@odata.type", "#microsoft.graph.security." + kind}, {"createdDateTime", when}, {"verdict", "unknown"},
			{"remediationStatus", "none"}, {"roles", []string{}}, {"tags", []string{}},
		}, rest...)
	}
	return graphAlert{
		ID: a.ID, ProviderAlertID: a.ID, IncidentID: fmt.Sprint(a.IncidentID), Status: small(a.Status), Severity: small(a.Severity),
		Classification: optional(small(string(a.Classification))), Determination: optional(small(string(a.Determination))),
		ServiceSource: "microsoftDefenderForEndpoint", DetectionSource: small(a.DetectionSource), ProductName: "Microsoft Defender for Endpoint",
		DetectorID: a.DetectorID, TenantID: f.tenantID, Title: a.Title, Description: a.Description, RecommendedActions: a.recommendedAction,
		Category: a.Category, AssignedTo: a.AssignedTo, AlertWebURL: "https://security.microsoft.com/alerts/" + a.ID + "?tid=" + f.tenantID,
		IncidentWebURL:    fmt.Sprintf("https://security.microsoft.com/incidents/%d?tid=%s", a.IncidentID, f.tenantID),
		ThreatDisplayName: a.ThreatName, ThreatFamilyName: a.ThreatFamilyName, MitreTechniques: a.MitreTechniques, CreatedDateTime: a.AlertCreationTime,
		LastUpdateDateTime: a.LastUpdateTime, ResolvedDateTime: a.ResolvedTime, FirstActivityTime: a.FirstEventTime, LastActivityDateTime: a.LastEventTime,
		SystemTags: []string{}, Comments: graphComments(a.Comments),
		Evidence: []any{
			evidence("deviceEvidence", member{"mdeDeviceId", m.ID}, member{"azureAdDeviceId", m.AADDeviceID}, member{"deviceDnsName", m.ComputerDNSName},
				member{"osPlatform", m.OSPlatform}, member{"version", m.Version}, member{"riskScore", small(m.RiskScore)}, member{"rbacGroupName", m.RBACGroupName}),
			evidence("userEvidence", member{"userAccount", members{{"accountName", u.AccountName}, {"domainName", u.AccountDomain}, {"userSid", u.AccountSID}}}),
			evidence("fileEvidence", member{"fileDetails", members{{"sha1", x.SHA1}, {"sha256", x.SHA256}, {"fileName", x.name}, {"fileSize", x.Size}}}),
			evidence("urlEvidence", member{"url", f.domains[a.links.domain]}),
			evidence("ipEvidence", member{"ipAddress", f.ips[a.links.ip]}),
		},
	}
}

// graphIncident is an incident in Graph's form.
func (f *fleet) graphIncident(in incident, alerts []alert) graphIncident {
	out := graphIncident{
		ID: fmt.Sprint(in.ID), TenantID: f.tenantID, Status: small(in.Status),
		IncidentWebURL: fmt.Sprintf("https://security.microsoft.com/incidents/%d?tid=%s", in.ID, f.tenantID), DisplayName: in.Name,
		CreatedDateTime: in.Created, LastUpdateDateTime: in.Updated, AssignedTo: in.AssignedTo, Classification: small(in.Classification),
		Determination: small(in.Determination), Severity: small(in.Severity), CustomTags: in.Tags, SystemTags: []string{},
		LastModifiedBy: "Microsoft 365 Defender", Comments: graphComments(in.Comments), Alerts: []graphAlert{},
	}
	machines := snapshot(f, &f.machines)
	for _, a := range alerts {
		out.Alerts = append(out.Alerts, f.graph(a, machines))
	}
	return out
}
