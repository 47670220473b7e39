package token

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"defender-proxy/internal/tenant"
)

// The longest life a token is believed, and the shortest that is of any use.
// Entra gives application tokens an hour, and up to 28 hours where continuous
// access evaluation is asked for, which the proxy does not.
const (
	longestLife  = 24 * time.Hour
	shortestLife = time.Second
)

// judge decides whether the answer is a token for what was asked, and how long
// it lives, counted from sent, before the request left. date is the server's
// clock at the answer, or zero. Its errors quote nothing of the token but the
// claims that differ, without the secrets.
func judge(answer *oauth2.Token, acc Account, audience string, secrets []string, sent instant, date time.Time) (*Bearer, error) {
	if answer == nil || answer.AccessToken == "" {
		return nil, errors.New("it holds no access_token")
	}
	if !strings.EqualFold(answer.TokenType, "Bearer") {
		return nil, errors.New("its token_type is not Bearer")
	}
	life, err := expiresIn(answer)
	if err != nil {
		return nil, err
	}
	claims, err := readClaims(answer.AccessToken)
	if err != nil {
		return nil, err
	}
	if claims.Tenant != acc.Tenant {
		return nil, fmt.Errorf("the token is for tenant %s, and %s was asked for", claims.Tenant, acc.Tenant)
	}
	if claims.Issuer != "" && !issuedFor(claims.Issuer, claims.Tenant) {
		return nil, fmt.Errorf("the token's issuer %s is not that of its tenant", quote(claims.Issuer, secrets))
	}
	if !slices.ContainsFunc(claims.Audience, func(s string) bool { return sameAudience(s, audience) }) || len(claims.Audience) != 1 {
		return nil, fmt.Errorf("the token is for audience %s, and %s was asked for", quote(strings.Join(claims.Audience, " "), secrets), audience)
	}
	if acc.ClientID != "" && claims.AppID != "" && !strings.EqualFold(claims.AppID, acc.ClientID) {
		return nil, fmt.Errorf("the token is for application %s, and %s asked for it", quote(claims.AppID, secrets), acc.ClientID)
	}
	if !claims.IssuedAt.IsZero() {
		life = min(life, claims.Expiry.Sub(claims.IssuedAt))
	}
	// An old token may come with a fresh expires_in. The remaining life is taken
	// by the clock that leaves more of it, ours or the server's, so that one
	// wrong clock does not refuse good tokens; without the server's there is
	// nothing to hold ours against.
	if !date.IsZero() {
		now := sent.time()
		// The header has whole seconds: up to one more may have gone by.
		if server := date.Add(time.Second); server.Before(now) {
			now = server
		}
		life = min(life, claims.Expiry.Sub(now))
	}
	if life < shortestLife {
		return nil, errors.New("the token has expired already")
	}
	header := "Bearer " + answer.AccessToken
	return &Bearer{header: &header, claims: claims, acquired: sent, life: life, used: new(atomic.Bool)}, nil
}

// issuedFor reports whether an issuer is the tenant's: of both forms,
// https://sts.windows.net/{tid}/ and {authority}/{tid}/v2.0, the first part of
// the path is the tenant
// (learn.microsoft.com/entra/identity-platform/access-token-claims-reference).
func issuedFor(issuer string, id tenant.ID) bool {
	u, err := url.Parse(issuer)
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return strings.EqualFold(first, string(id))
}

// expiresIn reads expires_in, which the v1 endpoint sends as a string. It is
// read from the raw answer, because x/oauth2 takes 0 and absent for eternal.
func expiresIn(answer *oauth2.Token) (time.Duration, error) {
	var seconds float64
	switch v := answer.Extra("expires_in").(type) {
	case float64:
		seconds = v
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, errors.New("its expires_in is not a number")
		}
		seconds = float64(n)
	default:
		return 0, errors.New("it has no expires_in")
	}
	if !(seconds > 0) {
		return 0, errors.New("its expires_in is not above zero")
	}
	return time.Duration(math.Min(seconds, longestLife.Seconds()) * float64(time.Second)), nil
}

// sameAudience compares exactly, but for one slash at the end, which Entra
// keeps or drops as the API was registered.
func sameAudience(a, b string) bool {
	return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/")
}
