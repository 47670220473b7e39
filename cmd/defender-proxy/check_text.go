package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"defender-proxy/internal/admin"
	"defender-proxy/policy"
)

// text is the report for people.
func (r checkReport) text() string {
	var b strings.Builder
	for _, f := range r.Faults {
		fmt.Fprintln(&b, f)
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(&b, "warning:", w)
	}
	for _, n := range r.Notices {
		fmt.Fprintf(&b, "warning: tenant %s: %s\n", n.Tenant, n.Message)
	}
	for _, i := range r.Impaired {
		fmt.Fprintf(&b, "tenant %s gets no token: %s\n", i.Tenant, i.Message)
	}
	switch {
	case len(r.Faults) > 0:
	case len(r.Impaired) > 0:
		fmt.Fprintf(&b, "%s: the configuration is valid, but for those tenants\n", r.File)
	default:
		fmt.Fprintf(&b, "%s: the configuration is valid\n", r.File)
	}
	for _, t := range r.Tenants {
		t.text(&b)
	}
	return b.String()
}

func (t tenantCheck) text(b *strings.Builder) {
	fmt.Fprintf(b, "\ntenant %s\n", t.Name)
	fmt.Fprintf(b, "  directory   %s in %s, application %s\n", t.ID, t.Cloud, cmp.Or(t.ClientID, "of the machine's identity"))
	fmt.Fprintf(b, "  credential  %s%s\n", cmp.Or(t.Credential.Kind, "none"), lifeOf(t.Credential))
	if n := t.Credential.Notice; n != "" {
		fmt.Fprintf(b, "  NOTICE      %s\n", n)
	}
	if s := t.ClockSkewSeconds; s != nil {
		fmt.Fprintf(b, "  NOTICE      This machine's clock is %s %s Entra ID's.\n", time.Duration(max(*s, -*s))*time.Second, map[bool]string{true: "behind", false: "ahead of"}[*s > 0])
	}
	for _, s := range t.Services {
		serviceText(b, s)
	}
	for _, s := range t.Services {
		if s.Consent == admin.ConsentMissing && t.ConsentURL != "" {
			fmt.Fprintf(b, "  consent at  %s\n", t.ConsentURL)
			return
		}
	}
}

func lifeOf(c admin.CredentialReport) string {
	if c.DaysLeft == nil {
		return ""
	}
	return fmt.Sprintf(", %d days left (until %s)", *c.DaysLeft, c.Expires.UTC().Format("2006-01-02"))
}

func serviceText(b *strings.Builder, s admin.ServiceReport) {
	if s.LeftOut != "" {
		fmt.Fprintf(b, "  %s\n    left out: %s\n", s.Service, s.LeftOut)
		return
	}
	fmt.Fprintf(b, "  %s  %s\n", s.Service, s.Audience)
	if s.AudienceAssumed != "" {
		fmt.Fprintf(b, "    NOTE     %s\n", s.AudienceAssumed)
	}
	wrong := tokenProblems(s)
	if len(wrong) > 0 && !s.Granted {
		fmt.Fprintf(b, "    not used: nothing of it is granted (%s)\n", strings.Join(wrong, " "))
		return
	}
	for _, w := range wrong {
		fmt.Fprintf(b, "    WRONG: %s\n", w)
	}
	if s.Token.Live {
		fmt.Fprintf(b, "    token    for %s, %s old, holds %s\n", seconds(s.Token.ExpiresInSeconds), seconds(s.Token.AgeSeconds), names(s.Holds))
	}
	if s.Consent != admin.ConsentUnknown {
		fmt.Fprintf(b, "    consent  %s\n", s.Consent)
	}
	if s.Region != "" {
		fmt.Fprintf(b, "    region   %s\n", s.Region)
	}
	for _, m := range s.Missing {
		fmt.Fprintf(b, "    MISSING  %s\n             for %s, granted to %s\n", anyOf(m.AnyOf), strings.Join(m.Operations, ", "), strings.Join(m.Clients, ", "))
		if m.ReadOnly {
			fmt.Fprintln(b, "             It permits more than reading; Microsoft documents no smaller one. Consider to deny the operation instead.")
		}
	}
	if len(s.Missing) > 0 {
		fmt.Fprintf(b, "    %s\n    Or deny these operations, so that nobody tries them.\n", s.Missing[0].Grant)
	}
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// anyOf names permissions of which one is wanted.
func anyOf(permissions []policy.Permission) string {
	if len(permissions) == 0 {
		return "a permission of another kind of token"
	}
	return strings.Join(strings.Fields(names(permissions)), " or ")
}
