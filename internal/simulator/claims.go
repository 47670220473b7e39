package simulator

import "encoding/json"

// wish is what the parameter claims of a token request asks for
// (learn.microsoft.com/entra/identity-platform/claims-challenge).
type wish struct {
	// capabilities are the client's (xms_cc); cp1 says that it understands
	// claims challenges.
	capabilities []string
	// notBefore tells that the token is to be newer than a revocation.
	notBefore bool
}

// readClaims reads the parameter. What Entra ID says to one that is no JSON is
// not documented; AADSTS90023 is its word for a request that is not valid.
func readClaims(text string) (wish, *aadError) {
	if text == "" {
		return wish{}, nil
	}
	var in struct {
		AccessToken struct {
			NotBefore *struct {
				Value any `json:"value"` // a number of seconds, mostly in quotes
			} `json:"nbf"`
			Capabilities struct {
				Values []string `json:"values"`
			} `json:"xms_cc"`
		} `json:"access_token"`
	}
	if len(text) > maxField || json.Unmarshal([]byte(text), &in) != nil {
		return wish{}, refuse(90023, "the parameter 'claims' is not valid JSON")
	}
	n := in.AccessToken.NotBefore
	return wish{in.AccessToken.Capabilities.Values, n != nil && n.Value != nil}, nil
}
