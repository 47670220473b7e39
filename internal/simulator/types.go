package simulator

// Resource types of Defender for Endpoint, in the order in which the pages
// print them (learn.microsoft.com/defender-endpoint/api/alerts, machine,
// machineaction, investigation, ti-indicator, files, user …). The tag
// odata:"filter" marks what a page lists for $filter.

type alert struct {
	ID                 string         `json:"id" odata:"filter"`
	IncidentID         int64          `json:"incidentId" odata:"filter"`
	InvestigationID    optionalInt    `json:"investigationId" odata:"filter"`
	AssignedTo         optional       `json:"assignedTo" odata:"filter"`
	Severity           string         `json:"severity" odata:"filter"`
	Status             string         `json:"status" odata:"filter"`
	Classification     optional       `json:"classification"`
	Determination      optional       `json:"determination"`
	InvestigationState string         `json:"investigationState"`
	DetectionSource    string         `json:"detectionSource" odata:"filter"`
	DetectorID         string         `json:"detectorId"`
	Category           string         `json:"category" odata:"filter"`
	ThreatFamilyName   optional       `json:"threatFamilyName"`
	Title              string         `json:"title"`
	Description        string         `json:"description"`
	AlertCreationTime  instant        `json:"alertCreationTime" odata:"filter"`
	FirstEventTime     instant        `json:"firstEventTime"`
	LastEventTime      instant        `json:"lastEventTime" odata:"filter"`
	LastUpdateTime     instant        `json:"lastUpdateTime" odata:"filter"`
	ResolvedTime       instant        `json:"resolvedTime"`
	MachineID          string         `json:"machineId"`
	ComputerDNSName    string         `json:"computerDnsName"`
	RBACGroupName      string         `json:"rbacGroupName"`
	AADTenantID        string         `json:"aadTenantId"`
	ThreatName         optional       `json:"threatName"`
	MitreTechniques    []string       `json:"mitreTechniques"`
	RelatedUser        *relatedUser   `json:"relatedUser"`
	LoggedOnUsers      []loggedOnUser `json:"loggedOnUsers"`
	Comments           []comment      `json:"comments"`
	Evidence           []evidence     `json:"evidence" odata:"expand"`
	recommendedAction  string
	links              alertLinks
}

// alertLinks are the places in the fleet of what an alert is about.
type alertLinks struct{ machine, user, file, domain, ip int }

type relatedUser struct {
	UserName   string `json:"userName"`
	DomainName string `json:"domainName"`
}

type loggedOnUser struct {
	AccountName string `json:"accountName"`
	DomainName  string `json:"domainName"`
}

type comment struct {
	Comment     string  `json:"comment"`
	CreatedBy   string  `json:"createdBy"`
	CreatedTime instant `json:"createdTime"`
}

type evidence struct {
	EntityType           string      `json:"entityType"`
	EvidenceCreationTime instant     `json:"evidenceCreationTime"`
	SHA1                 optional    `json:"sha1"`
	SHA256               optional    `json:"sha256"`
	FileName             optional    `json:"fileName"`
	FilePath             optional    `json:"filePath"`
	ProcessID            optionalInt `json:"processId"`
	ProcessCommandLine   optional    `json:"processCommandLine"`
	ProcessCreationTime  instant     `json:"processCreationTime"`
	ParentProcessID      optionalInt `json:"parentProcessId"`
	IPAddress            optional    `json:"ipAddress"`
	URL                  optional    `json:"url"`
	AccountName          optional    `json:"accountName"`
	DomainName           optional    `json:"domainName"`
	UserSID              optional    `json:"userSid"`
	AADUserID            optional    `json:"aadUserId"`
	UserPrincipalName    optional    `json:"userPrincipalName"`
	DetectionStatus      optional    `json:"detectionStatus"`
}

type machine struct {
	ID                     string      `json:"id" odata:"filter"`
	MergedIntoMachineID    optional    `json:"mergedIntoMachineId"`
	IsPotentialDuplication bool        `json:"isPotentialDuplication"`
	IsExcluded             bool        `json:"isExcluded"`
	ExclusionReason        optional    `json:"exclusionReason"`
	ComputerDNSName        string      `json:"computerDnsName" odata:"filter"`
	FirstSeen              instant     `json:"firstSeen"`
	LastSeen               instant     `json:"lastSeen" odata:"filter"`
	OSPlatform             string      `json:"osPlatform" odata:"filter"`
	OSVersion              optional    `json:"osVersion"`
	OSProcessor            string      `json:"osProcessor"`
	Version                string      `json:"version" odata:"filter"`
	LastIPAddress          string      `json:"lastIpAddress" odata:"filter"`
	LastExternalIPAddress  string      `json:"lastExternalIpAddress"`
	AgentVersion           string      `json:"agentVersion"`
	OSBuild                int         `json:"osBuild"`
	HealthStatus           string      `json:"healthStatus" odata:"filter"`
	DeviceValue            string      `json:"deviceValue" odata:"filter"`
	RBACGroupID            int         `json:"rbacGroupId" odata:"filter"`
	RBACGroupName          string      `json:"rbacGroupName"`
	RiskScore              string      `json:"riskScore" odata:"filter"`
	ExposureLevel          string      `json:"exposureLevel" odata:"filter"`
	IsAADJoined            bool        `json:"isAadJoined"`
	AADDeviceID            optional    `json:"aadDeviceId" odata:"filter"`
	MachineTags            []string    `json:"machineTags" odata:"filter"`
	DefenderAVStatus       string      `json:"defenderAvStatus"`
	OnboardingStatus       string      `json:"onboardingStatus" odata:"filter"`
	OSArchitecture         string      `json:"osArchitecture"`
	ManagedBy              string      `json:"managedBy"`
	ManagedByStatus        string      `json:"managedByStatus"`
	IPAddresses            []ipAddress `json:"ipAddresses"`
	VMMetadata             *struct{}   `json:"vmMetadata"`
	users                  []int       // places in the fleet
	installs               []install   // what is installed
}

// install is a version of a software on a machine, as places in the fleet.
type install struct{ software, version int }

type ipAddress struct {
	IPAddress         string `json:"ipAddress"`
	MACAddress        string `json:"macAddress"`
	Type              string `json:"type"`
	OperationalStatus string `json:"operationalStatus"`
}

type machineAction struct {
	ID                      string          `json:"id" odata:"filter"`
	Type                    string          `json:"type" odata:"filter"`
	Title                   optional        `json:"title"`
	Requestor               string          `json:"requestor" odata:"filter"`
	RequestorComment        string          `json:"requestorComment"`
	Status                  string          `json:"status" odata:"filter"`
	MachineID               string          `json:"machineId" odata:"filter"`
	ComputerDNSName         string          `json:"computerDnsName"`
	CreationDateTimeUTC     instant         `json:"creationDateTimeUtc" odata:"filter"`
	LastUpdateDateTimeUTC   instant         `json:"lastUpdateDateTimeUtc"`
	CancellationRequestor   optional        `json:"cancellationRequestor"`
	CancellationComment     optional        `json:"cancellationComment"`
	CancellationDateTimeUTC instant         `json:"cancellationDateTimeUtc"`
	ErrorHResult            int             `json:"errorHResult"`
	Scope                   optional        `json:"scope"`
	ExternalID              optional        `json:"externalId"`
	RequestSource           string          `json:"requestSource"`
	RelatedFileInfo         *relatedFile    `json:"relatedFileInfo"`
	Commands                []commandResult `json:"commands"`
	TroubleshootInfo        optional        `json:"troubleshootInfo"`
}

type relatedFile struct {
	FileIdentifier     string `json:"fileIdentifier"`
	FileIdentifierType string `json:"fileIdentifierType"`
}

type commandResult struct {
	Index         int      `json:"index"`
	StartTime     instant  `json:"startTime"`
	EndTime       instant  `json:"endTime"`
	CommandStatus string   `json:"commandStatus"`
	Errors        []string `json:"errors"`
	Command       command  `json:"command"`
}

type command struct {
	Type   string  `json:"type"`
	Params []param `json:"params"`
}

type param struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type investigation struct {
	ID                string   `json:"id" odata:"filter"`
	StartTime         instant  `json:"startTime" odata:"filter"`
	EndTime           instant  `json:"endTime"`
	CancelledBy       optional `json:"cancelledBy"`
	State             string   `json:"state" odata:"filter"`
	StatusDetails     optional `json:"statusDetails"`
	MachineID         string   `json:"machineId" odata:"filter"`
	ComputerDNSName   string   `json:"computerDnsName"`
	TriggeringAlertID string   `json:"triggeringAlertId" odata:"filter"`
}

type indicator struct {
	ID                      string   `json:"id"`
	IndicatorValue          string   `json:"indicatorValue" odata:"filter"`
	IndicatorType           string   `json:"indicatorType" odata:"filter"`
	Action                  string   `json:"action" odata:"filter"`
	CreatedBy               string   `json:"createdBy" odata:"filter"`
	Severity                optional `json:"severity" odata:"filter"`
	Category                int      `json:"category"`
	Application             optional `json:"application" odata:"filter"`
	EducateURL              optional `json:"educateUrl"`
	BypassDurationHours     optional `json:"bypassDurationHours"`
	Title                   string   `json:"title" odata:"filter"`
	Description             string   `json:"description"`
	RecommendedActions      optional `json:"recommendedActions"`
	CreationTimeDateTimeUTC instant  `json:"creationTimeDateTimeUtc" odata:"filter"`
	ExpirationTime          instant  `json:"expirationTime" odata:"filter"`
	LastUpdateTime          instant  `json:"lastUpdateTime"`
	LastUpdatedBy           optional `json:"lastUpdatedBy"`
	RBACGroupNames          []string `json:"rbacGroupNames" odata:"filter"`
	RBACGroupIDs            []string `json:"rbacGroupIds" odata:"filter"`
	GenerateAlert           bool     `json:"generateAlert" odata:"filter"`
	CreatedByDisplayName    optional `json:"createdByDisplayName" odata:"filter"`
	ExternalID              optional `json:"externalId"`
	CreatedBySource         string   `json:"createdBySource"`
	CertificateInfo         optional `json:"certificateInfo"`
}

type file struct {
	SHA1                string  `json:"sha1"`
	SHA256              string  `json:"sha256"`
	GlobalPrevalence    int     `json:"globalPrevalence"`
	GlobalFirstObserved instant `json:"globalFirstObserved"`
	GlobalLastObserved  instant `json:"globalLastObserved"`
	Size                int     `json:"size"`
	FileType            string  `json:"fileType"`
	IsPeFile            bool    `json:"isPeFile"`
	FilePublisher       string  `json:"filePublisher"`
	FileProductName     string  `json:"fileProductName"`
	Signer              string  `json:"signer"`
	Issuer              string  `json:"issuer"`
	SignerHash          string  `json:"signerHash"`
	IsValidCertificate  bool    `json:"isValidCertificate"`
	DeterminationType   string  `json:"determinationType"`
	DeterminationValue  string  `json:"determinationValue"`
	name                string
}

type fileStats struct {
	SHA1                   string   `json:"sha1"`
	OrgPrevalence          string   `json:"orgPrevalence"`
	OrganizationPrevalence int      `json:"organizationPrevalence"`
	OrgFirstSeen           instant  `json:"orgFirstSeen"`
	OrgLastSeen            instant  `json:"orgLastSeen"`
	GlobalPrevalence       string   `json:"globalPrevalence"`
	GloballyPrevalence     int      `json:"globallyPrevalence"`
	GlobalFirstObserved    instant  `json:"globalFirstObserved"`
	GlobalLastObserved     instant  `json:"globalLastObserved"`
	TopFileNames           []string `json:"topFileNames"`
}

type domain struct {
	Host string `json:"host"`
}

type ip struct {
	ID string `json:"id"`
}

type domainStats struct {
	Host                   string  `json:"host"`
	OrgPrevalence          string  `json:"orgPrevalence"`
	OrganizationPrevalence int     `json:"organizationPrevalence"`
	OrgFirstSeen           instant `json:"orgFirstSeen"`
	OrgLastSeen            instant `json:"orgLastSeen"`
}

type ipStats struct {
	IPAddress              string  `json:"ipAddress"`
	OrgPrevalence          string  `json:"orgPrevalence"`
	OrganizationPrevalence int     `json:"organizationPrevalence"`
	OrgFirstSeen           instant `json:"orgFirstSeen"`
	OrgLastSeen            instant `json:"orgLastSeen"`
}

type user struct {
	ID                      string  `json:"id"`
	AccountName             string  `json:"accountName"`
	AccountDomain           string  `json:"accountDomain"`
	AccountSID              string  `json:"accountSid"`
	FirstSeen               instant `json:"firstSeen"`
	LastSeen                instant `json:"lastSeen"`
	MostPrevalentMachineID  string  `json:"mostPrevalentMachineId"`
	LeastPrevalentMachineID string  `json:"leastPrevalentMachineId"`
	LogonTypes              string  `json:"logonTypes"`
	LogOnMachinesCount      int     `json:"logOnMachinesCount"`
	IsDomainAdmin           bool    `json:"isDomainAdmin"`
	IsOnlyNetworkUser       bool    `json:"isOnlyNetworkUser"`
}

type libraryFile struct {
	FileName              string   `json:"fileName"`
	SHA256                string   `json:"sha256"`
	Description           optional `json:"description"`
	CreationTime          instant  `json:"creationTime"`
	LastUpdatedTime       instant  `json:"lastUpdatedTime"`
	CreatedBy             string   `json:"createdBy"`
	HasParameters         bool     `json:"hasParameters"`
	ParametersDescription optional `json:"parametersDescription"`
}
