package simulator

import "strings"

// audiences are the names of the three resources, as the pages and samples
// give them (catalog FACTS, "Tokens"), with the application ids under which
// they are registered in every tenant. A regional host is none of them. Beside
// them are Key Vault, and what a token is for that only stands for its bearer
// at Entra ID (learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity).
var audiences = map[string]string{
	"https://api.securitycenter.microsoft.com":                 "mde",
	"https://api.securitycenter.windows.com":                   "mde",
	"https://securitycenter.onmicrosoft.com/windowsatpservice": "mde",
	"fc780465-2017-40d4-a0c5-307022471b92":                     "mde",
	"https://api.security.microsoft.com":                       "xdr",
	"8ee8fdad-f234-4243-8f3b-15c294843740":                     "xdr",
	"https://graph.microsoft.com":                              "graph",
	"00000003-0000-0000-c000-000000000000":                     "graph",
	"https://vault.azure.net":                                  "vault",
	"cfa8b339-82a2-471a-a3c9-0fc0be7a4093":                     "vault",
	"api://azureadtokenexchange":                               "exchange",
	"api://azureadtokenexchangeusgov":                          "exchange",
	"api://azureadtokenexchangechina":                          "exchange",
}

// serviceOf finds the service that an audience names, empty for none. A
// trailing slash and letter case make no difference.
func serviceOf(audience string) string {
	return audiences[strings.ToLower(strings.TrimSuffix(audience, "/"))]
}
