package simulator

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

// incident is an incident as the fleet keeps it; its alerts are those that name
// it.
type incident struct {
	ID                            int64
	Name, Status, Severity        string
	AssignedTo                    optional
	Classification, Determination string
	Created, Updated              instant
	Tags                          []string
	Comments                      []comment
}

// complete fills in a new incident from its alerts.
func (in *incident) complete(alerts []alert) {
	rank := map[string]int{"Informational": 0, "Low": 1, "Medium": 2, "High": 3}
	in.Status, in.Classification, in.Determination, in.Severity = "Resolved", "Unknown", "NotAvailable", "Informational"
	in.Tags, in.Comments = []string{}, []comment{}
	for _, a := range alerts {
		if in.Name == "" {
			in.Name = a.Title + " on one endpoint"
			in.Created, in.Updated, in.AssignedTo = a.AlertCreationTime, a.LastUpdateTime, a.AssignedTo
		}
		if a.Status != "Resolved" {
			in.Status = "Active"
		}
		if rank[a.Severity] > rank[in.Severity] {
			in.Severity = a.Severity
		}
	}
}

// xdrIncident is the resource of Defender XDR's incidents API
// (learn.microsoft.com/defender-xdr/api-incident).
type xdrIncident struct {
	IncidentID         int64       `json:"incidentId"`
	IncidentURI        string      `json:"incidentUri"`
	RedirectIncidentID optionalInt `json:"redirectIncidentId"`
	IncidentName       string      `json:"incidentName"`
	CreatedTime        instant     `json:"createdTime" odata:"filter"`
	LastUpdateTime     instant     `json:"lastUpdateTime" odata:"filter"`
	AssignedTo         optional    `json:"assignedTo" odata:"filter"`
	Classification     string      `json:"classification"`
	Determination      string      `json:"determination"`
	Status             string      `json:"status" odata:"filter"`
	Severity           string      `json:"severity"`
	Tags               []string    `json:"tags"`
	Comments           []comment   `json:"comments"`
	Alerts             []xdrAlert  `json:"alerts"`
}

type xdrAlert struct {
	AlertID            string      `json:"alertId"`
	ProviderAlertID    string      `json:"providerAlertId"`
	IncidentID         int64       `json:"incidentId"`
	ServiceSource      string      `json:"serviceSource"`
	CreationTime       instant     `json:"creationTime"`
	LastUpdatedTime    instant     `json:"lastUpdatedTime"`
	ResolvedTime       instant     `json:"resolvedTime"`
	FirstActivity      instant     `json:"firstActivity"`
	LastActivity       instant     `json:"lastActivity"`
	Title              string      `json:"title"`
	Description        string      `json:"description"`
	Category           string      `json:"category"`
	Status             string      `json:"status"`
	Severity           string      `json:"severity"`
	InvestigationID    optionalInt `json:"investigationId"`
	InvestigationState string      `json:"investigationState"`
	Classification     optional    `json:"classification"`
	Determination      optional    `json:"determination"`
	DetectionSource    string      `json:"detectionSource"`
	DetectorID         string      `json:"detectorId"`
	AssignedTo         optional    `json:"assignedTo"`
	ActorName          optional    `json:"actorName"`
	ThreatFamilyName   optional    `json:"threatFamilyName"`
	MitreTechniques    []string    `json:"mitreTechniques"`
	Devices            []xdrDevice `json:"devices"`
	Entities           []evidence  `json:"entities"`
}

type xdrDevice struct {
	MDATPDeviceID    string         `json:"mdatpDeviceId"`
	AADDeviceID      optional       `json:"aadDeviceId"`
	DeviceDNSName    string         `json:"deviceDnsName"`
	OSPlatform       string         `json:"osPlatform"`
	Version          string         `json:"version"`
	OSProcessor      string         `json:"osProcessor"`
	OSBuild          int            `json:"osBuild"`
	HealthStatus     string         `json:"healthStatus"`
	RiskScore        string         `json:"riskScore"`
	RBACGroupName    string         `json:"rbacGroupName"`
	FirstSeen        instant        `json:"firstSeen"`
	Tags             []string       `json:"tags"`
	DefenderAVStatus string         `json:"defenderAvStatus"`
	OnboardingStatus string         `json:"onboardingStatus"`
	VMMetadata       *struct{}      `json:"vmMetadata"`
	LoggedOnUsers    []loggedOnUser `json:"loggedOnUsers"`
}

func incidentHandlers() map[string]handler {
	return map[string]handler{
		"incidents.list": list(collection{name: "Incidents", maxTop: 100, page: 100, noLink: true}, func(c *call) ([]xdrIncident, error) {
			var out []xdrIncident
			alerts := c.fleet.alertsByIncident()
			for _, in := range snapshot(c.fleet, &c.fleet.incidents) {
				out = append(out, c.fleet.xdr(in, alerts[in.ID]))
			}
			// Newest first, as the page says.
			slices.SortStableFunc(out, func(a, b xdrIncident) int { return b.CreatedTime.Compare(a.CreatedTime.Time) })
			return out, nil
		}),
		"incidents.get": one("Incidents", func(c *call) (xdrIncident, error) {
			in, p := c.incident()
			if p != nil {
				return xdrIncident{}, p
			}
			return c.fleet.xdr(in, c.fleet.alertsByIncident()[in.ID]), nil
		}),
		"incidents.update": func(c *call) (reply, error) {
			in, p := c.updateIncident(func(w []string) []string { return w }, "tags")
			if p != nil {
				return reply{}, p
			}
			return entity(c, "Incidents", c.fleet.xdr(in, c.fleet.alertsByIncident()[in.ID]))
		},
	}
}

func (f *fleet) alertsByIncident() map[int64][]alert {
	out := map[int64][]alert{}
	for _, a := range snapshot(f, &f.alerts) {
		out[a.IncidentID] = append(out[a.IncidentID], a)
	}
	return out
}

// incident finds the incident that the path names.
func (c *call) incident() (incident, *problem) {
	id, err := strconv.ParseInt(c.id(), 10, 64)
	if err != nil {
		return incident{}, invalidInput("Invalid input incident id: '%s'.", c.id())
	}
	for _, in := range snapshot(c.fleet, &c.fleet.incidents) {
		if in.ID == id {
			return in, nil
		}
	}
	return incident{}, notFound("incident", c.id())
}

var incidentStatuses = []string{"Active", "Resolved", "InProgress", "Redirected"}

// updateIncident changes the incident that the path names. words puts the
// documented words into the API's letter case; tagField is its name for tags.
func (c *call) updateIncident(words func([]string) []string, tagField string) (incident, *problem) {
	if _, p := c.incident(); p != nil {
		return incident{}, p
	}
	f, p := c.object()
	if p != nil {
		return incident{}, p
	}
	var status, classification, determination string
	for _, p := range []*problem{
		f.optionalOneOf("status", &status, words(incidentStatuses)...),
		f.optionalOneOf("classification", &classification, words(classifications)...),
		f.optionalOneOf("determination", &determination, words(determinations)...),
	} {
		if p != nil {
			return incident{}, p
		}
	}
	assigned, p := f.text("assignedTo")
	if p != nil {
		return incident{}, p
	}
	tags, p := f.texts(tagField)
	if p != nil {
		return incident{}, p
	}
	text, p := f.text("comment")
	if p != nil {
		return incident{}, p
	}
	if status == "" && classification == "" && determination == "" && assigned == "" && tags == nil && text == "" {
		return incident{}, problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: it names nothing to update.")
	}
	if len(tags) > maxTags {
		return incident{}, invalidInput("Invalid input %s: at most %d.", tagField, maxTags)
	}
	c.fleet.mu.Lock()
	defer c.fleet.mu.Unlock()
	c.fleet.incidents = slices.Clone(c.fleet.incidents)
	i := slices.IndexFunc(c.fleet.incidents, func(in incident) bool { return fmt.Sprint(in.ID) == c.id() })
	if i < 0 {
		return incident{}, notFound("incident", c.id())
	}
	in := &c.fleet.incidents[i]
	for _, one := range []struct {
		value string
		into  *string
	}{{status, &in.Status}, {classification, &in.Classification}, {determination, &in.Determination}} {
		if one.value != "" {
			*one.into = large(one.value)
		}
	}
	if assigned != "" {
		in.AssignedTo = optional(assigned)
	}
	if tags != nil {
		in.Tags = tags
	}
	if text != "" {
		in.Comments = append(slices.Clip(in.Comments), comment{text, c.who.name(), at(c.now)})
	}
	in.Updated = at(c.now)
	return *in, nil
}

// xdr is the incident with its alerts, devices and entities.
func (f *fleet) xdr(in incident, alerts []alert) xdrIncident {
	out := xdrIncident{
		IncidentID: in.ID, IncidentURI: fmt.Sprintf("https://security.microsoft.com/incidents/%d?tid=%s", in.ID, f.tenantID), IncidentName: in.Name,
		CreatedTime: in.Created, LastUpdateTime: in.Updated, AssignedTo: in.AssignedTo, Classification: in.Classification, Determination: in.Determination,
		Status: in.Status, Severity: in.Severity, Tags: in.Tags, Comments: in.Comments, Alerts: []xdrAlert{},
	}
	machines := snapshot(f, &f.machines)
	for _, a := range alerts {
		m := machines[a.links.machine]
		out.Alerts = append(out.Alerts, xdrAlert{
			AlertID: a.ID, ProviderAlertID: a.ID, IncidentID: in.ID, ServiceSource: "MicrosoftDefenderForEndpoint", CreationTime: a.AlertCreationTime,
			LastUpdatedTime: a.LastUpdateTime, ResolvedTime: a.ResolvedTime, FirstActivity: a.FirstEventTime, LastActivity: a.LastEventTime, Title: a.Title,
			Description: a.Description, Category: a.Category, Status: a.Status, Severity: a.Severity, InvestigationID: a.InvestigationID,
			InvestigationState: a.InvestigationState, Classification: a.Classification, Determination: a.Determination, DetectionSource: a.DetectionSource,
			DetectorID: a.DetectorID, AssignedTo: a.AssignedTo, ThreatFamilyName: a.ThreatFamilyName, MitreTechniques: a.MitreTechniques,
			Devices: []xdrDevice{{
				MDATPDeviceID: m.ID, AADDeviceID: m.AADDeviceID, DeviceDNSName: m.ComputerDNSName, OSPlatform: m.OSPlatform, Version: m.Version,
				OSProcessor: m.OSProcessor, OSBuild: m.OSBuild, HealthStatus: m.HealthStatus, RiskScore: m.RiskScore, RBACGroupName: m.RBACGroupName,
				FirstSeen: m.FirstSeen, Tags: m.MachineTags, DefenderAVStatus: m.DefenderAVStatus, OnboardingStatus: m.OnboardingStatus,
				LoggedOnUsers: a.LoggedOnUsers,
			}},
			Entities: a.Evidence,
		})
	}
	return out
}
