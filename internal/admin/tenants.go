package admin

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"defender-proxy/internal/token"
	"defender-proxy/policy"
)

// TenantReport is how one tenant is, for /-/tenants and the command check. It
// holds no token and no secret.
type TenantReport struct {
	Name     string `json:"name"`
	ID       string `json:"id,omitempty"`    // empty for a tenant that is left out, as is
	Cloud    string `json:"cloud,omitempty"` // the cloud
	ClientID string `json:"client_id,omitempty"`
	// Credential is what is known of the proof since it was read last.
	Credential CredentialReport `json:"credential"`
	// Impaired is what was wrong with the credential when the configuration was
	// read, until a token came all the same.
	Impaired []string        `json:"impaired,omitempty"`
	Services []ServiceReport `json:"services"`
	// ConsentURL is what an administrator of the tenant opens to consent.
	ConsentURL string `json:"consent_url,omitempty"`
	// ClockSkewSeconds is Entra's clock less this machine's, where they differ
	// enough to say so: by more than a minute.
	ClockSkewSeconds *float64 `json:"clock_skew_seconds,omitempty"`
}

// CredentialReport is what is known of a credential.
type CredentialReport struct {
	Kind string `json:"kind"`
	// Expires is its own date; it and DaysLeft, whole days, are left out where it
	// has none or it is not known yet.
	Expires  time.Time `json:"expires,omitzero"`
	DaysLeft *int      `json:"days_left,omitempty"`
	Notice   string    `json:"notice,omitempty"`
}

// ServiceReport is how a tenant stands with one service.
type ServiceReport struct {
	Service policy.Service `json:"service"`
	// LeftOut says why the tenant cannot reach the service; nothing else is told
	// then but Granted.
	LeftOut string `json:"left_out,omitempty"`
	// Granted says that some client group is granted an operation of it.
	Granted         bool                `json:"granted"`
	Audience        string              `json:"audience,omitempty"`
	AudienceAssumed string              `json:"audience_assumed,omitempty"`
	Region          string              `json:"region,omitempty"` // where requests go first; empty where none answers
	Token           *TokenReport        `json:"token,omitempty"`
	Consent         Consent             `json:"consent,omitempty"`
	Holds           []policy.Permission `json:"holds,omitempty"`
	// Missing is what client groups are granted and the token does not permit,
	// told where there is a token.
	Missing   []MissingReport `json:"missing,omitempty"`
	LastError *ErrorReport    `json:"last_error,omitempty"`
	NextFetch time.Time       `json:"next_fetch,omitzero"`
}

// TokenReport is the age and life of a token.
type TokenReport struct {
	Live             bool `json:"live"`
	AgeSeconds       int  `json:"age_seconds,omitempty"`
	ExpiresInSeconds int  `json:"expires_in_seconds,omitempty"`
	LifeSeconds      int  `json:"life_seconds,omitempty"`
}

// Consent is whether an administrator of the tenant consented to the
// application's permissions on a service.
type Consent string

// What is known of consent.
const (
	ConsentGranted Consent = "granted" // a token with permissions came
	ConsentMissing Consent = "missing" // Entra ID says so, or a token came without any permission
	ConsentUnknown Consent = "unknown"
)

// MissingReport is a missing permission and where it is granted.
type MissingReport struct {
	policy.Missing
	Grant string `json:"grant"`
}

// ErrorReport is why the last fetch of a token failed.
type ErrorReport struct {
	Kind     string    `json:"kind"` // the word of token.Kind
	AADSTS   int       `json:"aadsts,omitempty"`
	Sentence string    `json:"sentence"`
	Remedy   string    `json:"remedy"`
	At       time.Time `json:"at"`
}

// Report tells how a tenant of the view is as of now. It asks nobody for
// anything.
func (v *View) Report(t Tenant, now time.Time) TenantReport {
	out := TenantReport{
		Name: t.Name, ID: t.ID, Cloud: t.Cloud, ClientID: t.ClientID, Impaired: t.Impaired, ConsentURL: t.ConsentURL,
		Services: []ServiceReport{},
	}
	groups := v.Grantees(t.Name)
	for _, s := range policy.Services() {
		granted := v.Catalog != nil && v.Catalog.Uses(s, groups, policy.Situation{Tenant: t.Name, Now: now}, t.Sends)
		if i := slices.IndexFunc(t.Access, func(a Access) bool { return a.Service == s }); i >= 0 {
			st := t.Access[i].Token.State()
			out.Credential = credentialReport(st.Credential, now)
			if st.SkewKnown && st.Skew.Abs() > time.Minute {
				seconds := math.Round(st.Skew.Seconds())
				out.ClockSkewSeconds = &seconds
			}
			row := v.service(t, t.Access[i], st, groups)
			row.Granted = granted
			if row.Token.Live {
				out.Impaired = nil
			}
			out.Services = append(out.Services, row)
		} else if why := t.LeftOut[s]; why != "" {
			out.Services = append(out.Services, ServiceReport{Service: s, Granted: granted, LeftOut: why})
		}
	}
	return out
}

func credentialReport(h token.Health, now time.Time) CredentialReport {
	out := CredentialReport{Kind: h.Kind, Expires: h.Expires, Notice: h.Notice}
	if !h.Expires.IsZero() {
		days := token.DaysLeft(h.Expires, now)
		out.DaysLeft = &days
	}
	return out
}

func (v *View) service(t Tenant, a Access, st token.State, groups []policy.Grantee) ServiceReport {
	out := ServiceReport{Service: a.Service, Audience: a.Audience, Token: &TokenReport{}, Consent: ConsentUnknown, NextFetch: st.NextFetch}
	if a.Assumed != "" {
		out.AudienceAssumed = "The audience is assumed (" + a.Assumed + "), for Microsoft documents none; override it under clouds: if tokens are refused."
	}
	if current, _ := a.Regions.Current(); a.Regions.Answering() {
		out.Region = string(current.Region)
	}
	if e := st.Error; e != nil {
		out.LastError = &ErrorReport{Kind: e.Kind.String(), AADSTS: e.AADSTS, Sentence: e.Sentence, Remedy: e.Remedy, At: st.FailedAt}
		if lacksConsent(e.AADSTS) {
			out.Consent = ConsentMissing
		}
	}
	if !st.Live {
		return out
	}
	out.Token = &TokenReport{
		Live: true, AgeSeconds: int(st.Age.Seconds()), ExpiresInSeconds: int(st.ExpiresIn.Seconds()), LifeSeconds: int((st.Age + st.ExpiresIn).Seconds()),
	}
	if v.Catalog == nil {
		return out
	}
	permits := v.Catalog.Permits(st.Claims.Roles, st.Claims.Scopes)
	out.Holds = permits.Held()
	if st.Error == nil || !lacksConsent(st.Error.AADSTS) {
		out.Consent = ConsentGranted
		if len(out.Holds) == 0 {
			out.Consent = ConsentMissing
		}
	}
	kind := "application"
	if permits.Delegated() {
		kind = "delegated"
	}
	for _, m := range v.Catalog.Missing(a.Service, groups, policy.Situation{Tenant: t.Name, Now: time.Now()}, t.Sends, permits) {
		out.Missing = append(out.Missing, MissingReport{m, policy.GrantAdvice(a.Service, t.ClientID, kind)})
	}
	return out
}

// lacksConsent reports whether an error code of Entra ID says that nobody
// consented yet: to the permissions (65001), to the application, which the
// directory then does not know (700016, 7000229), or to the service (500011,
// 650052); learn.microsoft.com/entra/identity-platform/reference-error-codes,
// read 2026-11.
func lacksConsent(aadsts int) bool {
	switch aadsts {
	case 65001, 700016, 7000229, 500011, 650052:
		return true
	}
	return false
}

// tenants tells how the tenants are, or one of them: ?tenant=NAME.
func (p *pages) tenants(w http.ResponseWriter, r *http.Request) {
	view, now := p.View(), time.Now()
	name, one := "", r.URL.Query().Has("tenant")
	if one {
		name = r.URL.Query().Get("tenant")
	}
	rows := []TenantReport{}
	for _, t := range view.Tenants {
		if !one || t.Name == name {
			rows = append(rows, view.Report(t, now))
		}
	}
	if one && len(rows) == 0 {
		const most = 80
		refuse(w, http.StatusNotFound, "UnknownTenant", fmt.Sprintf("No tenant is called %.*q. /-/tenants lists those there are.", most, name))
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"tenants": rows})
}
