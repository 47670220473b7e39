package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Grantee is a client group as far as its grants go.
type Grantee struct {
	Name   string
	Grants *Grants
}

// Missing is a permission that granted operations need and a token lacks.
type Missing struct {
	// AnyOf are the permissions of which one is wanted; empty where none of the
	// token's kind is documented.
	AnyOf []Permission `json:"any_of"`
	// Operations are the ids of what needs it, in the order of the catalog.
	Operations []string `json:"operations"`
	// ReadOnly says that the operations only read although no smaller permission
	// is documented.
	ReadOnly bool `json:"read_only,omitempty"`
	// Clients are the names of the client groups that are granted one of them.
	Clients []string `json:"clients"`
}

// Uses reports whether any of the groups is granted an operation that is sent to
// the service.
func (c *Catalog) Uses(s Service, groups []Grantee, at Situation, sends Sends) bool {
	return slices.ContainsFunc(c.rows, func(op *Operation) bool {
		return !op.stray() && sends.as(op, s) != nil && slices.ContainsFunc(groups, func(g Grantee) bool { return g.Grants.Rule(op, at).Allow })
	})
}

// Missing compares what groups are granted that is sent to a service with what a
// token for it permits, and gathers what it lacks, by the permissions of which one
// is wanted.
func (c *Catalog) Missing(s Service, groups []Grantee, at Situation, sends Sends, t *Permits) []Missing {
	var all []Missing
	place := make(map[string]int)
	for _, op := range c.rows {
		sent := sends.as(op, s)
		if sent == nil || op.stray() || t.Allows(sent) {
			continue
		}
		var granted []string
		for _, g := range groups {
			if g.Grants.Rule(op, at).Allow {
				granted = append(granted, g.Name)
			}
		}
		if granted == nil {
			continue
		}
		needs := t.Needs(sent)
		key := joined(needs, " ")
		i, known := place[key]
		if !known {
			i = len(all)
			place[key] = i
			all = append(all, Missing{AnyOf: needs, ReadOnly: true})
		}
		m := &all[i]
		m.ReadOnly = m.ReadOnly && !op.Class.Writes() && !slices.ContainsFunc(needs, onlyReads)
		m.Operations = append(m.Operations, op.ID)
		for _, name := range granted {
			if !slices.Contains(m.Clients, name) {
				m.Clients = append(m.Clients, name)
			}
		}
	}
	return all
}

// onlyReads reports whether a permission's name says that it only reads.
func onlyReads(p Permission) bool { return strings.Contains(string(p), ".Read.") }

// GrantAdvice tells where an administrator grants a permission on the service.
// clientID is the application, empty for the identity of a machine, which has no
// page of that kind; kind is application or delegated.
//
// Application permissions of an identity are assigned to it as app roles
// (learn.microsoft.com/powershell/module/microsoft.graph.applications/new-mgserviceprincipalapproleassignment,
// read 2026-11).
func GrantAdvice(s Service, clientID, kind string) string {
	if clientID == "" {
		return fmt.Sprintf("An administrator assigns the app role of %s to the machine's managed identity, with New-MgServicePrincipalAppRoleAssignment; the next token has it.", s.Application())
	}
	return fmt.Sprintf("An administrator grants it at https://entra.microsoft.com/#view/Microsoft_AAD_RegisteredApps/ApplicationMenuBlade/~/CallAnAPI/appId/%s : Add a permission, %s, %s permissions, then Grant admin consent; the next token has it.",
		clientID, s.Application(), kind)
}
