package simulator

import (
	"encoding/base64"
	"fmt"
	"net/http"
)

// challenge answers a token that is too old for FaultClaimsChallenge, and tells
// true when it did. A new one will do that was asked for with the claims of a
// challenge (learn.microsoft.com/entra/identity-platform/claims-challenge and
// app-resilience-continuous-access-evaluation).
func (s *Simulator) challenge(w http.ResponseWriter, rec *Request, token claims, f Fault) bool {
	if n, answers := token.number(); n > f.mark && answers {
		return false
	}
	shown := PresentedToken{}
	s.ring.update(rec, func(q *Request) {
		if q.Token != nil {
			shown = *q.Token
		}
	})
	s.refused(rec, RefusedOutdated, shown)
	wants := fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, f.since.Unix())
	p := problemf(http.StatusUnauthorized, "InvalidAuthenticationToken",
		"Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp")
	p.challenge = fmt.Sprintf(`Bearer realm="", authorization_uri="%s/common/oauth2/authorize", error="insufficient_claims", claims="%s"`,
		s.Authority(), base64.StdEncoding.EncodeToString([]byte(wants)))
	writeProblem(w, p)
	return true
}
