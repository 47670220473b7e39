package simulator

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// An assessment is one of the exports of vulnerability management: rows of all
// machines, as JSON pages (…ByMachine) and as files (…Export).

type vulnerabilityRow struct {
	ID                         string   `json:"id"`
	DeviceID                   string   `json:"deviceId"`
	RBACGroupID                int      `json:"rbacGroupId"`
	RBACGroupName              string   `json:"rbacGroupName"`
	DeviceName                 string   `json:"deviceName"`
	OSPlatform                 string   `json:"osPlatform"`
	OSVersion                  string   `json:"osVersion"`
	OSArchitecture             string   `json:"osArchitecture"`
	SoftwareVendor             string   `json:"softwareVendor"`
	SoftwareName               string   `json:"softwareName"`
	SoftwareVersion            string   `json:"softwareVersion"`
	CVEID                      string   `json:"cveId"`
	VulnerabilitySeverityLevel string   `json:"vulnerabilitySeverityLevel"`
	RecommendedSecurityUpdate  optional `json:"recommendedSecurityUpdate"`
	DiskPaths                  []string `json:"diskPaths"`
	RegistryPaths              []string `json:"registryPaths"`
	FirstSeenTimestamp         instant  `json:"firstSeenTimestamp"`
	LastSeenTimestamp          instant  `json:"lastSeenTimestamp"`
	ExploitabilityLevel        string   `json:"exploitabilityLevel"`
	RecommendationReference    string   `json:"recommendationReference"`
	SecurityUpdateAvailable    bool     `json:"securityUpdateAvailable"`
	CVSSScore                  float64  `json:"cvssScore"`
}

type vulnerabilityChangeRow struct {
	ID                         string   `json:"id"`
	Status                     string   `json:"status"`
	EventTimestamp             instant  `json:"eventTimestamp"`
	DeviceID                   string   `json:"deviceId"`
	RBACGroupName              string   `json:"rbacGroupName"`
	DeviceName                 string   `json:"deviceName"`
	OSPlatform                 string   `json:"osPlatform"`
	SoftwareVendor             string   `json:"softwareVendor"`
	SoftwareName               string   `json:"softwareName"`
	SoftwareVersion            string   `json:"softwareVersion"`
	CVEID                      string   `json:"cveId"`
	VulnerabilitySeverityLevel string   `json:"vulnerabilitySeverityLevel"`
	DiskPaths                  []string `json:"diskPaths"`
	RecommendationReference    string   `json:"recommendationReference"`
	CVSSScore                  float64  `json:"cvssScore"`
}

type softwareRow struct {
	DeviceID                   string   `json:"deviceId"`
	RBACGroupID                int      `json:"rbacGroupId"`
	RBACGroupName              string   `json:"rbacGroupName"`
	DeviceName                 string   `json:"deviceName"`
	OSPlatform                 string   `json:"osPlatform"`
	SoftwareVendor             string   `json:"softwareVendor"`
	SoftwareName               string   `json:"softwareName"`
	SoftwareVersion            string   `json:"softwareVersion"`
	NumberOfWeaknesses         int      `json:"numberOfWeaknesses"`
	DiskPaths                  []string `json:"diskPaths"`
	RegistryPaths              []string `json:"registryPaths"`
	SoftwareFirstSeenTimestamp instant  `json:"softwareFirstSeenTimestamp"`
	EndOfSupportStatus         string   `json:"endOfSupportStatus"`
	EndOfSupportDate           instant  `json:"endOfSupportDate"`
}

type configurationRow struct {
	DeviceID                 string  `json:"deviceId"`
	RBACGroupID              int     `json:"rbacGroupId"`
	RBACGroupName            string  `json:"rbacGroupName"`
	DeviceName               string  `json:"deviceName"`
	OSPlatform               string  `json:"osPlatform"`
	OSVersion                string  `json:"osVersion"`
	Timestamp                instant `json:"timestamp"`
	ConfigurationID          string  `json:"configurationId"`
	ConfigurationCategory    string  `json:"configurationCategory"`
	ConfigurationSubcategory string  `json:"configurationSubcategory"`
	ConfigurationImpact      float64 `json:"configurationImpact"`
	ConfigurationName        string  `json:"configurationName"`
	IsCompliant              bool    `json:"isCompliant"`
	IsApplicable             bool    `json:"isApplicable"`
	IsExpectedUserImpact     bool    `json:"isExpectedUserImpact"`
	RecommendationReference  string  `json:"recommendationReference"`
}

type baselineRow struct {
	ID                       string   `json:"id"`
	ConfigurationID          string   `json:"configurationId"`
	ProfileID                string   `json:"profileId"`
	DeviceID                 string   `json:"deviceId"`
	DeviceName               string   `json:"deviceName"`
	IsApplicable             bool     `json:"isApplicable"`
	IsCompliant              bool     `json:"isCompliant"`
	DataCollectionTimeOffset instant  `json:"dataCollectionTimeOffset"`
	RecommendedValue         []string `json:"recommendedValue"`
	CurrentValue             []string `json:"currentValue"`
	Source                   []string `json:"source"`
	IsExempt                 bool     `json:"isExempt"`
}

type extensionRow struct {
	DeviceID             string  `json:"deviceId"`
	RBACGroupID          int     `json:"rbacGroupId"`
	RBACGroupName        string  `json:"rbacGroupName"`
	InstallationTime     instant `json:"installationTime"`
	BrowserName          string  `json:"browserName"`
	ExtensionID          string  `json:"extensionId"`
	ExtensionName        string  `json:"extensionName"`
	ExtensionDescription string  `json:"extensionDescription"`
	ExtensionVersion     string  `json:"extensionVersion"`
	ExtensionRisk        string  `json:"extensionRisk"`
	ExtensionVendor      string  `json:"extensionVendor"`
	IsActivated          bool    `json:"isActivated"`
}

type certificateRow struct {
	DeviceID           string   `json:"deviceId"`
	DeviceName         string   `json:"deviceName"`
	RBACGroupID        int      `json:"rbacGroupId"`
	RBACGroupName      string   `json:"rbacGroupName"`
	Thumbprint         string   `json:"thumbprint"`
	Path               string   `json:"path"`
	SignatureAlgorithm string   `json:"signatureAlgorithm"`
	KeySize            int      `json:"keySize"`
	IssueDate          instant  `json:"issueDate"`
	ExpirationDate     instant  `json:"expirationDate"`
	SubjectType        string   `json:"subjectType"`
	SerialNumber       string   `json:"serialNumber"`
	IssuedTo           members  `json:"issuedTo"`
	IssuedBy           members  `json:"issuedBy"`
	KeyUsage           []string `json:"keyUsage"`
	ExtendedKeyUsage   []string `json:"extendedKeyUsage"`
}

type hardwareRow struct {
	DeviceID         string  `json:"deviceId"`
	RBACGroupID      int     `json:"rbacGroupId"`
	RBACGroupName    string  `json:"rbacGroupName"`
	DeviceName       string  `json:"deviceName"`
	ComponentType    string  `json:"componentType"`
	Manufacturer     string  `json:"manufacturer"`
	ComponentName    string  `json:"componentName"`
	ComponentVersion string  `json:"componentVersion"`
	ComponentFirst   instant `json:"componentFirstSeen"`
	AdditionalFields members `json:"additionalFields"`
}

// rowsOf gives the rows of an assessment for one machine.
type rowsOf[T any] func(f *fleet, m *machine) []T

func vulnerabilityRows(f *fleet, m *machine) (out []vulnerabilityRow) {
	f.exposures(m, func(in install, v *vulnerability) bool {
		s := &f.softwares[in.software]
		exploit := "NoExploit"
		if v.PublicExploit {
			exploit = "ExploitIsPublic"
		}
		out = append(out, vulnerabilityRow{
			ID: strings.Join([]string{m.ID, s.Vendor, s.Name, s.versions[in.version], v.ID}, "_"), DeviceID: m.ID, RBACGroupID: m.RBACGroupID,
			RBACGroupName: m.RBACGroupName, DeviceName: m.ComputerDNSName, OSPlatform: m.OSPlatform, OSVersion: m.Version, OSArchitecture: "x64",
			SoftwareVendor: s.Vendor, SoftwareName: s.Name, SoftwareVersion: s.versions[in.version], CVEID: v.ID, VulnerabilitySeverityLevel: v.Severity,
			DiskPaths: []string{`c:\program files\` + s.Name}, RegistryPaths: []string{}, FirstSeenTimestamp: v.FirstDetected, LastSeenTimestamp: m.LastSeen,
			ExploitabilityLevel: exploit, RecommendationReference: "va-_-" + s.ID, SecurityUpdateAvailable: true, CVSSScore: v.CVSSV3,
		})
		return true
	})
	return out
}

// changeRows are the vulnerabilities that are new or fixed since a time. Every
// weakness changed once, on a day of the last two weeks that follows from its
// number.
func changeRows(since time.Time) rowsOf[vulnerabilityChangeRow] {
	return func(f *fleet, m *machine) (out []vulnerabilityChangeRow) {
		for i, r := range vulnerabilityRows(f, m) {
			changed := at(f.born.Add(-time.Duration(i%14) * day))
			if changed.Before(since) {
				continue
			}
			out = append(out, vulnerabilityChangeRow{
				ID: r.ID, Status: []string{"New", "Fixed", "Updated"}[i%3], EventTimestamp: changed, DeviceID: r.DeviceID, RBACGroupName: r.RBACGroupName,
				DeviceName: r.DeviceName, OSPlatform: r.OSPlatform, SoftwareVendor: r.SoftwareVendor, SoftwareName: r.SoftwareName,
				SoftwareVersion: r.SoftwareVersion, CVEID: r.CVEID, VulnerabilitySeverityLevel: r.VulnerabilitySeverityLevel, DiskPaths: r.DiskPaths,
				RecommendationReference: r.RecommendationReference, CVSSScore: r.CVSSScore,
			})
		}
		return out
	}
}

// softwareRows lists what is installed: with a product code, or without.
func softwareRows(normalized bool) rowsOf[softwareRow] {
	return func(f *fleet, m *machine) (out []softwareRow) {
		for _, in := range m.installs {
			s := &f.softwares[in.software]
			if s.IsNormalized != normalized {
				continue
			}
			out = append(out, softwareRow{
				DeviceID: m.ID, RBACGroupID: m.RBACGroupID, RBACGroupName: m.RBACGroupName, DeviceName: m.ComputerDNSName, OSPlatform: m.OSPlatform,
				SoftwareVendor: s.Vendor, SoftwareName: s.Name, SoftwareVersion: s.versions[in.version], NumberOfWeaknesses: s.Weaknesses,
				DiskPaths: []string{`c:\program files\` + s.Name}, RegistryPaths: []string{}, SoftwareFirstSeenTimestamp: m.FirstSeen, EndOfSupportStatus: "None",
			})
		}
		return out
	}
}

func configurationRows(f *fleet, m *machine) (out []configurationRow) {
	for i, name := range []string{"Turn on real-time protection", "Enable controlled folder access", "Disable SMB v1", "Set lockout threshold", "Encrypt all drives"} {
		out = append(out, configurationRow{
			DeviceID: m.ID, RBACGroupID: m.RBACGroupID, RBACGroupName: m.RBACGroupName, DeviceName: m.ComputerDNSName, OSPlatform: m.OSPlatform,
			OSVersion: m.Version, Timestamp: m.LastSeen, ConfigurationID: fmt.Sprintf("scid-%d", 2000+i), ConfigurationCategory: "Security controls",
			ConfigurationSubcategory: "Antivirus", ConfigurationImpact: float64(5 + i), ConfigurationName: name, IsCompliant: (m.OSBuild+i)%3 != 0,
			IsApplicable: true, RecommendationReference: fmt.Sprintf("sca-_-scid-%d", 2000+i),
		})
	}
	return out
}

func baselineRows(f *fleet, m *machine) (out []baselineRow) {
	profile := f.baselineProfiles()[0].ID
	for i, c := range baselineConfigurations() {
		out = append(out, baselineRow{
			ID: m.ID + "_" + profile + "_" + c.ID, ConfigurationID: c.ID, ProfileID: profile, DeviceID: m.ID, DeviceName: m.ComputerDNSName,
			IsApplicable: platformNamed(m.OSPlatform).windows(), IsCompliant: (m.OSBuild+i)%2 == 0, DataCollectionTimeOffset: m.LastSeen,
			RecommendedValue: []string{"1"}, CurrentValue: []string{fmt.Sprint((m.OSBuild + i) % 2)}, Source: []string{c.Source},
		})
	}
	return out
}

func extensionRows(_ *fleet, m *machine) (out []extensionRow) {
	for i, browser := range []string{"chrome", "edge"} {
		out = append(out, extensionRow{
			DeviceID: m.ID, RBACGroupID: m.RBACGroupID, RBACGroupName: m.RBACGroupName, InstallationTime: m.FirstSeen, BrowserName: browser,
			ExtensionID: strings.Repeat(string(rune('a'+i)), 32), ExtensionName: "Reader " + browser, ExtensionDescription: "Reads pages aloud.",
			ExtensionVersion: "1.4.2", ExtensionRisk: []string{"Low", "High"}[i], ExtensionVendor: "fabrikam", IsActivated: i == 0,
		})
	}
	return out
}

func certificateRows(_ *fleet, m *machine) []certificateRow {
	return []certificateRow{{
		DeviceID: m.ID, DeviceName: m.ComputerDNSName, RBACGroupID: m.RBACGroupID, RBACGroupName: m.RBACGroupName, Thumbprint: m.ID, Path: "LocalMachine\\My",
		SignatureAlgorithm: "sha256RSA", KeySize: 2048, IssueDate: m.FirstSeen, ExpirationDate: at(m.FirstSeen.Add(730 * day)), SubjectType: "EndEntity",
		SerialNumber: m.ID[:16], IssuedTo: members{{"commonName", m.ComputerDNSName}}, IssuedBy: members{{"commonName", "Issuing CA"}},
		KeyUsage: []string{"DigitalSignature", "KeyEncipherment"}, ExtendedKeyUsage: []string{"ServerAuthentication"},
	}}
}

func hardwareRows(_ *fleet, m *machine) (out []hardwareRow) {
	for _, part := range [][3]string{{"Hardware", "latitude_7420", ""}, {"Bios", "latitude_7420_firmware", "1.21.3"}, {"Processor", "core_i7", ""}} {
		out = append(out, hardwareRow{
			DeviceID: m.ID, RBACGroupID: m.RBACGroupID, RBACGroupName: m.RBACGroupName, DeviceName: m.ComputerDNSName, ComponentType: part[0],
			Manufacturer: "fabrikam", ComponentName: part[1], ComponentVersion: part[2], ComponentFirst: m.FirstSeen, AdditionalFields: members{{"family", "laptop"}},
		})
	}
	return out
}

// byMachine is the handler of a JSON export.
func byMachine[T any](name string, rows rowsOf[T]) handler {
	return list(collection{name: "Collection(microsoft.windowsDefenderATP.api." + name + ")", export: true, page: 50_000, maxTop: maxExportPage},
		func(c *call) ([]T, error) { return allRows(c.fleet, rows), nil })
}

func allRows[T any](f *fleet, rows rowsOf[T]) []T {
	var out []T
	for _, m := range snapshot(f, &f.machines) {
		out = append(out, rows(f, &m)...)
	}
	return out
}

// fileWriter writes one part of an export as gzip of JSON lines.
type fileWriter func(f *fleet, part int, w io.Writer) error

// exportParts is into how many files an export is cut.
const exportParts = 2

func fileOf[T any](rows rowsOf[T]) fileWriter {
	return func(f *fleet, part int, w io.Writer) error {
		z := gzip.NewWriter(w)
		e := json.NewEncoder(z)
		e.SetEscapeHTML(false)
		for i, m := range snapshot(f, &f.machines) {
			if i%exportParts != part {
				continue
			}
			for _, row := range rows(f, &m) {
				if err := e.Encode(row); err != nil {
					return err
				}
			}
		}
		return z.Close()
	}
}

// exportFiles are the file exports by their operation.
var exportFiles = map[string]fileWriter{
	"machines.baselineComplianceAssessmentExport":   fileOf(baselineRows),
	"machines.browserextensionsinventoryExport":     fileOf(extensionRows),
	"machines.certificateAssessmentExport":          fileOf(certificateRows),
	"machines.hardwareFirmwareInventoryExport":      fileOf(hardwareRows),
	"machines.infoGatheringExport":                  fileOf(antivirusRows),
	"machines.secureConfigurationsAssessmentExport": fileOf(configurationRows),
	"machines.softwareInventoryExport":              fileOf(softwareRows(true)),
	"machines.softwareInventoryNonCpeExport":        fileOf(softwareRows(false)),
	"machines.softwareVulnerabilitiesExport":        fileOf(vulnerabilityRows),
}

func exportHandlers() map[string]handler {
	all := map[string]handler{
		"machines.baselineComplianceAssessmentByMachine":   byMachine("AssetBaselineAssessment", baselineRows),
		"machines.browserExtensionsInventoryByMachine":     byMachine("AssetBrowserExtension", extensionRows),
		"machines.certificateAssessmentByMachine":          byMachine("AssetCertificateAssessment", certificateRows),
		"machines.hardwareFirmwareInventoryByMachine":      byMachine("AssetHardwareFirmware", hardwareRows),
		"machines.secureConfigurationsAssessmentByMachine": byMachine("AssetConfiguration", configurationRows),
		"machines.softwareInventoryByMachine":              byMachine("AssetSoftware", softwareRows(true)),
		"machines.softwareInventoryNoProductCodeByMachine": byMachine("AssetNonCpeSoftware", softwareRows(false)),
		"machines.softwareVulnerabilitiesByMachine":        byMachine("AssetVulnerability", vulnerabilityRows),
		"machines.softwareVulnerabilityChangesByMachine": func(c *call) (reply, error) {
			text, ok := c.options.custom["sincetime"]
			if !ok {
				return reply{}, missing("sinceTime")
			}
			since, ok := parseTime(text)
			if !ok || since.Before(c.now.Add(-14*day)) || since.After(c.now) {
				return reply{}, invalidInput("Invalid input sinceTime: '%s' is not a time within the last 14 days.", text)
			}
			return byMachine("DeltaAssetVulnerability", changeRows(since))(c)
		},
	}
	for id := range exportFiles {
		all[id] = exportLinks
	}
	return all
}

// exportLinks answers with signed links to the files of the operation. They
// live one hour, or sasValidHours up to six; older pages of the certificate
// and antivirus exports allow 24.
func exportLinks(c *call) (reply, error) {
	hours, most := 1, 6
	if c.op.ID == "machines.certificateAssessmentExport" {
		hours, most = 3, 24
	}
	if text, ok := c.options.custom["sasvalidhours"]; ok {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return reply{}, invalidInput("Invalid input sasValidHours: '%s' is not a number from 1 to %d.", text, most)
		}
		hours = n
	}
	var links []string
	for part := range exportParts {
		name := fmt.Sprintf("exports/%s/%s/part-%05d.json.gz", c.fleet.tenantID, c.op.ID, part)
		links = append(links, c.sim.blobLink(name, c.now, time.Duration(hours)*time.Hour))
	}
	return reply{body: members{
		{"@odata.context", c.metadata() + "microsoft.windowsDefenderATP.api.ExportFilesResponse"},
		{"exportFiles", links},
		{"generatedTime", at(c.fleet.born)},
	}}, nil
}

// errNoFile is the answer to the name of a file that does not exist.
var errNoFile = errors.New("simulator: no such blob")

// writeExport writes the file that a blob's name stands for.
func (s *Simulator) writeExport(f *fleet, operation, file string, w io.Writer) error {
	write := exportFiles[operation]
	var part int
	if _, err := fmt.Sscanf(file, "part-%05d.json.gz", &part); err != nil || write == nil || part < 0 || part >= exportParts {
		return errNoFile
	}
	return write(f, part, w)
}
