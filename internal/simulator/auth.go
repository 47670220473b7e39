package simulator

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
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

// authenticate checks signature, life and tenant of the request's token. Its
// audience is judged when the operation is known.
func (s *Simulator) authenticate(r *http.Request) (principal, *problem) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return principal{}, unauthorized("The request needs one Authorization header with a bearer token.")
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return principal{}, unauthorized("The Authorization header is not of the form Bearer <token>.")
	}
	c, err := s.signer.verify(token, s.now)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return principal{}, unauthorized("The access token expired.")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return principal{}, unauthorized("The access token is not valid yet.")
	case err != nil:
		return principal{}, unauthorized("The access token is invalid.")
	}
	t := s.directory.tenant(c.TenantID)
	if t == nil {
		return principal{}, unauthorized("The access token is of an unknown tenant.")
	}
	p := principal{tenant: t, claims: c, service: serviceOf(c.Audience)}
	if p.service == "" {
		return principal{}, unauthorized("The access token has the wrong audience.")
	}
	return p, nil
}

// authorize checks the audience and the permissions for an operation. Any one
// of the listed permissions suffices.
func (p principal) authorize(op *operation) *problem {
	if p.service != string(op.Service) {
		return unauthorized("The access token has the wrong audience.")
	}
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
