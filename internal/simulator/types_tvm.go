package simulator

// Resource types of vulnerability management, scores and authenticated scans
// (learn.microsoft.com/defender-endpoint/api/vulnerability, software,
// recommendation, get-remediation-methods-properties …).

type software struct {
	ID                string  `json:"id" odata:"filter"`
	Name              string  `json:"name" odata:"filter"`
	Vendor            string  `json:"vendor" odata:"filter"`
	Weaknesses        int     `json:"weaknesses"`
	PublicExploit     bool    `json:"publicExploit"`
	ActiveAlert       bool    `json:"activeAlert"`
	ExposedMachines   int     `json:"exposedMachines"`
	InstalledMachines int     `json:"installedMachines"`
	ImpactScore       float64 `json:"impactScore"`
	IsNormalized      bool    `json:"isNormalized"`
	Category          string  `json:"category"`
	versions          []string
}

type distribution struct {
	Version         string `json:"version"`
	Installations   int    `json:"installations"`
	Vulnerabilities int    `json:"vulnerabilities"`
}

type vulnerability struct {
	ID                  string   `json:"id" odata:"filter"`
	Name                string   `json:"name" odata:"filter"`
	Description         string   `json:"description" odata:"filter"`
	Severity            string   `json:"severity" odata:"filter"`
	CVSSV3              float64  `json:"cvssV3" odata:"filter"`
	CVSSVector          string   `json:"cvssVector"`
	ExposedMachines     int      `json:"exposedMachines"`
	PublishedOn         instant  `json:"publishedOn" odata:"filter"`
	UpdatedOn           instant  `json:"updatedOn" odata:"filter"`
	FirstDetected       instant  `json:"firstDetected"`
	PatchFirstAvailable instant  `json:"patchFirstAvailable"`
	PublicExploit       bool     `json:"publicExploit"`
	ExploitVerified     bool     `json:"exploitVerified"`
	ExploitInKit        bool     `json:"exploitInKit"`
	ExploitTypes        []string `json:"exploitTypes"`
	ExploitURIs         []string `json:"exploitUris"`
	CVESupportability   string   `json:"cveSupportability"`
	Tags                []string `json:"tags"`
	EPSS                float64  `json:"epss"`
	software            int      // index in the fleet
	fixedIn             int      // versions of the software below this index have it
}

type machineVulnerability struct {
	ID             string   `json:"id" odata:"filter"`
	CVEID          string   `json:"cveId" odata:"filter"`
	MachineID      string   `json:"machineId" odata:"filter"`
	FixingKBID     optional `json:"fixingKbId" odata:"filter"`
	ProductName    string   `json:"productName" odata:"filter"`
	ProductVendor  string   `json:"productVendor" odata:"filter"`
	ProductVersion string   `json:"productVersion" odata:"filter"`
	Severity       string   `json:"severity" odata:"filter"`
}

type machineReference struct {
	ID              string `json:"id"`
	ComputerDNSName string `json:"computerDnsName"`
	OSPlatform      string `json:"osPlatform"`
	RBACGroupName   string `json:"rbacGroupName"`
}

type recommendation struct {
	ID                            string   `json:"id" odata:"filter"`
	ProductName                   string   `json:"productName" odata:"filter"`
	RecommendationName            string   `json:"recommendationName"`
	Weaknesses                    int      `json:"weaknesses"`
	Vendor                        string   `json:"vendor" odata:"filter"`
	RecommendedVersion            string   `json:"recommendedVersion" odata:"filter"`
	RecommendedVendor             string   `json:"recommendedVendor" odata:"filter"`
	RecommendedProgram            string   `json:"recommendedProgram" odata:"filter"`
	RecommendationCategory        string   `json:"recommendationCategory" odata:"filter"`
	SubCategory                   string   `json:"subCategory" odata:"filter"`
	SeverityScore                 float64  `json:"severityScore" odata:"filter"`
	PublicExploit                 bool     `json:"publicExploit"`
	ActiveAlert                   bool     `json:"activeAlert"`
	AssociatedThreats             []string `json:"associatedThreats"`
	RemediationType               string   `json:"remediationType" odata:"filter"`
	Status                        string   `json:"status" odata:"filter"`
	ConfigScoreImpact             float64  `json:"configScoreImpact"`
	ExposureImpact                float64  `json:"exposureImpact"`
	TotalMachineCount             int      `json:"totalMachineCount"`
	ExposedMachinesCount          int      `json:"exposedMachinesCount"`
	NonProductivityImpactedAssets int      `json:"nonProductivityImpactedAssets"`
	RelatedComponent              string   `json:"relatedComponent"`
	HasUnpatchableCVE             bool     `json:"hasUnpatchableCve"`
	Tags                          []string `json:"tags"`
	ExposedCriticalDevices        int      `json:"exposedCriticalDevices"`
	software                      int
}

type productFix struct {
	ID              string   `json:"id"`
	Name            string   `json:"name"`
	ProductsNames   []string `json:"productsNames"`
	URL             string   `json:"url"`
	MachineMissedOn int      `json:"machineMissedOn"`
	CVEAddressed    int      `json:"cveAddressed"`
}

type remediationTask struct {
	ID                   string   `json:"id"`
	Title                string   `json:"title"`
	CreatedOn            instant  `json:"createdOn" odata:"filter"`
	RequesterID          string   `json:"requesterId"`
	RequesterEmail       string   `json:"requesterEmail"`
	Status               string   `json:"status" odata:"filter"`
	StatusLastModifiedOn instant  `json:"statusLastModifiedOn"`
	Description          string   `json:"description"`
	RelatedComponent     string   `json:"relatedComponent"`
	TargetDevices        int      `json:"targetDevices"`
	RBACGroupNames       []string `json:"rbacGroupNames"`
	FixedDevices         int      `json:"fixedDevices"`
	RequesterNotes       string   `json:"requesterNotes"`
	DueOn                instant  `json:"dueOn"`
	Category             string   `json:"category"`
	ProductivityImpact   optional `json:"productivityImpactRemediationType"`
	Priority             string   `json:"priority"`
	CompletionMethod     optional `json:"completionMethod"`
	CompleterID          optional `json:"completerId"`
	CompleterEmail       optional `json:"completerEmail"`
	SCID                 optional `json:"scid"`
	Type                 string   `json:"type"`
	ProductID            string   `json:"productId"`
	VendorID             string   `json:"vendorId"`
	NameID               string   `json:"nameId"`
	RecommendedVersion   string   `json:"recommendedVersion"`
	RecommendedVendor    string   `json:"recommendedVendor"`
	RecommendedProgram   string   `json:"recommendedProgram"`
	software             int
}

type score struct {
	Time  instant `json:"time"`
	Score float64 `json:"score"`
}

type groupScore struct {
	Time          instant `json:"time"`
	Score         float64 `json:"score"`
	RBACGroupName string  `json:"rbacGroupName"`
}

type extensionPermission struct {
	Key            string `json:"key"`
	PermissionName string `json:"permissionName"`
	Description    string `json:"description"`
}

type baselineConfiguration struct {
	ID                string   `json:"id" odata:"filter"`
	UniqueID          string   `json:"uniqueId"`
	BenchmarkName     string   `json:"benchmarkName"`
	BenchmarkVersion  string   `json:"benchmarkVersion"`
	Name              string   `json:"name" odata:"filter"`
	Description       string   `json:"description"`
	Category          string   `json:"category" odata:"filter"`
	ComplianceLevels  []string `json:"complianceLevels"`
	CCE               string   `json:"cce" odata:"filter"`
	Rationale         string   `json:"rationale"`
	RecommendedValue  string   `json:"recommendedValue"`
	Source            string   `json:"source"`
	IsCustom          bool     `json:"isCustom"`
	Remediation       string   `json:"remediation"`
	BenchmarkSettings int      `json:"benchmarkSettings"`
}

type baselineProfile struct {
	ID                     string  `json:"id" odata:"filter"`
	Name                   string  `json:"name" odata:"filter"`
	Description            string  `json:"description"`
	Benchmark              string  `json:"benchmark"`
	Version                string  `json:"version"`
	OperatingSystem        string  `json:"operatingSystem" odata:"filter"`
	OperatingSystemVersion string  `json:"operatingSystemVersion" odata:"filter"`
	Status                 bool    `json:"status" odata:"filter"`
	ComplianceLevel        string  `json:"complianceLevel"`
	SettingsNumber         int     `json:"settingsNumber" odata:"filter"`
	CreatedBy              string  `json:"createdBy"`
	LastUpdatedBy          string  `json:"lastUpdatedBy"`
	CreatedOnTimestampUTC  instant `json:"createdOnTimestampUTC"`
	LastUpdateTimestampUTC instant `json:"lastUpdateTimestampUTC"`
	PassedDevices          int     `json:"passedDevices" odata:"filter"`
	TotalDevices           int     `json:"totalDevices" odata:"filter"`
}

type scanAgent struct {
	ID                    string  `json:"id"`
	MachineID             string  `json:"machineId"`
	MachineName           string  `json:"machineName"`
	LastSeen              instant `json:"lastSeen"`
	AssignedApplicationID string  `json:"assignedApplicationId"`
	ScannerSoftwareVer    string  `json:"scannerSoftwareVersion"`
	LastCommandExecution  instant `json:"lastCommandExecutionTimestamp"`
	Mode                  string  `json:"mode"`
}

type scanDefinition struct {
	ID                       string           `json:"id"`
	ScanType                 string           `json:"scanType"`
	ScanName                 string           `json:"scanName"`
	IsActive                 bool             `json:"isActive"`
	OrgID                    string           `json:"orgId"`
	CreatedBy                string           `json:"createdBy"`
	CreatedOn                instant          `json:"createdOn"`
	LastUpdated              instant          `json:"lastUpdated"`
	IntervalInHours          int              `json:"intervalInHours"`
	Target                   string           `json:"target"`
	TargetType               string           `json:"targetType"`
	ScannerAgent             *scanAgent       `json:"scannerAgent"`
	ScanAuthenticationParams *scanCredentials `json:"scanAuthenticationParams"`
	LatestScanSession        optional         `json:"latestScanSessionId"`
}

// scanCredentials is how a scan signs in. Passwords that callers send are not
// kept.
type scanCredentials struct {
	ODataType  string   `json:"@odata.type"`
	Type       string   `json:"type"`
	Username   optional `json:"username"`
	Domain     optional `json:"domain"`
	IsGMSAUser bool     `json:"isGmsaUser"`
}

type scanSession struct {
	OrgID                string   `json:"orgId"`
	ScanDefinitionID     string   `json:"scanDefinitionId"`
	SessionID            string   `json:"sessionId"`
	ScanStatus           string   `json:"scanStatus"`
	LastScanned          instant  `json:"lastScanned"`
	ScannedDevices       int      `json:"numberOfSuccessfullyScannedTargets"`
	GeneralErrorMessage  optional `json:"generalErrorMessage"`
	ScannerAgentID       string   `json:"scannerAgentId"`
	TargetsConfiguration string   `json:"target"`
}

type deviceAVInfo struct {
	ID                     string  `json:"id"`
	MachineID              string  `json:"machineId" odata:"filter"`
	ComputerDNSName        string  `json:"computerDnsName" odata:"filter"`
	OSKind                 string  `json:"osKind" odata:"filter"`
	OSPlatform             string  `json:"osPlatform" odata:"filter"`
	OSVersion              string  `json:"osVersion" odata:"filter"`
	AVMode                 string  `json:"avMode" odata:"filter"`
	AVSignatureVersion     string  `json:"avSignatureVersion" odata:"filter"`
	AVEngineVersion        string  `json:"avEngineVersion" odata:"filter"`
	AVPlatformVersion      string  `json:"avPlatformVersion" odata:"filter"`
	LastSeenTime           instant `json:"lastSeenTime" odata:"filter"`
	QuickScanResult        string  `json:"quickScanResult" odata:"filter"`
	QuickScanError         string  `json:"quickScanError" odata:"filter"`
	QuickScanTime          instant `json:"quickScanTime" odata:"filter"`
	FullScanResult         string  `json:"fullScanResult" odata:"filter"`
	FullScanError          string  `json:"fullScanError" odata:"filter"`
	FullScanTime           instant `json:"fullScanTime" odata:"filter"`
	DataRefreshTimestamp   instant `json:"dataRefreshTimestamp" odata:"filter"`
	AVEngineUpdateTime     instant `json:"avEngineUpdateTime" odata:"filter"`
	AVSignatureUpdateTime  instant `json:"avSignatureUpdateTime" odata:"filter"`
	AVPlatformUpdateTime   instant `json:"avPlatformUpdateTime" odata:"filter"`
	AVIsSignatureUpToDate  string  `json:"avIsSignatureUpToDate" odata:"filter"`
	AVIsEngineUpToDate     string  `json:"avIsEngineUpToDate" odata:"filter"`
	AVIsPlatformUpToDate   string  `json:"avIsPlatformUpToDate" odata:"filter"`
	AVSignaturePublishTime instant `json:"avSignaturePublishTime" odata:"filter"`
	RBACGroupName          string  `json:"rbacGroupName"`
	RBACGroupID            int     `json:"rbacGroupId" odata:"filter"`
}
