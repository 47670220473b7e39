package token

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"defender-proxy/internal/tenant"
)

// Claims is what an access token says of itself, under the names of
// learn.microsoft.com/entra/identity-platform/access-token-claims-reference.
type Claims struct {
	Tenant   tenant.ID `json:"tid"`
	Audience []string  `json:"aud"`
	// AppID is appid in tokens of version 1.0, azp in those of 2.0.
	AppID string `json:"appid,omitempty"`
	// Roles are permissions of the application. A user's token may carry roles
	// of the user; its permissions are Scopes.
	Roles []string `json:"roles,omitempty"`
	// Scopes are permissions delegated by a user; scp, split at its spaces.
	Scopes []string `json:"scp,omitempty"`
	// UTI identifies the token in Entra's sign-in log too.
	UTI      string    `json:"uti,omitempty"`
	Issuer   string    `json:"iss,omitempty"`
	Expiry   time.Time `json:"exp"`
	IssuedAt time.Time `json:"iat,omitzero"`
	Version  string    `json:"ver,omitempty"`
	// Name and UPN tell the user, in a user's token.
	Name string `json:"name,omitempty"`
	UPN  string `json:"upn,omitempty"`
}

// wireClaims are the claims as they travel.
type wireClaims struct {
	jwt.RegisteredClaims
	TenantID          string   `json:"tid"`
	AppID             string   `json:"appid"`
	AuthorizedParty   string   `json:"azp"`
	Roles             []string `json:"roles"`
	Scope             string   `json:"scp"`
	UTI               string   `json:"uti"`
	Version           string   `json:"ver"`
	Name              string   `json:"name"`
	UPN               string   `json:"upn"`
	PreferredUsername string   `json:"preferred_username"`
}

// readClaims reads the claims of a JWT without verifying its signature.
//
// That is right here: the token came over TLS from the authority, in answer to
// our own request, and it is Microsoft's API that judges it. The claims tell
// what it is good for; they admit nobody. What is accepted has tid, aud and
// exp. Errors quote nothing of the token.
func readClaims(raw string) (*Claims, error) {
	// encoding/base64 skips line ends, so a token that decodes may still hold
	// one, and it is to become a header.
	if strings.ContainsFunc(raw, func(r rune) bool { return !isTokenByte(r) }) {
		return nil, errors.New("access_token is not a JWT: it holds characters that none has")
	}
	var w wireClaims
	if _, _, err := jwt.NewParser().ParseUnverified(raw, &w); err != nil {
		return nil, errors.New("access_token is not a JWT that can be read")
	}
	id, err := tenant.ParseID(w.TenantID)
	if err != nil {
		return nil, errors.New("the token's tid is missing or no GUID")
	}
	if len(w.Audience) == 0 || w.Audience[0] == "" {
		return nil, errors.New("the token has no aud")
	}
	expiry, err := date("exp", w.ExpiresAt)
	if err != nil {
		return nil, err
	}
	if expiry.IsZero() {
		return nil, errors.New("the token has no exp")
	}
	issued, err := date("iat", w.IssuedAt)
	if err != nil {
		return nil, err
	}
	return &Claims{
		Tenant:   id,
		Audience: w.Audience,
		AppID:    firstOf(w.AppID, w.AuthorizedParty),
		Roles:    w.Roles,
		Scopes:   strings.Fields(w.Scope),
		UTI:      w.UTI,
		Issuer:   w.Issuer,
		Expiry:   expiry,
		IssuedAt: issued,
		Version:  w.Version,
		Name:     w.Name,
		UPN:      firstOf(w.UPN, w.PreferredUsername),
	}, nil
}

func isTokenByte(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.'
}

// date gives the zero time for an absent date. Years that RFC 3339 cannot
// write are refused: encoding/json would fail on them later.
func date(name string, d *jwt.NumericDate) (time.Time, error) {
	if d == nil {
		return time.Time{}, nil
	}
	const year10000 = 253402300800
	if s := d.Unix(); s <= 0 || s >= year10000 {
		return time.Time{}, fmt.Errorf("the token's %s is not a date", name)
	}
	return d.UTC(), nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
