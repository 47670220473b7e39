package admin

import (
	"slices"
	"strings"

	"defender-proxy/internal/usage"
	"defender-proxy/policy"
)

func (v *View) tenantUsage(t Tenant, counts []usage.Count) TenantUsage {
	out := TenantUsage{Tenant: t.Name, Services: []ServiceUsage{}}
	called := make(map[policy.Service][]*policy.Operation)
	call := func(op *policy.Operation) {
		if op != nil && !slices.Contains(called[op.Service], op) {
			called[op.Service] = append(called[op.Service], op)
		}
	}
	for _, c := range counts {
		op, known := v.operation(c.Operation)
		if known && c.Answered > c.Bridged {
			call(op)
		}
		if known && c.Bridged > 0 {
			call(v.Catalog.Successor(op)) // whose permission the traffic needed
		}
		if known && c.Answered > 0 && t.Sends != nil {
			for _, sent := range t.Sends(op) { // and the next may go either way
				call(sent)
			}
		}
	}
	for _, a := range t.Access {
		row := ServiceUsage{Service: a.Service}
		var permits *policy.Permits
		if st := a.Token.State(); st.Live && v.Catalog != nil {
			permits = v.Catalog.Permits(st.Claims.Roles, st.Claims.Scopes)
			row.Known, row.Holds = true, permits.Held()
			row.Used = fewest(called[a.Service], func(op *policy.Operation) []policy.Permission {
				return slices.DeleteFunc(slices.Clone(permits.Needs(op)), func(p policy.Permission) bool { return !permits.Holds(p) })
			})
			row.Unused = slices.DeleteFunc(slices.Clone(row.Holds), func(p policy.Permission) bool {
				return slices.ContainsFunc(row.Used, func(u policy.Permission) bool { return strings.EqualFold(string(u), string(p)) })
			})
		}
		row.Enough = fewest(called[a.Service], permits.Needs)
		out.Services = append(out.Services, row)
	}
	return out
}

// fewest picks permissions so that each operation has one of those that it needs,
// where it needs any. An operation that leaves no choice goes first; of several
// permissions the first is taken, for the catalog has Microsoft's order, the least
// privileged first.
func fewest(ops []*policy.Operation, needs func(*policy.Operation) []policy.Permission) (picked []policy.Permission) {
	for _, choice := range []bool{false, true} {
		for _, op := range ops {
			of := needs(op)
			if len(of) == 0 || (len(of) > 1) != choice || slices.ContainsFunc(of, func(p policy.Permission) bool { return slices.Contains(picked, p) }) {
				continue
			}
			picked = append(picked, of[0])
		}
	}
	slices.Sort(picked)
	return picked
}
