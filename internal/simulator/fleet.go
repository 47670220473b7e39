package simulator

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// fleet is what one tenant has in Defender. What is generated refers to each
// other by place: the machine of an alert is a machine of the fleet, and so on.
//
// Slices that writes change are replaced as a whole, never altered in place:
// a reader takes the slice under the lock and goes on without it.
type fleet struct {
	tenantID, tenantName string
	// born is the start of the day on which the fleet was made. All times
	// count from it, so that one seed gives one fleet all day.
	born  time.Time
	rng   *rand.Rand // for the generation only
	users []user
	files []file
	// domains and ips are those that alerts saw.
	domains, ips []string
	softwares    []software
	vulns        []vulnerability
	bySoftware   [][]int // vulnerabilities of each software

	mu             sync.RWMutex
	machines       []machine
	machineAt      map[string]int // by id; machines never go
	alerts         []alert
	alertAt        map[string]int // by id; alerts never go
	incidents      []incident
	investigations []investigation
	actions        []action
	indicators     []indicator
	library        []libraryFile
	agents         []scanAgent
	scans          []scanDefinition
	sessions       []scanSession
	nextID         int64 // of indicators, investigations and incidents that writes add
}

// maxAdded bounds what writes may add of each kind. 15,000 is the documented
// limit of indicators.
const maxAdded = 15_000

// snapshot reads a slice that writes replace.
func snapshot[T any](f *fleet, s *[]T) []T {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return *s
}

// newFleet generates the fleet of a tenant.
func newFleet(cfg Config, tenantID, tenantName string) *fleet {
	sum := sha256.Sum256([]byte(tenantID))
	f := &fleet{
		tenantID: tenantID, tenantName: tenantName,
		born:      cfg.Now().UTC().Truncate(24 * time.Hour),
		rng:       rand.New(rand.NewPCG(cfg.Seed, binary.BigEndian.Uint64(sum[:8]))),
		machineAt: map[string]int{}, alertAt: map[string]int{}, nextID: 5000,
	}
	f.makeUsers(max(8, cfg.Machines/2))
	f.makeSoftware()
	f.makeVulnerabilities(cfg.Vulnerabilities)
	f.makeMachines(cfg.Machines)
	f.countExposure()
	f.makeFiles(60)
	for i := range 40 {
		f.domains = append(f.domains, fmt.Sprintf("%s-%02d.example.net", pick(f, "cdn", "login", "update", "files", "mail"), i))
		f.ips = append(f.ips, fmt.Sprintf("203.0.113.%d", i+1))
	}
	f.makeAlerts(cfg.Alerts)
	f.makeManagement()
	return f
}

// pick chooses one of some.
func pick[T any](f *fleet, from ...T) T { return from[f.rng.IntN(len(from))] }

// ago is a time between now and a while before the fleet was made.
func (f *fleet) ago(most time.Duration) instant {
	return at(f.born.Add(-time.Duration(f.rng.Int64N(int64(most)))).Truncate(time.Microsecond))
}

const day = 24 * time.Hour

// hex gives n random bytes in hexadecimal.
func (f *fleet) hex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(f.rng.Uint32())
	}
	return hex.EncodeToString(b)
}

// guid gives a random GUID of the fleet's own sequence.
func (f *fleet) guid() string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], f.rng.Uint64())
	binary.BigEndian.PutUint64(id[8:], f.rng.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id.String()
}

func (f *fleet) makeUsers(n int) {
	first := []string{"ada", "ben", "cleo", "dara", "emil", "fred", "gina", "hugo", "ines", "jan", "kira", "lars", "mona", "nils", "olga", "paul"}
	for i := range n {
		name := fmt.Sprintf("%s%d", first[i%len(first)], i/len(first)+1)
		seen := f.ago(60 * day)
		f.users = append(f.users, user{
			ID: f.tenantName + `\` + name, AccountName: name, AccountDomain: f.tenantName,
			AccountSID: fmt.Sprintf("S-1-5-21-1004336348-1177238915-682003330-%d", 1000+i),
			FirstSeen:  at(seen.Add(-30 * day)), LastSeen: seen,
			LogonTypes: pick(f, "Interactive", "Interactive, RemoteInteractive", "Network"), IsDomainAdmin: i%23 == 0,
			IsOnlyNetworkUser: i%17 == 3,
		})
	}
}

// platform is an operating system as the machine resource names it.
type platform struct {
	name, version, kind string
	build               int
	server              bool
}

var platforms = []platform{
	{"Windows11", "23H2", "windows", 22631, false},
	{"Windows11", "22H2", "windows", 22621, false},
	{"Windows10", "22H2", "windows", 19045, false},
	{"WindowsServer2022", "21H2", "windows", 20348, true},
	{"WindowsServer2019", "1809", "windows", 17763, true},
	{"Linux", "22.4", "linux", 0, true},
	{"macOS", "14.5", "mac", 0, false},
}

func (p platform) windows() bool { return p.kind == "windows" }

func platformNamed(name string) platform {
	i := slices.IndexFunc(platforms, func(p platform) bool { return p.name == name })
	return platforms[max(i, 0)]
}

func (f *fleet) makeMachines(n int) {
	for i := range n {
		p := platforms[i%len(platforms)]
		group, groupName, prefix := 1, "Workstations", "wks"
		if p.server {
			group, groupName, prefix = 2, "Servers", "srv"
		}
		address := fmt.Sprintf("10.%d.%d.%d", i>>16&0xff, i>>8&0xff, i&0xff)
		m := machine{
			ID:              f.hex(20),
			ComputerDNSName: fmt.Sprintf("%s-%05d.%s.example", prefix, i, f.tenantName),
			FirstSeen:       at(f.ago(300 * day).Add(-30 * day)), LastSeen: f.ago(7 * day),
			OSPlatform: p.name, OSProcessor: "x64", OSArchitecture: "64-bit", Version: p.version, OSBuild: p.build,
			LastIPAddress: address, LastExternalIPAddress: fmt.Sprintf("198.51.100.%d", i%250+1),
			AgentVersion: fmt.Sprintf("10.8760.%d.1040", p.build),
			HealthStatus: pick(f, "Active", "Active", "Active", "Inactive", "ImpairedCommunication", "NoSensorData"),
			DeviceValue:  pick(f, "Normal", "Normal", "Normal", "High", "Low"), RBACGroupID: group, RBACGroupName: groupName,
			RiskScore:     pick(f, "None", "None", "Informational", "Low", "Medium", "High"),
			ExposureLevel: pick(f, "None", "Low", "Medium", "High"),
			IsAADJoined:   p.windows() && !p.server, MachineTags: []string{}, DefenderAVStatus: pick(f, "Updated", "Updated", "NotUpdated", "Unknown"),
			OnboardingStatus: "Onboarded", ManagedBy: pick(f, "Intune", "MDE", "Unknown"), ManagedByStatus: "Success",
			IPAddresses: []ipAddress{{address, "00155D" + strings.ToUpper(f.hex(3)), "Ethernet", "Up"}},
		}
		if m.IsAADJoined {
			m.AADDeviceID = optional(f.guid())
		}
		if i%5 == 0 {
			m.MachineTags = append(m.MachineTags, pick(f, "finance", "lab", "vip", "o'brien's team"))
		}
		for range 1 + f.rng.IntN(3) {
			if u := f.rng.IntN(len(f.users)); !slices.Contains(m.users, u) {
				m.users = append(m.users, u)
			}
		}
		for s := range f.softwares {
			if f.rng.IntN(3) == 0 {
				m.installs = append(m.installs, install{s, f.rng.IntN(len(f.softwares[s].versions))})
			}
		}
		for _, u := range m.users {
			f.users[u].LogOnMachinesCount++
			if f.users[u].MostPrevalentMachineID == "" {
				f.users[u].MostPrevalentMachineID = m.ID
			}
			f.users[u].LeastPrevalentMachineID = m.ID
		}
		f.machineAt[m.ID] = i
		f.machines = append(f.machines, m)
	}
}

func (f *fleet) makeFiles(n int) {
	for i := range n {
		first := f.ago(700 * day)
		f.files = append(f.files, file{
			SHA1: f.hex(20), SHA256: f.hex(32), GlobalPrevalence: 1 + f.rng.IntN(200_000),
			GlobalFirstObserved: first, GlobalLastObserved: f.ago(day), Size: 1024 + f.rng.IntN(4<<20),
			FileType: "APP", IsPeFile: true, FilePublisher: pick(f, "Contoso Ltd", "Fabrikam", "Unknown"),
			FileProductName: fmt.Sprintf("Tool %d", i), Signer: "Contoso Code Signing", Issuer: "Contoso Issuing CA",
			SignerHash: f.hex(20), IsValidCertificate: i%7 != 0, DeterminationType: pick(f, "Clean", "Unknown", "Malware"),
			DeterminationValue: "", name: fmt.Sprintf("%s%d.exe", pick(f, "setup", "invoice", "helper", "update", "reader"), i),
		})
	}
}

// kinds of alerts: title, category, technique, source.
var alertKinds = [][4]string{
	{"Suspicious PowerShell command line", "Execution", "T1059.001", "WindowsDefenderAtp"},
	{"'Mimikatz' credential theft tool was detected", "CredentialAccess", "T1003", "WindowsDefenderAv"},
	{"Possible ransomware activity", "Ransomware", "T1486", "WindowsDefenderAtp"},
	{"Connection to a custom network indicator", "CommandAndControl", "T1071", "CustomerTI"},
	{"Anomalous token", "InitialAccess", "T1078", "MTP"},
	{"Suspicious scheduled task", "Persistence", "T1053.005", "WindowsDefenderAtp"},
	{"Network connection to a risky host", "Exfiltration", "T1041", "WindowsDefenderSmartScreen"},
}

func (f *fleet) makeAlerts(n int) {
	incidentOf := 0
	for i := range n {
		if i == 0 || f.rng.IntN(3) > 0 {
			incidentOf++
			f.incidents = append(f.incidents, incident{ID: int64(incidentOf)})
		}
		mi := f.rng.IntN(len(f.machines))
		m := &f.machines[mi]
		kind := alertKinds[f.rng.IntN(len(alertKinds))]
		created := at(f.born.Add(-time.Duration(i) * 30 * day / time.Duration(n)).Add(-time.Minute))
		a := alert{
			ID:         fmt.Sprintf("da%d_%d", 638_000_000_000_000_000+int64(i)*7919, f.rng.Int32()),
			IncidentID: int64(incidentOf),
			Severity:   pick(f, "Informational", "Low", "Medium", "Medium", "High"), Status: pick(f, "New", "New", "InProgress", "Resolved"),
			InvestigationState: "UnsupportedAlertType", DetectionSource: kind[3], DetectorID: f.guid(), Category: kind[1],
			Title: kind[0], Description: "The simulator made this alert: " + kind[0] + ".",
			AlertCreationTime: created, FirstEventTime: at(created.Add(-20 * time.Minute)), LastEventTime: at(created.Add(-5 * time.Minute)),
			LastUpdateTime: at(created.Add(time.Hour)), AADTenantID: f.tenantID, MitreTechniques: []string{kind[2]}, Comments: []comment{},
			links: alertLinks{mi, m.users[0], f.rng.IntN(len(f.files)), f.rng.IntN(len(f.domains)), f.rng.IntN(len(f.ips))},
		}
		if a.Status == "Resolved" {
			a.ResolvedTime = a.LastUpdateTime
			a.Classification, a.Determination = "TruePositive", "Malware"
		}
		if i%2 == 0 {
			a.AssignedTo = optional("analyst@" + f.tenantName + ".onmicrosoft.com")
		}
		if kind[1] == "CredentialAccess" {
			a.ThreatFamilyName, a.ThreatName = "Mimikatz", "HackTool:Win32/Mimikatz"
		}
		f.describe(&a)
		if i%3 == 0 {
			id := int64(100 + i/3)
			a.InvestigationID, a.InvestigationState = optionalInt(id), "SuccessfullyRemediated"
			f.investigations = append(f.investigations, investigation{
				ID: strconv.FormatInt(id, 10), StartTime: created, EndTime: at(created.Add(9 * time.Minute)), State: "SuccessfullyRemediated",
				MachineID: a.MachineID, ComputerDNSName: a.ComputerDNSName, TriggeringAlertID: a.ID,
			})
		}
		f.alertAt[a.ID] = i
		f.alerts = append(f.alerts, a)
	}
	byIncident := f.alertsByIncident()
	for i := range f.incidents {
		f.incidents[i].complete(byIncident[f.incidents[i].ID])
	}
}

// describe fills in what an alert says of machine, user and evidence.
func (f *fleet) describe(a *alert) {
	m, u, x := &f.machines[a.links.machine], &f.users[a.links.user], &f.files[a.links.file]
	a.MachineID, a.ComputerDNSName, a.RBACGroupName = m.ID, m.ComputerDNSName, m.RBACGroupName
	a.RelatedUser = &relatedUser{u.AccountName, u.AccountDomain}
	a.LoggedOnUsers = []loggedOnUser{}
	for _, i := range m.users {
		a.LoggedOnUsers = append(a.LoggedOnUsers, loggedOnUser{f.users[i].AccountName, f.users[i].AccountDomain})
	}
	when := a.AlertCreationTime
	a.Evidence = []evidence{
		{EntityType: "User", EvidenceCreationTime: when, AccountName: optional(u.AccountName), DomainName: optional(u.AccountDomain),
			UserSID: optional(u.AccountSID), UserPrincipalName: optional(u.AccountName + "@" + f.tenantName + ".onmicrosoft.com")},
		{EntityType: "Process", EvidenceCreationTime: when, SHA1: optional(x.SHA1), SHA256: optional(x.SHA256), FileName: optional(x.name),
			FilePath: `C:\Users\Public`, ProcessID: optionalInt(4000 + a.links.file), ProcessCommandLine: optional(`"` + x.name + `" /quiet`),
			ProcessCreationTime: a.FirstEventTime, ParentProcessID: 812, DetectionStatus: "Detected"},
		{EntityType: "File", EvidenceCreationTime: when, SHA1: optional(x.SHA1), SHA256: optional(x.SHA256), FileName: optional(x.name),
			FilePath: `C:\Users\Public`, DetectionStatus: "Detected"},
		{EntityType: "Url", EvidenceCreationTime: when, URL: optional(f.domains[a.links.domain])},
		{EntityType: "Ip", EvidenceCreationTime: when, IPAddress: optional(f.ips[a.links.ip])},
	}
}

// makeManagement fills what administrators made: indicators, library files,
// scans, and some machine actions of the past.
func (f *fleet) makeManagement() {
	for i := range 45 {
		kind, value := "FileSha1", f.files[i%len(f.files)].SHA1
		switch i % 4 {
		case 1:
			kind, value = "DomainName", f.domains[i%len(f.domains)]
		case 2:
			kind, value = "IpAddress", f.ips[i%len(f.ips)]
		case 3:
			kind, value = "FileSha256", f.files[i%len(f.files)].SHA256
		}
		made := f.ago(90 * day)
		f.indicators = append(f.indicators, indicator{
			ID: strconv.Itoa(1000 + i), IndicatorValue: value, IndicatorType: kind, Action: pick(f, "Audit", "Warn", "Block", "Allowed"),
			CreatedBy: DefaultClientID, Severity: optional(pick(f, "Informational", "Low", "Medium", "High")), Category: 1, Application: "feed",
			Title: fmt.Sprintf("Indicator %d", i), Description: "Of the simulator's feed.", RecommendedActions: "None",
			CreationTimeDateTimeUTC: made, LastUpdateTime: made, ExpirationTime: at(f.born.Add(time.Duration(30+i) * day)),
			RBACGroupNames: []string{}, RBACGroupIDs: []string{}, GenerateAlert: true, CreatedByDisplayName: "Feed", CreatedBySource: "PublicApi",
		})
	}
	for _, name := range []string{"collect-logs.ps1", "list processes.ps1", "triage.sh"} {
		made := f.ago(90 * day)
		f.library = append(f.library, libraryFile{FileName: name, SHA256: f.hex(32), Description: optional("Script " + name),
			CreationTime: made, LastUpdatedTime: made, CreatedBy: "analyst@" + f.tenantName + ".onmicrosoft.com"})
	}
	for i := range 3 {
		m := &f.machines[i%len(f.machines)]
		f.agents = append(f.agents, scanAgent{ID: f.guid(), MachineID: m.ID, MachineName: m.ComputerDNSName, LastSeen: m.LastSeen,
			AssignedApplicationID: f.guid(), ScannerSoftwareVer: "1.3.7", LastCommandExecution: m.LastSeen, Mode: "Unified"})
		agent := f.agents[i]
		scan := scanDefinition{ID: f.guid(), ScanType: "Network", ScanName: fmt.Sprintf("Scan %d", i+1), IsActive: true, OrgID: f.tenantID,
			CreatedBy: "analyst@" + f.tenantName + ".onmicrosoft.com", CreatedOn: f.ago(60 * day), LastUpdated: f.ago(30 * day), IntervalInHours: 4,
			Target: fmt.Sprintf("10.0.%d.0/24", i), TargetType: "Ip", ScannerAgent: &agent,
			ScanAuthenticationParams: &scanCredentials{ODataType: "#microsoft.windowsDefenderATP.api.SnmpAuthParams", Type: "NoAuthNoPriv", Username: "scanner"}}
		for range 4 {
			session := scanSession{OrgID: f.tenantID, ScanDefinitionID: scan.ID, SessionID: f.guid(), ScanStatus: "Success", LastScanned: f.ago(10 * day),
				ScannedDevices: f.rng.IntN(40), ScannerAgentID: agent.ID, TargetsConfiguration: scan.Target}
			scan.LatestScanSession = optional(session.SessionID)
			f.sessions = append(f.sessions, session)
		}
		f.scans = append(f.scans, scan)
	}
	kinds := []string{"RunAntiVirusScan", "Isolate", "Unisolate", "CollectInvestigationPackage", "RestrictCodeExecution"}
	for i := range 24 {
		m := &f.machines[f.rng.IntN(len(f.machines))]
		made := f.ago(20 * day)
		f.actions = append(f.actions, action{begun: made.Time, machineAction: machineAction{
			ID: f.guid(), Type: kinds[i%len(kinds)], Requestor: "analyst@" + f.tenantName + ".onmicrosoft.com", RequestorComment: "By the simulator",
			MachineID: m.ID, ComputerDNSName: m.ComputerDNSName, CreationDateTimeUTC: made, RequestSource: "Portal", Commands: []commandResult{},
		}})
	}
}

// machine finds a machine by id or by name, without regard to case.
func (f *fleet) machine(key string) (machine, *problem) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if i, ok := f.machineAt[strings.ToLower(key)]; ok {
		return f.machines[i], nil
	}
	for _, m := range f.machines {
		if strings.EqualFold(m.ComputerDNSName, key) {
			return m, nil
		}
	}
	return machine{}, notFound("machine", key)
}

// alert finds an alert by id.
func (f *fleet) alert(id string) (alert, *problem) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if i, ok := f.alertAt[id]; ok {
		return f.alerts[i], nil
	}
	return alert{}, notFound("alert", id)
}

// changeMachine replaces a machine by what change makes of it.
func (f *fleet) changeMachine(key string, change func(*machine)) (machine, *problem) {
	m, p := f.machine(key)
	if p != nil {
		return machine{}, p
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.machineAt[m.ID]
	f.machines = slices.Clone(f.machines)
	change(&f.machines[i])
	return f.machines[i], nil
}

// changeAlert replaces an alert by what change makes of it.
func (f *fleet) changeAlert(id string, now time.Time, change func(*alert)) (alert, *problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, ok := f.alertAt[id]
	if !ok {
		return alert{}, notFound("alert", id)
	}
	f.alerts = slices.Clone(f.alerts)
	change(&f.alerts[i])
	f.alerts[i].LastUpdateTime = at(now)
	if f.alerts[i].Status == "Resolved" && f.alerts[i].ResolvedTime.IsZero() {
		f.alerts[i].ResolvedTime = at(now)
	}
	return f.alerts[i], nil
}

// full refuses to let a slice grow without end.
func full[T any](s []T) *problem {
	if len(s) < maxAdded {
		return nil
	}
	return problemf(400, "BadRequest", "The limit of %d objects of this kind has been reached.", maxAdded)
}
