package simulator

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// entityHandlers answer for files, domains, addresses, users and
// investigations.
func entityHandlers() map[string]handler {
	return map[string]handler{
		"files.get": one("Files", func(c *call) (file, error) {
			f, _, err := c.file(true)
			return f, err
		}),
		"files.stats":  one("FileStats", statsOfFile),
		"files.alerts": list(alertSet, func(c *call) ([]alert, error) { return c.alertsOfFile() }),
		"files.machines": list(machineSet, func(c *call) ([]machine, error) {
			alerts, err := c.alertsOfFile()
			return c.machinesOf(alerts), err
		}),
		"domains.alerts": list(alertSet, func(c *call) ([]alert, error) { return c.alertsOfDomain() }),
		"domains.machines": list(machineSet, func(c *call) ([]machine, error) {
			alerts, err := c.alertsOfDomain()
			return c.machinesOf(alerts), err
		}),
		"domains.stats": one("DomainStats", func(c *call) (domainStats, error) {
			alerts, err := c.alertsOfDomain()
			if p := c.checkLookBack(); p != nil {
				return domainStats{}, p
			}
			n, first, last := c.prevalence(alerts)
			return domainStats{c.id(), strconv.Itoa(n), n, first, last}, err
		}),
		"ips.alerts": list(alertSet, func(c *call) ([]alert, error) { return c.alertsOfIP() }),
		"ips.stats": one("IpStats", func(c *call) (ipStats, error) {
			alerts, err := c.alertsOfIP()
			if p := c.checkLookBack(); p != nil {
				return ipStats{}, p
			}
			n, first, last := c.prevalence(alerts)
			return ipStats{c.id(), strconv.Itoa(n), n, first, last}, err
		}),
		"users.alerts": list(alertSet, func(c *call) ([]alert, error) {
			return c.fleet.alertsWhere(func(a *alert) bool { return strings.EqualFold(a.RelatedUser.UserName, c.id()) }), nil
		}),
		"users.machines": list(machineSet, func(c *call) ([]machine, error) {
			return c.fleet.machinesWhere(func(m *machine) bool {
				return slices.ContainsFunc(m.users, func(u int) bool { return strings.EqualFold(c.fleet.users[u].AccountName, c.id()) })
			}), nil
		}),
		"investigations.list": list(collection{name: "Investigations"}, func(c *call) ([]investigation, error) {
			return snapshot(c.fleet, &c.fleet.investigations), nil
		}),
		// The id may be that of the alert that set it off.
		"investigations.get": one("Investigations", func(c *call) (investigation, error) {
			for _, in := range snapshot(c.fleet, &c.fleet.investigations) {
				if in.ID == c.id() || in.TriggeringAlertID == c.id() {
					return in, nil
				}
			}
			return investigation{}, notFound("investigation", c.id())
		}),
	}
}

// file finds the file that the path names by SHA-1 or, where sha256 is allowed,
// by that. Its place is -1 with an error.
func (c *call) file(sha256 bool) (file, int, error) {
	if !isHex(c.id(), 40) && !(sha256 && isHex(c.id(), 64)) {
		return file{}, -1, problemf(http.StatusBadRequest, "InvalidHashValue", "Hash value %s is invalid.", c.id())
	}
	for i, f := range c.fleet.files {
		if strings.EqualFold(f.SHA1, c.id()) || strings.EqualFold(f.SHA256, c.id()) {
			return f, i, nil
		}
	}
	return file{}, -1, notFound("file", c.id())
}

// alertsOfFile is empty for a file that nobody saw.
func (c *call) alertsOfFile() ([]alert, error) {
	if !isHex(c.id(), 40) {
		return nil, problemf(http.StatusBadRequest, "InvalidHashValue", "Hash value %s is invalid.", c.id())
	}
	_, at, _ := c.file(false)
	return c.fleet.alertsWhere(func(a *alert) bool { return a.links.file == at }), nil
}

func (c *call) alertsOfDomain() ([]alert, error) {
	if strings.ContainsAny(c.id(), " /\\") || !strings.Contains(c.id(), ".") {
		return nil, problemf(http.StatusBadRequest, "InvalidDomainName", "Domain name %s is invalid.", c.id())
	}
	return c.fleet.alertsWhere(func(a *alert) bool { return strings.EqualFold(c.fleet.domains[a.links.domain], c.id()) }), nil
}

func (c *call) alertsOfIP() ([]alert, error) {
	if net.ParseIP(c.id()) == nil {
		return nil, problemf(http.StatusBadRequest, "InvalidIpAddress", "IP address %s is invalid.", c.id())
	}
	return c.fleet.alertsWhere(func(a *alert) bool { return c.fleet.ips[a.links.ip] == c.id() }), nil
}

// machinesOf are the machines of alerts, at most 500 as the pages say.
func (c *call) machinesOf(alerts []alert) []machine {
	wanted := map[string]bool{}
	for _, a := range alerts {
		wanted[a.MachineID] = true
	}
	out := c.fleet.machinesWhere(func(m *machine) bool { return wanted[m.ID] })
	return out[:min(len(out), 500)]
}

// prevalence counts the machines that alerts saw, and when.
func (c *call) prevalence(alerts []alert) (n int, first, last instant) {
	for _, a := range alerts {
		if first.IsZero() || a.FirstEventTime.Before(first.Time) {
			first = a.FirstEventTime
		}
		if a.LastEventTime.After(last.Time) {
			last = a.LastEventTime
		}
	}
	return len(c.machinesOf(alerts)), first, last
}

// checkLookBack checks the parameter lookBackHours: 720 at most.
func (c *call) checkLookBack() *problem {
	text, ok := c.options.custom["lookbackhours"]
	if !ok {
		return nil
	}
	if n, err := strconv.Atoi(text); err != nil || n < 1 || n > 720 {
		return invalidInput("Invalid input lookBackHours: '%s' is not a number from 1 to 720.", text)
	}
	return nil
}

func statsOfFile(c *call) (fileStats, error) {
	f, at, err := c.file(true)
	if err != nil {
		return fileStats{}, err
	}
	if p := c.checkLookBack(); p != nil {
		return fileStats{}, p
	}
	n, first, last := c.prevalence(c.fleet.alertsWhere(func(a *alert) bool { return a.links.file == at }))
	return fileStats{
		SHA1: f.SHA1, OrgPrevalence: strconv.Itoa(n), OrganizationPrevalence: n, OrgFirstSeen: first, OrgLastSeen: last,
		GlobalPrevalence: strconv.Itoa(f.GlobalPrevalence), GloballyPrevalence: f.GlobalPrevalence,
		GlobalFirstObserved: f.GlobalFirstObserved, GlobalLastObserved: f.GlobalLastObserved, TopFileNames: []string{f.name},
	}, nil
}
