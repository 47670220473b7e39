package simulator

import (
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// scanHandlers answer for authenticated scans: agents, definitions, history.
func scanHandlers() map[string]handler {
	return map[string]handler{
		"deviceAuthenticatedScanAgents.list": list(collection{name: "DeviceAuthenticatedScanAgents"}, func(c *call) ([]scanAgent, error) {
			return snapshot(c.fleet, &c.fleet.agents), nil
		}),
		"deviceAuthenticatedScanAgents.get": one("DeviceAuthenticatedScanAgents", func(c *call) (scanAgent, error) {
			for _, a := range snapshot(c.fleet, &c.fleet.agents) {
				if strings.EqualFold(a.ID, c.id()) {
					return a, nil
				}
			}
			return scanAgent{}, notFound("scan agent", c.id())
		}),
		"deviceAuthenticatedScanDefinitions.list": list(collection{name: "DeviceAuthenticatedScanDefinitions"}, func(c *call) ([]scanDefinition, error) {
			return snapshot(c.fleet, &c.fleet.scans), nil
		}),
		"deviceAuthenticatedScanDefinitions.create":      createScan,
		"deviceAuthenticatedScanDefinitions.update":      updateScan,
		"deviceAuthenticatedScanDefinitions.batchDelete": deleteScans,
		"deviceAuthenticatedScanDefinitions.getScanHistoryByScanDefinitionId": list(scanHistory, func(c *call) ([]scanSession, error) {
			return c.sessions("ScanDefinitionIds", func(s scanSession) string { return s.ScanDefinitionID })
		}),
		"deviceAuthenticatedScanDefinitions.getScanHistoryBySessionId": list(scanHistory, func(c *call) ([]scanSession, error) {
			return c.sessions("SessionIds", func(s scanSession) string { return s.SessionID })
		}),
	}
}

var scanHistory = collection{name: "Collection(microsoft.windowsDefenderATP.api.DeviceAuthenticatedScanHistory)", maxTop: 4096}

// maxScanBatch bounds lists of ids where no page does.
const maxScanBatch = 500

func (c *call) sessions(field string, id func(scanSession) string) ([]scanSession, error) {
	f, p := c.object()
	if p != nil {
		return nil, p
	}
	ids, p := f.batch(field, maxScanBatch)
	if p != nil {
		return nil, p
	}
	out := []scanSession{}
	for _, s := range snapshot(c.fleet, &c.fleet.sessions) {
		if slices.Contains(ids, id(s)) {
			out = append(out, s)
		}
	}
	return out, nil
}

// readScan changes a definition by what a body says.
func readScan(f fields, d *scanDefinition) *problem {
	for _, one := range []struct {
		name string
		into *string
	}{{"scanName", &d.ScanName}, {"target", &d.Target}} {
		if text, p := f.text(one.name); p != nil {
			return p
		} else if text != "" {
			*one.into = text
		}
	}
	if p := f.optionalOneOf("scanType", &d.ScanType, "Windows", "Network"); p != nil {
		return p
	}
	if p := f.optionalOneOf("targetType", &d.TargetType, "Ip", "Hostname", "IP Address"); p != nil {
		return p
	}
	if _, p := f.read("isActive", &d.IsActive); p != nil {
		return p
	}
	if _, p := f.read("intervalInHours", &d.IntervalInHours); p != nil {
		return p
	}
	if d.IntervalInHours < 0 || d.IntervalInHours > 24*365 {
		return invalidInput("Invalid input intervalInHours: %d.", d.IntervalInHours)
	}
	var sent scanCredentials
	if ok, p := f.read("scanAuthenticationParams", &sent); p != nil {
		return p
	} else if ok {
		d.ScanAuthenticationParams = &sent
	}
	return nil
}

func createScan(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	d := scanDefinition{ID: uuid.NewString(), OrgID: c.fleet.tenantID, CreatedBy: c.who.name(), CreatedOn: at(c.now), LastUpdated: at(c.now), IntervalInHours: 4}
	for _, name := range []string{"scanType", "scanName", "target", "targetType"} {
		if _, p := f.need(name); p != nil {
			return reply{}, p
		}
	}
	if p := readScan(f, &d); p != nil {
		return reply{}, p
	}
	var agent struct {
		MachineID string `json:"machineId"`
	}
	if ok, p := f.read("scannerAgent", &agent); p != nil {
		return reply{}, p
	} else if !ok {
		return reply{}, missing("scannerAgent")
	}
	for _, a := range snapshot(c.fleet, &c.fleet.agents) {
		if strings.EqualFold(a.MachineID, agent.MachineID) {
			d.ScannerAgent = &a
		}
	}
	if d.ScannerAgent == nil {
		return reply{}, notFound("scan agent on machine", agent.MachineID)
	}
	fl := c.fleet
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if p := full(fl.scans); p != nil {
		return reply{}, p
	}
	fl.scans = append(slices.Clip(fl.scans), d)
	return entity(c, "DeviceAuthenticatedScanDefinitions", d)
}

func updateScan(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	fl := c.fleet
	fl.mu.Lock()
	defer fl.mu.Unlock()
	i := slices.IndexFunc(fl.scans, func(d scanDefinition) bool { return strings.EqualFold(d.ID, c.id()) })
	if i < 0 {
		return reply{}, notFound("scan definition", c.id())
	}
	d := fl.scans[i]
	if p := readScan(f, &d); p != nil {
		return reply{}, p
	}
	d.LastUpdated = at(c.now)
	fl.scans = slices.Clone(fl.scans)
	fl.scans[i] = d
	return entity(c, "DeviceAuthenticatedScanDefinitions", d)
}

// deleteScans answers 204; the page documents no answer.
func deleteScans(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	ids, p := f.batch("ScanDefinitionIds", maxScanBatch)
	if p != nil {
		return reply{}, p
	}
	fl := c.fleet
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, id := range ids {
		if !slices.ContainsFunc(fl.scans, func(d scanDefinition) bool { return d.ID == id }) {
			return reply{}, notFound("scan definition", id)
		}
	}
	kept := []scanDefinition{}
	for _, d := range fl.scans {
		if !slices.Contains(ids, d.ID) {
			kept = append(kept, d)
		}
	}
	fl.scans = kept
	return reply{status: http.StatusNoContent}, nil
}
