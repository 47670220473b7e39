package simulator

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// vulnerabilityHandlers answer for vulnerability management: software,
// vulnerabilities, recommendations, remediation, scores and baselines.
func vulnerabilityHandlers() map[string]handler {
	references := collection{name: "MachineReferences"}
	vulnerabilities := collection{name: "Vulnerabilities"}
	fixes := collection{name: "Collection(microsoft.windowsDefenderATP.api.PublicProductFixDto)"}
	softwareSet := collection{name: "Software"}
	return map[string]handler{
		"software.list": list(softwareSet, func(c *call) ([]software, error) { return c.fleet.softwares, nil }),
		"software.get": one("Software", func(c *call) (software, error) {
			i, err := c.software()
			return c.fleet.softwares[max(i, 0)], err
		}),
		"software.distributions": list(collection{name: "Distributions"}, distributions),
		"software.machineReferences": list(references, func(c *call) ([]machineReference, error) {
			i, err := c.software()
			return c.references(func(m *machine) bool { return installed(m, i) }), err
		}),
		"software.vulnerabilities": list(vulnerabilities, func(c *call) ([]vulnerability, error) {
			i, err := c.software()
			return c.fleet.vulnerabilitiesOf(i), err
		}),
		"software.getmissingkbs": list(fixes, func(c *call) ([]productFix, error) {
			i, err := c.software()
			if err != nil {
				return nil, err
			}
			return []productFix{c.fleet.fix(i)}, nil
		}),
		"machines.software": list(softwareSet, func(c *call) ([]software, error) {
			m, p := c.fleet.machine(c.id())
			var out []software
			for _, in := range m.installs {
				out = append(out, c.fleet.softwares[in.software])
			}
			return out, orNil(p)
		}),
		"machines.vulnerabilities": list(vulnerabilities, func(c *call) ([]vulnerability, error) {
			m, p := c.fleet.machine(c.id())
			var out []vulnerability
			c.fleet.exposures(&m, func(_ install, v *vulnerability) bool { out = append(out, *v); return true })
			return out, orNil(p)
		}),
		"machines.getmissingkbs": list(fixes, func(c *call) ([]productFix, error) {
			m, p := c.fleet.machine(c.id())
			var out []productFix
			for i := range c.fleet.softwares {
				if c.fleet.softwares[i].Vendor == "microsoft" && c.fleet.exposedTo(&m, i) {
					out = append(out, c.fleet.fix(i))
				}
			}
			return out, orNil(p)
		}),
		"machines.recommendations": list(collection{name: "Recommendations"}, func(c *call) ([]recommendation, error) {
			m, p := c.fleet.machine(c.id())
			var out []recommendation
			for _, r := range c.fleet.recommendations() {
				if c.fleet.exposedTo(&m, r.software) {
					out = append(out, r)
				}
			}
			return out, orNil(p)
		}),
		"vulnerabilities.list":                    list(collection{name: "Vulnerabilities", maxTop: 8000}, func(c *call) ([]vulnerability, error) { return c.fleet.vulns, nil }),
		"vulnerabilities.machinesVulnerabilities": list(collection{name: "Collection(microsoft.windowsDefenderATP.api.PublicAssetVulnerabilityDto)"}, machinesVulnerabilities),
		"vulnerabilities.get": one("Vulnerabilities", func(c *call) (vulnerability, error) {
			v, err := c.vulnerability()
			if err != nil {
				return vulnerability{}, err
			}
			return *v, nil
		}),
		"vulnerabilities.machineReferences": list(references, func(c *call) ([]machineReference, error) {
			v, err := c.vulnerability()
			if err != nil {
				return nil, err
			}
			return c.references(func(m *machine) bool { return c.fleet.vulnerable(m, v) }), nil
		}),
		"recommendations.list": list(collection{name: "Recommendations"}, func(c *call) ([]recommendation, error) { return c.fleet.recommendations(), nil }),
		"recommendations.get":  one("Recommendations", func(c *call) (recommendation, error) { return c.recommendation() }),
		// A single object, whatever the page's title says.
		"recommendations.software": one("Software", func(c *call) (software, error) {
			r, err := c.recommendation()
			return c.fleet.softwares[r.software], err
		}),
		"recommendations.machineReferences": list(references, func(c *call) ([]machineReference, error) {
			r, err := c.recommendation()
			return c.references(func(m *machine) bool { return c.fleet.exposedTo(m, r.software) }), err
		}),
		"recommendations.vulnerabilities": list(vulnerabilities, func(c *call) ([]vulnerability, error) {
			r, err := c.recommendation()
			return c.fleet.vulnerabilitiesOf(r.software), err
		}),
		"remediationTasks.list": list(collection{name: "RemediationTasks"}, func(c *call) ([]remediationTask, error) { return c.fleet.remediationTasks(), nil }),
		"remediationTasks.get":  one("RemediationTasks", func(c *call) (remediationTask, error) { return c.remediationTask() }),
		"remediationTasks.machineReferences": list(references, func(c *call) ([]machineReference, error) {
			t, err := c.remediationTask()
			return c.references(func(m *machine) bool { return c.fleet.exposedTo(m, t.software) }), err
		}),
		"exposureScore.list":      one("ExposureScore", func(c *call) (score, error) { return score{at(c.fleet.born), c.fleet.exposure("")}, nil }),
		"configurationScore.list": one("ConfigurationScore", func(c *call) (score, error) { return score{at(c.fleet.born), 100 - c.fleet.exposure("")/2}, nil }),
		"exposureScore.byMachineGroups": list(collection{name: "ExposureScore"}, func(c *call) ([]groupScore, error) {
			var out []groupScore
			for _, g := range []string{"Servers", "Workstations"} {
				out = append(out, groupScore{at(c.fleet.born), c.fleet.exposure(g), g})
			}
			return out, nil
		}),
		"browserextensions.permissionsinfo": list(collection{name: "Collection(microsoft.windowsDefenderATP.api.BrowserExtensionPermission)"}, func(*call) ([]extensionPermission, error) {
			return extensionPermissions, nil
		}),
		"baselineConfigurations.list": list(collection{name: "BaselineConfigurations"}, func(*call) ([]baselineConfiguration, error) {
			return baselineConfigurations(), nil
		}),
		"baselineProfiles.list": list(collection{name: "BaselineProfiles"}, func(c *call) ([]baselineProfile, error) { return c.fleet.baselineProfiles(), nil }),
		"deviceavinfo.list":     list(collection{name: "DeviceAvInfo", export: true, page: 20}, func(c *call) ([]deviceAVInfo, error) { return allRows(c.fleet, antivirusRows), nil }),
	}
}

// software is the place of the software that the path names, -1 with an error.
func (c *call) software() (int, error) {
	i := c.fleet.softwareAt(c.id())
	if i < 0 {
		return i, notFound("software", c.id())
	}
	return i, nil
}

func (c *call) vulnerability() (*vulnerability, error) {
	for i := range c.fleet.vulns {
		if strings.EqualFold(c.fleet.vulns[i].ID, c.id()) {
			return &c.fleet.vulns[i], nil
		}
	}
	return nil, notFound("vulnerability", c.id())
}

func (c *call) recommendation() (recommendation, error) {
	for _, r := range c.fleet.recommendations() {
		if strings.EqualFold(r.ID, c.id()) {
			return r, nil
		}
	}
	return recommendation{}, notFound("recommendation", c.id())
}

func (c *call) remediationTask() (remediationTask, error) {
	for _, t := range c.fleet.remediationTasks() {
		if strings.EqualFold(t.ID, c.id()) {
			return t, nil
		}
	}
	return remediationTask{}, notFound("remediation task", c.id())
}

func installed(m *machine, software int) bool {
	return slices.ContainsFunc(m.installs, func(in install) bool { return in.software == software })
}

func (c *call) references(keep func(*machine) bool) []machineReference {
	out := []machineReference{}
	for _, m := range c.fleet.machinesWhere(keep) {
		out = append(out, machineReference{m.ID, m.ComputerDNSName, m.OSPlatform, m.RBACGroupName})
	}
	return out
}

func (f *fleet) vulnerabilitiesOf(software int) []vulnerability {
	out := []vulnerability{}
	for i := range f.vulns {
		if f.vulns[i].software == software {
			out = append(out, f.vulns[i])
		}
	}
	return out
}

func distributions(c *call) ([]distribution, error) {
	i, err := c.software()
	if err != nil {
		return nil, err
	}
	s := c.fleet.softwares[i]
	out := make([]distribution, len(s.versions))
	for v := range out {
		out[v].Version = s.versions[v]
		for _, n := range c.fleet.bySoftware[i] {
			if v < c.fleet.vulns[n].fixedIn {
				out[v].Vulnerabilities++
			}
		}
	}
	for _, m := range snapshot(c.fleet, &c.fleet.machines) {
		for _, in := range m.installs {
			if in.software == i {
				out[in.version].Installations++
			}
		}
	}
	return out, nil
}

// fix is the update that mends a software.
func (f *fleet) fix(software int) productFix {
	s := f.softwares[software]
	id := fmt.Sprint(5_030_000 + software)
	return productFix{ID: id, Name: "Update for " + s.Name, ProductsNames: []string{s.Name},
		URL:             "https://catalog.update.microsoft.com/v7/site/Search.aspx?q=KB" + id,
		MachineMissedOn: s.ExposedMachines, CVEAddressed: s.Weaknesses}
}

func machinesVulnerabilities(c *call) ([]machineVulnerability, error) {
	var out []machineVulnerability
	for _, m := range snapshot(c.fleet, &c.fleet.machines) {
		c.fleet.exposures(&m, func(in install, v *vulnerability) bool {
			s := &c.fleet.softwares[in.software]
			out = append(out, machineVulnerability{
				ID:    strings.Join([]string{m.ID, v.ID, s.Vendor, s.Name, s.versions[in.version], ""}, "-_-"),
				CVEID: v.ID, MachineID: m.ID, ProductName: s.Name, ProductVendor: s.Vendor, ProductVersion: s.versions[in.version], Severity: v.Severity,
			})
			return true
		})
	}
	return out, nil
}

// recommendations has one for each software with weaknesses.
func (f *fleet) recommendations() []recommendation {
	machines := snapshot(f, &f.machines)
	out := []recommendation{}
	for i, s := range f.softwares {
		if s.Weaknesses == 0 {
			continue
		}
		out = append(out, recommendation{
			ID: "va-_-" + s.ID, ProductName: s.Name, RecommendationName: "Update " + s.Vendor + " " + s.Name, Weaknesses: s.Weaknesses, Vendor: s.Vendor,
			RecommendedVersion: s.latest(), RecommendationCategory: "Application", SeverityScore: s.ImpactScore, PublicExploit: s.PublicExploit,
			ActiveAlert: s.ActiveAlert, AssociatedThreats: []string{}, RemediationType: "Update", Status: "Active",
			ExposureImpact: s.ImpactScore / 10, TotalMachineCount: len(machines), ExposedMachinesCount: s.ExposedMachines,
			RelatedComponent: s.Name, Tags: []string{}, ExposedCriticalDevices: s.ExposedMachines / 10, software: i,
		})
	}
	return out
}

// remediationTasks has one for every other recommendation.
func (f *fleet) remediationTasks() []remediationTask {
	out := []remediationTask{}
	for i, r := range f.recommendations() {
		if i%2 == 1 {
			continue
		}
		made := at(f.born.Add(-time.Duration(i+1) * day))
		status, done := "Active", 0
		if i%3 == 0 {
			status, done = "Completed", r.ExposedMachinesCount
		}
		out = append(out, remediationTask{
			ID: fmt.Sprintf("03942ef5-aecb-4c6e-b555-%012d", i), Title: r.RecommendationName, CreatedOn: made,
			RequesterID: "r647211f-2e16-43f2-a480-16ar3a2a796r", RequesterEmail: "analyst@" + f.tenantName + ".onmicrosoft.com", Status: status,
			StatusLastModifiedOn: at(made.Add(day)), Description: r.RecommendationName + " to a later version.", RelatedComponent: r.RelatedComponent,
			TargetDevices: r.ExposedMachinesCount, RBACGroupNames: []string{"Servers", "Workstations"}, FixedDevices: done, DueOn: at(made.Add(30 * day)),
			Category: "Software", Priority: []string{"High", "Medium", "Low"}[i%3], Type: "Update", ProductID: r.ID[len("va-_-"):], VendorID: r.Vendor,
			NameID: r.ProductName, RecommendedVersion: r.RecommendedVersion, RecommendedVendor: r.Vendor, RecommendedProgram: r.ProductName, software: r.software,
		})
	}
	return out
}

// exposure is the share of a group's machines that are exposed, times a hundred.
func (f *fleet) exposure(group string) float64 {
	all, high := 0, 0
	for _, m := range snapshot(f, &f.machines) {
		if group != "" && m.RBACGroupName != group {
			continue
		}
		all++
		if m.ExposureLevel == "High" || m.ExposureLevel == "Medium" {
			high++
		}
	}
	return math.Round(float64(high)*1e6/float64(max(all, 1))) / 1e4
}

var extensionPermissions = []extensionPermission{
	{"tabs", "Tabs", "Access browser tabs"},
	{"cookies", "Cookies", "Read and change cookies of all sites"},
	{"webRequest", "Web requests", "Observe and change requests on their way"},
	{"storage", "Storage", "Keep data of its own"},
	{"nativeMessaging", "Native messaging", "Talk to programs of the machine"},
}

func baselineConfigurations() []baselineConfiguration {
	out := []baselineConfiguration{}
	for i, name := range []string{
		"Ensure 'Minimum password length' is set to '14 or more character(s)'", "Ensure 'Account lockout threshold' is set to '5 or fewer'",
		"Ensure 'Accounts: Guest account status' is set to 'Disabled'", "Ensure 'Windows Firewall: Domain: Firewall state' is set to 'On'",
		"Ensure 'Configure SMB v1 server' is set to 'Disabled'",
	} {
		out = append(out, baselineConfiguration{
			ID: fmt.Sprintf("1.1.%d", i+1), UniqueID: fmt.Sprintf("5.10.%d", i+1), BenchmarkName: "CIS", BenchmarkVersion: "1.0.0", Name: name,
			Description: name + ".", Category: "Account Policies", ComplianceLevels: []string{"Level 1 (L1) - Corporate/Enterprise Environment (general use)"},
			CCE: fmt.Sprintf("CCE-37166-%d", i), Rationale: "It raises the cost of an attack.", RecommendedValue: "See the name", Source: "registry",
			Remediation: "Set it by group policy.", BenchmarkSettings: 5,
		})
	}
	return out
}

func (f *fleet) baselineProfiles() []baselineProfile {
	out := []baselineProfile{}
	machines := len(snapshot(f, &f.machines))
	for i, os := range []string{"Windows 10", "Windows 11", "Windows Server 2022"} {
		made := at(f.born.Add(-time.Duration(50+i) * day))
		out = append(out, baselineProfile{
			ID: fmt.Sprintf("9cfe0a2d-1a20-4c0e-8d9c-%012d", i), Name: "CIS " + os, Description: "Level 1 for " + os, Benchmark: "CIS", Version: "1.0.0",
			OperatingSystem: os, OperatingSystemVersion: "All", Status: i != 1, ComplianceLevel: "Level 1", SettingsNumber: 5,
			CreatedBy: "analyst@" + f.tenantName + ".onmicrosoft.com", LastUpdatedBy: "analyst@" + f.tenantName + ".onmicrosoft.com",
			CreatedOnTimestampUTC: made, LastUpdateTimestampUTC: at(made.Add(day)), PassedDevices: machines / (i + 3), TotalDevices: machines / 3,
		})
	}
	return out
}

// antivirusRows is the antivirus health of one machine.
func antivirusRows(f *fleet, m *machine) []deviceAVInfo {
	current := fmt.Sprint(m.DefenderAVStatus == "Updated")
	before := func(d time.Duration) instant { return at(m.LastSeen.Add(-d)) }
	return []deviceAVInfo{{
		ID: m.ID, MachineID: m.ID, ComputerDNSName: m.ComputerDNSName, OSKind: platformNamed(m.OSPlatform).kind, OSPlatform: m.OSPlatform,
		OSVersion: m.Version, AVMode: "0", AVSignatureVersion: "1.381.2029.0", AVEngineVersion: "1.1.19900.2", AVPlatformVersion: "4.18.2301.6",
		LastSeenTime: m.LastSeen, QuickScanResult: "Completed", QuickScanTime: before(5 * time.Hour), FullScanResult: "Completed",
		FullScanTime: before(3 * day), DataRefreshTimestamp: at(f.born), AVEngineUpdateTime: before(4 * day), AVSignatureUpdateTime: before(2 * time.Hour),
		AVPlatformUpdateTime: before(20 * day), AVIsSignatureUpToDate: current, AVIsEngineUpToDate: current, AVIsPlatformUpToDate: current,
		AVSignaturePublishTime: before(6 * time.Hour), RBACGroupName: m.RBACGroupName, RBACGroupID: m.RBACGroupID,
	}}
}
