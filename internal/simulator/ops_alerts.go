package simulator

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

var alertSet = collection{name: "Alerts"}

func alertHandlers() map[string]handler {
	return map[string]handler{
		"alerts.list":                   list(alertSet, func(c *call) ([]alert, error) { return snapshot(c.fleet, &c.fleet.alerts), nil }),
		"alerts.get":                    one("Alerts", func(c *call) (alert, error) { return orProblem(c.fleet.alert(c.id())) }),
		"alerts.update":                 updateAlert,
		"alerts.batchUpdate":            batchUpdateAlerts,
		"alerts.createAlertByReference": createAlert,
		"alerts.domains": list(collection{name: "Domains"}, func(c *call) ([]domain, error) {
			a, p := c.fleet.alert(c.id())
			return []domain{{c.fleet.domains[a.links.domain]}}, orNil(p)
		}),
		"alerts.files": list(collection{name: "Files"}, func(c *call) ([]file, error) {
			a, p := c.fleet.alert(c.id())
			return []file{c.fleet.files[a.links.file]}, orNil(p)
		}),
		"alerts.ips": list(collection{name: "Ips"}, func(c *call) ([]ip, error) {
			a, p := c.fleet.alert(c.id())
			return []ip{{c.fleet.ips[a.links.ip]}}, orNil(p)
		}),
		"alerts.machine": one("Machines", func(c *call) (machine, error) {
			a, p := c.fleet.alert(c.id())
			if p != nil {
				return machine{}, p
			}
			return orProblem(c.fleet.machine(a.MachineID))
		}),
		"alerts.user": one("Users", func(c *call) (user, error) {
			a, p := c.fleet.alert(c.id())
			return c.fleet.users[a.links.user], orNil(p)
		}),
	}
}

// orNil keeps a nil *problem from becoming an error that is not nil.
func orNil(p *problem) error {
	if p == nil {
		return nil
	}
	return p
}

// orProblem is orNil for a pair.
func orProblem[T any](v T, p *problem) (T, error) { return v, orNil(p) }

var (
	alertStatuses   = []string{"New", "InProgress", "Resolved"}
	classifications = []string{"TruePositive", "InformationalExpectedActivity", "FalsePositive"}
	determinations  = []string{
		"MultiStagedAttack", "MaliciousUserActivity", "CompromisedUser", "CompromisedAccount", "Malware", "Phishing", "UnwantedSoftware", "Other",
		"SecurityTesting", "LineOfBusinessApplication", "ConfirmedUserActivity", "ConfirmedActivity", "Clean", "InsufficientData",
		"NoEnoughDataToValidate",
	}
)

// alertChange is what a body asks to change of an alert.
type alertChange struct {
	status, classification, determination, assignedTo, comment string
	assigns                                                    bool
}

func readAlertChange(f fields) (alertChange, *problem) {
	var ch alertChange
	for _, p := range []*problem{
		f.optionalOneOf("status", &ch.status, alertStatuses...),
		f.optionalOneOf("classification", &ch.classification, classifications...),
		f.optionalOneOf("determination", &ch.determination, determinations...),
	} {
		if p != nil {
			return ch, p
		}
	}
	var p *problem
	if ch.assignedTo, p = f.text("assignedTo"); p != nil {
		return ch, p
	}
	_, ch.assigns = f["assignedTo"]
	ch.comment, p = f.text("comment")
	if p == nil && ch.status == "" && ch.classification == "" && ch.determination == "" && ch.comment == "" && !ch.assigns {
		p = problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: it names nothing to update.")
	}
	return ch, p
}

func (ch alertChange) apply(c *call, a *alert) {
	if ch.status != "" {
		a.Status = ch.status
	}
	if ch.classification != "" {
		a.Classification = optional(ch.classification)
	}
	if ch.determination != "" {
		a.Determination = optional(ch.determination)
	}
	if ch.assigns {
		a.AssignedTo = optional(ch.assignedTo)
	}
	if ch.comment != "" {
		a.Comments = append(slices.Clip(a.Comments), comment{ch.comment, c.who.name(), at(c.now)})
	}
}

func updateAlert(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	ch, p := readAlertChange(f)
	if p != nil {
		return reply{}, p
	}
	a, p := c.fleet.changeAlert(c.id(), c.now, func(a *alert) { ch.apply(c, a) })
	if p != nil {
		return reply{}, p
	}
	return entity(c, "Alerts", a)
}

// batchUpdateAlerts changes all alerts or, when one is unknown, none.
func batchUpdateAlerts(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	ids, p := f.batch("alertIds", 100)
	if p != nil {
		return reply{}, p
	}
	ch, p := readAlertChange(f)
	if p != nil {
		return reply{}, p
	}
	for _, id := range ids {
		if _, p := c.fleet.alert(id); p != nil {
			return reply{}, p
		}
	}
	for _, id := range ids {
		if _, p := c.fleet.changeAlert(id, c.now, func(a *alert) { ch.apply(c, a) }); p != nil {
			return reply{}, p
		}
	}
	return reply{}, nil
}

// createAlert makes an alert of an event. One with the same title that is open
// on the same machine takes it in.
func createAlert(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	text := map[string]string{}
	for _, name := range []string{"machineId", "severity", "title", "description", "recommendedAction", "eventTime", "reportId", "category"} {
		if name == "reportId" { // a number in some samples, a string in others
			if raw := strings.Trim(string(f[name]), `"`); raw == "" || raw == "null" {
				return reply{}, missing(name)
			}
			continue
		}
		if text[name], p = f.need(name); p != nil {
			return reply{}, p
		}
	}
	if _, p := f.oneOf("severity", "", "Low", "Medium", "High"); p != nil {
		return reply{}, p
	}
	when, ok := parseTime(text["eventTime"])
	if !ok {
		return reply{}, invalidInput("Invalid input eventTime: '%s'.", text["eventTime"])
	}
	m, p := c.fleet.machine(text["machineId"])
	if p != nil {
		return reply{}, p
	}
	for _, a := range snapshot(c.fleet, &c.fleet.alerts) {
		if a.MachineID == m.ID && a.Title == text["title"] && a.Status != "Resolved" {
			a, p := c.fleet.changeAlert(a.ID, c.now, func(a *alert) { a.LastEventTime = at(when) })
			if p != nil {
				return reply{}, p
			}
			return entity(c, "Alerts", a)
		}
	}
	a, p := c.fleet.addAlert(c, m, text, at(when))
	if p != nil {
		return reply{}, p
	}
	return entity(c, "Alerts", a)
}

// addAlert puts a new alert with an incident of its own into the fleet.
func (f *fleet) addAlert(c *call, m machine, text map[string]string, when instant) (alert, *problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := full(f.alerts[min(c.sim.cfg.Alerts, len(f.alerts)):]); p != nil {
		return alert{}, p
	}
	f.nextID++
	a := alert{
		ID: fmt.Sprintf("ar%d_%d", 638_500_000_000_000_000+c.now.UnixMilli(), f.nextID), IncidentID: f.nextID, Severity: text["severity"],
		Status: "New", InvestigationState: "Queued", DetectionSource: "CustomDetection", DetectorID: m.ID[:8], Category: text["category"],
		Title: text["title"], Description: text["description"], AlertCreationTime: at(c.now), FirstEventTime: when, LastEventTime: when,
		LastUpdateTime: at(c.now), AADTenantID: f.tenantID, MitreTechniques: []string{}, Comments: []comment{},
		recommendedAction: text["recommendedAction"], links: alertLinks{machine: f.machineAt[m.ID], user: m.users[0]},
	}
	f.describe(&a)
	f.alertAt[a.ID] = len(f.alerts)
	f.alerts = append(slices.Clip(f.alerts), a)
	in := incident{ID: a.IncidentID}
	in.complete([]alert{a})
	f.incidents = append(slices.Clip(f.incidents), in)
	return a, nil
}
