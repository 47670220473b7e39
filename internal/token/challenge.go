package token

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
)

// maxClaims bounds the claims of a challenge, in bytes. Real ones have some
// sixty.
const maxClaims = 4 << 10

// ClaimsChallenge reads from the header of an API's 401 the claims that it wants
// the next token to be asked for with, as JSON; empty where it names none.
//
// The form is
//
//	WWW-Authenticate: Bearer realm="", error="insufficient_claims", claims="BASE64"
//
// (learn.microsoft.com/entra/identity-platform/claims-challenge, read 2026-11).
// What is not a JSON object of at most 4 KiB is no challenge.
func ClaimsChallenge(h http.Header) string {
	for _, value := range h.Values("Www-Authenticate") {
		encoded, ok := bearerParameter(value, "claims")
		if !ok || len(encoded) > 2*maxClaims {
			continue
		}
		// Both alphabets of base64 are seen, with padding and without.
		encoded = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(encoded, "="))
		claims, err := base64.RawStdEncoding.Strict().DecodeString(encoded)
		var object map[string]json.RawMessage
		if err == nil && len(claims) <= maxClaims && json.Unmarshal(claims, &object) == nil && len(object) > 0 {
			return string(claims)
		}
	}
	return ""
}

// bearerParameter finds a parameter of a Bearer challenge: name=value or
// name="value", separated by commas (RFC 9110, section 11.2).
func bearerParameter(challenge, name string) (string, bool) {
	scheme, rest, _ := strings.Cut(strings.TrimLeft(challenge, " \t"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	for rest != "" {
		rest = strings.TrimLeft(rest, " \t,")
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return "", false
		}
		var value string
		if quoted, isQuoted := strings.CutPrefix(after, `"`); isQuoted {
			// No parameter of these challenges escapes anything.
			if value, rest, ok = strings.Cut(quoted, `"`); !ok {
				return "", false
			}
		} else {
			value, rest, _ = strings.Cut(after, ",")
		}
		if strings.EqualFold(strings.TrimSpace(key), name) {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}
