package main

import (
	"fmt"

	"defender-proxy/internal/condition"
	"defender-proxy/internal/config"
	"defender-proxy/policy"
	"defender-proxy/proxy"
)

// grants compiles what a client group may do and may not, and gives what it may.
func (p *parts) grants(g config.ClientGroup) (*policy.Grants, []policy.Entry, error) {
	allow, err := entries(g.Allow)
	if err != nil {
		return nil, nil, err
	}
	deny, err := entries(g.Deny)
	if err != nil {
		return nil, nil, err
	}
	grants, err := p.catalog.Grants(allow, deny)
	if err == nil && g.Grants == config.GrantsReport {
		grants = grants.Reporting()
	}
	return grants, allow, err
}

// entries gives a list of grants as policy has it, with their conditions compiled.
func entries(list []config.Grant) ([]policy.Entry, error) {
	all := make([]policy.Entry, len(list))
	for i, g := range list {
		all[i] = policy.Entry{Operations: g.Operations, Tenants: g.Tenants, Until: g.Until}
		if g.When == "" {
			continue
		}
		when, err := condition.Compile(g.When)
		if err != nil {
			return nil, fmt.Errorf("the condition %q: %w", g.When, err)
		}
		all[i].When = when
	}
	return all, nil
}

// twoPeople says what waits for a second person.
func (p *parts) twoPeople() error {
	a := p.config.Approval
	if len(a.Operations) == 0 {
		return nil
	}
	waiting, err := p.catalog.Grants(policy.Entries(a.Operations...), nil)
	if err != nil {
		return fmt.Errorf("approval: %w", err)
	}
	p.approval = &proxy.Approval{Operations: waiting, By: a.By, Within: a.Within, Store: p.approvals}
	return nil
}
