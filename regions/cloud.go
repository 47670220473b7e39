package regions

import (
	"cmp"
	"maps"
	"slices"
)

// Name is the short name of a region, such as eu. The zero value is no region.
type Name string

// The regions of Microsoft's commercial cloud. aea appears on the newest pages
// only. A service with one endpoint for the whole world has the region Global.
const (
	US     Name = "us"
	EU     Name = "eu"
	UK     Name = "uk"
	AU     Name = "au"
	SWA    Name = "swa"
	INA    Name = "ina"
	AEA    Name = "aea"
	Global Name = "global"
)

// Service names an API with endpoints and an audience of its own: mde, xdr or
// graph, the words of the catalog in package policy.
type Service string

// Cloud is where one of Microsoft's clouds, or a laboratory, is to be found.
type Cloud struct {
	// Name is what tenants call it in the configuration.
	Name string
	// Authority is the base URL of Entra ID, without a trailing slash.
	Authority string
	// Endpoints are base URLs without a path, by service and region. A service
	// that is missing cannot be reached in this cloud.
	Endpoints map[Service]map[Name]string
	// Audiences are the resource URIs that tokens are asked for, by service.
	// The audience goes with the service, never with the host.
	Audiences map[Service]string
	// Assumed says, for a service whose audience Microsoft states on no page, what
	// the one in Audiences is taken from. Nil where all are documented.
	Assumed map[Service]string
	// BlobHosts are the hosts that download links may name; a leading "*."
	// stands for one or more labels.
	BlobHosts []string
}

// Regions returns the regions in which the service has an endpoint: those named
// above in that order, then others by name. It is empty when the cloud doesn't
// have the service. The slice is the caller's.
func (c Cloud) Regions(s Service) []Name {
	return slices.SortedFunc(maps.Keys(c.Endpoints[s]), compareNames)
}

// has reports whether any service of the cloud has an endpoint in the region.
func (c Cloud) has(n Name) bool {
	for _, urls := range c.Endpoints {
		if _, ok := urls[n]; ok {
			return true
		}
	}
	return false
}

// compareNames orders the regions of Microsoft's clouds as they are listed
// above, and others after them by name.
func compareNames(a, b Name) int {
	rank := func(n Name) int {
		if n == Global {
			return len(commercialRegions)
		}
		if i := slices.Index(commercialRegions, n); i >= 0 {
			return i
		}
		return len(commercialRegions) + 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
}

var commercialRegions = []Name{US, EU, UK, AU, SWA, INA, AEA}

// Clouds returns the clouds that are built in. The value is the caller's.
//
// The regional hosts are from "Supported Microsoft Defender for Endpoint APIs"
// and its sibling for Defender XDR, the government hosts from "Microsoft
// Defender for Endpoint for US Government customers"
// (learn.microsoft.com/defender-endpoint, stored copies read 2026-11).
//
// commercial-legacy is commercial under the names that these pages gave the
// regions before, fewer of them for Defender XDR: for networks whose firewalls
// know only those.
//
// Government audiences are stated on no page: they are marked in Assumed and can
// be overridden under clouds: in the configuration.
func Clouds() []Cloud {
	in := func(before, after string, names ...Name) map[Name]string {
		m := make(map[Name]string, len(names))
		for _, n := range names {
			m[n] = "https://" + before + string(n) + after
		}
		return m
	}
	one := func(u string) map[Name]string { return map[Name]string{Global: u} }
	blobs := []string{"*.blob.core.windows.net", "*.securitycenter.windows.com"}
	usBlobs := []string{"*.blob.core.usgovcloudapi.net"}

	commercial := func(name string, mde, xdr map[Name]string) Cloud {
		return Cloud{
			Name:      name,
			Authority: "https://login.microsoftonline.com",
			Endpoints: map[Service]map[Name]string{
				"mde":   mde,
				"xdr":   xdr,
				"graph": one("https://graph.microsoft.com"),
			},
			Audiences: map[Service]string{
				"mde":   "https://api.securitycenter.microsoft.com",
				"xdr":   "https://api.security.microsoft.com",
				"graph": "https://graph.microsoft.com",
			},
			BlobHosts: slices.Clone(blobs),
		}
	}

	return []Cloud{
		commercial("commercial",
			in("", ".api.security.microsoft.com", commercialRegions...),
			in("", ".api.security.microsoft.com", commercialRegions...)),
		{
			Name:      "gcc",
			Authority: "https://login.microsoftonline.com",
			Endpoints: map[Service]map[Name]string{
				"mde":   one("https://api-gcc.securitycenter.microsoft.us"),
				"xdr":   one("https://api-gcc.security.microsoft.us"),
				"graph": one("https://graph.microsoft.com"),
			},
			Audiences: map[Service]string{
				"mde":   "https://api-gcc.securitycenter.microsoft.us",
				"xdr":   "https://api-gcc.security.microsoft.us",
				"graph": "https://graph.microsoft.com",
			},
			Assumed:   assumed(),
			BlobHosts: slices.Concat(blobs, usBlobs),
		},
		government("gcc-high", "https://graph.microsoft.us", usBlobs),
		government("dod", "https://dod-graph.microsoft.us", usBlobs),
		commercial("commercial-legacy",
			in("api-", ".securitycenter.microsoft.com", US, EU, UK, AU),
			in("api-", ".security.microsoft.com", US, EU, UK)),
	}
}

// assumed marks the government's audiences of mde and xdr.
func assumed() map[Service]string {
	const from = "the API's own host, as a tool of Microsoft's asks for it"
	return map[Service]string{"mde": from, "xdr": from}
}

// government describes GCC High and DoD, which share all but Graph.
func government(name, graph string, blobs []string) Cloud {
	one := func(u string) map[Name]string { return map[Name]string{Global: u} }
	return Cloud{
		Name:      name,
		Authority: "https://login.microsoftonline.us",
		Endpoints: map[Service]map[Name]string{
			"mde":   one("https://api-gov.securitycenter.microsoft.us"),
			"xdr":   one("https://api-gov.security.microsoft.us"),
			"graph": one(graph),
		},
		Audiences: map[Service]string{
			"mde":   "https://api-gov.securitycenter.microsoft.us",
			"xdr":   "https://api-gov.security.microsoft.us",
			"graph": graph,
		},
		Assumed:   assumed(),
		BlobHosts: slices.Clone(blobs),
	}
}
