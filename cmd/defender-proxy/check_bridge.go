package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"defender-proxy/policy"
)

// widened tells of client groups whose grants reach further over the retirement
// bridge than they say: an older hunting call is granted, its successor is not, and
// what runs is the successor, with all the tables that it has. Of a group that has
// both nothing is said.
func (p *parts) widened(only string, now time.Time) (all []string) {
	for _, g := range p.view.Groups {
		operations := make(map[*policy.Operation]*policy.Operation) // granted, and what is sent for it
		var tenants []string
		for _, t := range p.tenantsNamed(only) {
			sends := p.proxy.Sends(t.Name)
			if sends == nil || g.Tenants != nil && !slices.Contains(g.Tenants, t.Name) {
				continue
			}
			at := policy.Situation{Tenant: t.Name, Now: now}
			before := len(tenants)
			for _, op := range p.catalog.Operations() {
				for _, sent := range sends(op) {
					if sent == op || !g.Grants.Rule(op, at).Allow || g.Grants.Rule(sent, at).Allow {
						continue
					}
					operations[op] = sent
					if len(tenants) == before {
						tenants = append(tenants, t.Name)
					}
				}
			}
		}
		if len(tenants) > 0 {
			all = append(all, widenedWords(g.Name, tenants, operations))
		}
	}
	return all
}

func widenedWords(group string, tenants []string, operations map[*policy.Operation]*policy.Operation) string {
	var granted, sent []string
	for op, next := range operations {
		granted = append(granted, op.ID)
		if !slices.Contains(sent, next.ID) {
			sent = append(sent, next.ID)
		}
	}
	slices.Sort(granted)
	slices.Sort(sent)
	of := "tenant " + tenants[0]
	if more := len(tenants) - 1; more > 0 {
		of = fmt.Sprintf("%s and %d more", of, more)
	}
	successor := strings.Join(sent, ", ")
	return fmt.Sprintf("client group %s is granted %s and not %s, which takes its place by hunting: graph or auto of %s: its queries reach every table that Microsoft Graph hunts in, mail and identities too. Grant %s as well to say that this is meant, or deny hunting.*, or set hunting to legacy",
		group, strings.Join(granted, ", "), successor, of, successor)
}
