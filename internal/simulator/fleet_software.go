package simulator

import (
	"fmt"
	"math"
	"strings"
)

// products are vendor and name of what the machines run.
var products = [][3]string{
	{"microsoft", "edge", "Browser"}, {"google", "chrome", "Browser"}, {"mozilla", "firefox", "Browser"},
	{"microsoft", "office", "Office"}, {"microsoft", "teams", "Communication"}, {"microsoft", "windows_11", "Operating system"},
	{"microsoft", "windows_10", "Operating system"}, {"microsoft", "sql_server", "Database"}, {"microsoft", ".net_framework", "Runtime"},
	{"adobe", "acrobat_reader_dc", "Office"}, {"oracle", "jre", "Runtime"}, {"python", "python", "Runtime"},
	{"openssl", "openssl", "Library"}, {"apache", "log4j", "Library"}, {"apache", "http_server", "Server"}, {"nginx", "nginx", "Server"},
	{"7-zip", "7-zip", "Tool"}, {"videolan", "vlc_media_player", "Media"}, {"zoom", "zoom", "Communication"}, {"putty", "putty", "Tool"},
	{"notepad-plus-plus", "notepad++", "Tool"}, {"git-scm", "git", "Tool"}, {"nodejs", "node.js", "Runtime"}, {"docker", "docker_desktop", "Tool"},
	{"wireshark", "wireshark", "Tool"}, {"canonical", "ubuntu_linux", "Operating system"}, {"apple", "macos", "Operating system"},
	{"fabrikam", "line_of_business", "Other"},
}

func (f *fleet) makeSoftware() {
	for _, p := range products {
		s := software{
			ID: p[0] + "-_-" + p[1], Name: p[1], Vendor: p[0], Category: p[2], IsNormalized: p[0] != "fabrikam",
			ImpactScore: math.Round(f.rng.Float64()*1000) / 100, PublicExploit: f.rng.IntN(4) == 0, ActiveAlert: f.rng.IntN(6) == 0,
		}
		major := 1 + f.rng.IntN(120)
		for v := range 3 + f.rng.IntN(4) {
			s.versions = append(s.versions, fmt.Sprintf("%d.%d.%d.0", major+v, f.rng.IntN(10), f.rng.IntN(9000)))
		}
		f.softwares = append(f.softwares, s)
	}
	f.bySoftware = make([][]int, len(f.softwares))
}

func (f *fleet) makeVulnerabilities(n int) {
	for i := range n {
		s := i % len(f.softwares)
		cvss := math.Round((3+f.rng.Float64()*6.9)*10) / 10
		published := f.ago(600 * day)
		id := fmt.Sprintf("CVE-%d-%d", published.Year(), 10000+i)
		exploit := f.rng.IntN(5) == 0
		v := vulnerability{
			ID: id, Name: id, Description: fmt.Sprintf("Summary: a weakness of %s that the simulator made up.", f.softwares[s].Name),
			Severity: severityOf(cvss), CVSSV3: cvss, CVSSVector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H", PublishedOn: published,
			UpdatedOn: at(published.Add(40 * day)), FirstDetected: at(published.Add(2 * day)), PatchFirstAvailable: at(published.Add(10 * day)),
			PublicExploit: exploit, ExploitVerified: exploit && i%2 == 0, ExploitTypes: []string{}, ExploitURIs: []string{},
			CVESupportability: "Supported", Tags: []string{}, EPSS: math.Round(f.rng.Float64()*1e5) / 1e5,
			software: s, fixedIn: 1 + f.rng.IntN(len(f.softwares[s].versions)-1),
		}
		if exploit {
			v.ExploitTypes = []string{"Remote"}
		}
		f.bySoftware[s] = append(f.bySoftware[s], i)
		f.softwares[s].Weaknesses++
		f.vulns = append(f.vulns, v)
	}
}

func severityOf(cvss float64) string {
	switch {
	case cvss >= 9:
		return "Critical"
	case cvss >= 7:
		return "High"
	case cvss >= 4:
		return "Medium"
	}
	return "Low"
}

// countExposure counts machines for software and vulnerabilities.
func (f *fleet) countExposure() {
	for _, m := range f.machines {
		for _, in := range m.installs {
			s := &f.softwares[in.software]
			s.InstalledMachines++
			exposed := false
			for _, v := range f.bySoftware[in.software] {
				if in.version < f.vulns[v].fixedIn {
					f.vulns[v].ExposedMachines++
					exposed = true
				}
			}
			if exposed {
				s.ExposedMachines++
			}
		}
	}
}

// exposures visits every vulnerability of a machine until yield says no.
func (f *fleet) exposures(m *machine, yield func(in install, v *vulnerability) bool) bool {
	for _, in := range m.installs {
		for _, v := range f.bySoftware[in.software] {
			if in.version < f.vulns[v].fixedIn && !yield(in, &f.vulns[v]) {
				return false
			}
		}
	}
	return true
}

// vulnerable tells whether a machine has a vulnerability.
func (f *fleet) vulnerable(m *machine, v *vulnerability) bool {
	for _, in := range m.installs {
		if in.software == v.software && in.version < v.fixedIn {
			return true
		}
	}
	return false
}

// exposedTo tells whether a machine has any vulnerability of a software.
func (f *fleet) exposedTo(m *machine, software int) bool {
	for _, in := range m.installs {
		if in.software != software {
			continue
		}
		for _, v := range f.bySoftware[software] {
			if in.version < f.vulns[v].fixedIn {
				return true
			}
		}
	}
	return false
}

// software finds a software by id without regard to case, -1 for none.
func (f *fleet) softwareAt(id string) int {
	for i := range f.softwares {
		if strings.EqualFold(f.softwares[i].ID, id) {
			return i
		}
	}
	return -1
}

// latest is the newest version of a software.
func (s software) latest() string { return s.versions[len(s.versions)-1] }
