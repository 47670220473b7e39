package simulator

import (
	"net/http"
	"slices"
	"strings"
)

// principal is who a good token speaks for.
type principal struct {
	tenant  *tenant
	claims  claims
	service string // what the token is for
}

// name is how objects that the principal makes call their maker.
func (p principal) name() string {
	if p.claims.UPN != "" {
		return p.claims.UPN
	}
	return p.claims.AppID
}

func unauthorized(message string) *problem {
	return problemf(http.StatusUnauthorized, "Unauthorized", "%s", message)
}

// refusals are the words for what present found.
var refusals = map[Refusal]string{
	RefusedMissing:     "The request needs one Authorization header with a bearer token.",
	RefusedMalformed:   "The access token is invalid.",
	RefusedExpired:     "The access token expired.",
	RefusedNotYetValid: "The access token is not valid yet.",
	RefusedTenant:      "The access token is of an unknown tenant.",
	RefusedAudience:    "The access token has the wrong audience.",
}

// authenticate makes a principal of what present found. The audience is judged
// for good when the operation is known.
func (s *Simulator) authenticate(rec *Request, c claims, reason Refusal) (principal, *problem) {
	if reason != refusedNot {
		message, ok := refusals[reason]
		if !ok {
			message = "The access token is invalid."
		}
		return principal{}, unauthorized(message)
	}
	p := principal{tenant: s.directory.tenant(c.TenantID), claims: c, service: serviceOf(c.Audience)}
	if p.tenant == nil {
		return principal{}, unauthorized(refusals[RefusedTenant])
	}
	if p.service == "" {
		return principal{}, s.wrongAudience(rec)
	}
	return p, nil
}

// wrongAudience records that a good token is for something else.
func (s *Simulator) wrongAudience(rec *Request) *problem {
	shown := PresentedToken{}
	s.ring.update(rec, func(q *Request) {
		if q.Token != nil {
			shown = *q.Token
		}
	})
	s.refused(rec, RefusedAudience, shown)
	return unauthorized(refusals[RefusedAudience])
}

// authorize checks the permissions for an operation. Any one of the listed
// permissions suffices.
func (p principal) authorize(op *operation) *problem {
	if p.claims.IDType == "user" {
		held := strings.Fields(p.claims.Scopes)
		if anyOf(held, op.delegated) {
			return nil
		}
		return problemf(http.StatusForbidden, "Forbidden", "Missing user scopes. API required scopes: %s, user scopes: %s.",
			strings.Join(op.delegated, ","), strings.Join(held, ","))
	}
	if anyOf(p.claims.Roles, op.application) {
		return nil
	}
	return problemf(http.StatusForbidden, "Forbidden", "Missing application roles. API required roles: %s, application roles: %s.",
		strings.Join(op.application, ","), strings.Join(p.claims.Roles, ","))
}

func anyOf(held, wanted []string) bool {
	return slices.ContainsFunc(held, func(h string) bool {
		return slices.ContainsFunc(wanted, func(w string) bool { return strings.EqualFold(h, w) })
	})
}
