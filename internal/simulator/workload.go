package simulator

import (
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// workloadPath is where the issuer of workload tokens lives, beside the tenants.
const workloadPath = "workload-issuer"

// exchangeAudience is what a token has to be for that stands for an
// application, in the commercial cloud.
const exchangeAudience = "api://AzureADTokenExchange"

// WorkloadIssuer is the issuer of WorkloadToken: an identity provider such as a
// Kubernetes cluster's, with its discovery document and its own keys.
func (s *Simulator) WorkloadIssuer() string { return s.Authority() + "/" + workloadPath }

// WorkloadToken is what a cluster would mount into a pod: a token for
// api://AzureADTokenExchange that says who the workload is, such as
// system:serviceaccount:NAMESPACE:NAME. A negative life gives a dead one.
func (s *Simulator) WorkloadToken(subject string, life time.Duration) string {
	return s.WorkloadTokenFor(subject, exchangeAudience, life)
}

// WorkloadTokenFor is WorkloadToken for another audience.
func (s *Simulator) WorkloadTokenFor(subject, audience string, life time.Duration) string {
	k, err := s.workload()
	if err != nil {
		panic(err) // without randomness nothing else here works either
	}
	now := s.now()
	issued := now
	if life < 0 {
		issued = now.Add(life - time.Hour)
	}
	token, err := k.token(jwt.MapClaims{
		"iss": s.WorkloadIssuer(), "sub": subject, "aud": []string{audience}, "jti": uuid.NewString(),
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": now.Add(life).Unix(),
	}, false)
	if err != nil {
		panic(err)
	}
	return token
}

// workloadDocuments answers for the issuer.
func (s *Simulator) workloadDocuments(w http.ResponseWriter, r *http.Request, path string) {
	switch path {
	case ".well-known/openid-configuration":
		writeJSON(w, http.StatusOK, map[string]any{
			"issuer": s.WorkloadIssuer(), "jwks_uri": s.WorkloadIssuer() + "/openid/v1/jwks",
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	case "openid/v1/jwks":
		k, err := s.workload()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{"keys": []any{k.jwk()}})
	default:
		http.NotFound(w, r)
	}
}
