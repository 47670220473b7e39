package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"defender-proxy/internal/usage"
	"defender-proxy/policy"
)

// UsageReport compares what was really called with what is granted and held, for
// /-/usage and the command usage.
type UsageReport struct {
	// Since and Until are the times of the first and the last record; left out where
	// there is none.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Missed counts requests that could not be told apart any more.
	Missed  int64         `json:"missed,omitempty"`
	Clients []ClientUsage `json:"clients"`
	Tenants []TenantUsage `json:"tenants"`
	// Retiring are the operations that Microsoft retires and somebody still calls.
	Retiring []RetiringUsage `json:"retiring"`
}

// ClientUsage is what a client group called, and what it is granted in vain.
type ClientUsage struct {
	Client string `json:"client"`
	// Gone says that no group of this name is configured any more.
	Gone bool `json:"gone,omitempty"`
	// Granted is how many operations the group is granted in one of its tenants, Used
	// how many of those it called.
	Granted    int              `json:"granted"`
	Used       int              `json:"used"`
	Operations []OperationUsage `json:"operations"`
	// Unused are the entries of allow that no call needed.
	Unused []UnusedGrant `json:"unused_grants"`
	// Allow is what the group used, as entries of allow in place of those it has.
	Allow []SuggestedGrant `json:"suggested_allow"`
}

// OperationUsage is one operation in one tenant.
type OperationUsage struct {
	Tenant    string         `json:"tenant"`
	Operation string         `json:"operation"`
	Service   policy.Service `json:"service,omitempty"`
	Class     policy.Class   `json:"class,omitempty"`
	Answered  int64          `json:"answered"` // got Microsoft's answer
	Refused   int64          `json:"refused"`  // by the proxy
	First     time.Time      `json:"first,omitzero"`
	Last      time.Time      `json:"last,omitzero"`
	// Granted says that the configuration grants it, as of now.
	Granted bool `json:"granted"`
}

// UnusedGrant is an entry of allow that no call needed.
type UnusedGrant struct {
	Entry      string `json:"entry"`
	Operations int    `json:"operations"` // how many it names
	// Why tells what else makes it idle.
	Why string `json:"why,omitempty"`
}

// SuggestedGrant is an entry of allow with nothing in it that was not used.
type SuggestedGrant struct {
	Operations []string  `json:"operations"`
	Tenants    []string  `json:"tenants,omitempty"`
	Until      time.Time `json:"until,omitzero"`
	When       string    `json:"when,omitempty"`
	// New says that nothing grants it now: report mode let it pass, or an entry that
	// is gone.
	New bool `json:"new,omitempty"`
}

// TenantUsage is what of a tenant's permissions its traffic needed.
type TenantUsage struct {
	Tenant   string         `json:"tenant"`
	Services []ServiceUsage `json:"services"`
}

// ServiceUsage is one service's.
type ServiceUsage struct {
	Service policy.Service `json:"service"`
	// Known says that there is a token to compare with; else Enough alone is told.
	Known bool                `json:"known"`
	Holds []policy.Permission `json:"holds,omitempty"`
	// Used are those of Holds with which all the traffic would have passed, Unused
	// the others.
	Used   []policy.Permission `json:"used,omitempty"`
	Unused []policy.Permission `json:"unused,omitempty"`
	// Enough are the documented ones with which all the traffic would have passed.
	// They may be smaller than those held.
	Enough []policy.Permission `json:"enough,omitempty"`
}

// Usage compares counts with the view, as of now.
func (v *View) Usage(counts []usage.Count, now time.Time) UsageReport {
	out := UsageReport{Clients: []ClientUsage{}, Tenants: []TenantUsage{}, Retiring: v.retiring(counts)}
	byClient, byTenant := make(map[string][]usage.Count), make(map[string][]usage.Count)
	for _, c := range counts {
		byClient[c.Client] = append(byClient[c.Client], c)
		byTenant[c.Tenant] = append(byTenant[c.Tenant], c)
	}
	for _, g := range v.Groups {
		out.Clients = append(out.Clients, v.clientUsage(g, byClient[g.Name], now))
		delete(byClient, g.Name)
	}
	for _, name := range sorted(byClient) {
		gone := v.clientUsage(Group{Name: name}, byClient[name], now)
		gone.Gone, gone.Allow = true, []SuggestedGrant{}
		out.Clients = append(out.Clients, gone)
	}
	for _, t := range v.Tenants {
		out.Tenants = append(out.Tenants, v.tenantUsage(t, byTenant[t.Name]))
	}
	return out
}

func sorted(m map[string][]usage.Count) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// grant is an entry of allow with what came of it.
type grant struct {
	policy.Entry
	alone *policy.Grants // the entry by itself
	used  map[string]bool
}

func (v *View) clientUsage(g Group, counts []usage.Count, now time.Time) ClientUsage {
	out := ClientUsage{Client: g.Name, Operations: []OperationUsage{}, Unused: []UnusedGrant{}, Allow: []SuggestedGrant{}}
	grants := v.alone(g.Allow)
	granted, used := v.granted(g, now), make(map[string]bool)
	fresh := make(map[string]map[string]bool) // operations that nothing grants, with their tenants
	for _, c := range counts {
		row := OperationUsage{Tenant: c.Tenant, Operation: c.Operation, Answered: c.Answered, Refused: c.Refused, First: c.First, Last: c.Last}
		op, known := v.operation(c.Operation)
		if known {
			row.Service, row.Class = op.Service, op.Class
			row.Granted = g.Grants.Rule(op, policy.Situation{Tenant: c.Tenant, Now: now}).Allow
		}
		out.Operations = append(out.Operations, row)
		if c.Answered == 0 || !known {
			continue
		}
		lacking := c.Reported > 0 && !since(grants, op, c, now)
		if c.Answered > c.Reported && needed(grants, op, c, now) == 0 && !row.Granted {
			lacking = true
		}
		if granted[op.ID] && (c.Answered > c.Reported || !lacking) {
			used[op.ID] = true
		}
		if lacking {
			if fresh[op.ID] == nil {
				fresh[op.ID] = make(map[string]bool)
			}
			fresh[op.ID][c.Tenant] = true
		}
	}
	out.Granted, out.Used = len(granted), len(used)
	for _, gr := range grants {
		ended := !gr.Until.IsZero() && !now.Before(gr.Until)
		if len(gr.used) == 0 || ended {
			out.Unused = append(out.Unused, v.unused(gr, ended))
			continue
		}
		s := SuggestedGrant{Operations: v.inOrder(gr.used), Tenants: gr.Tenants, Until: gr.Until}
		if gr.When != nil {
			s.When = gr.When.String()
		}
		out.Allow = append(out.Allow, s)
	}
	out.Allow = append(out.Allow, v.fresh(g, fresh)...)
	return out
}

// alone compiles each entry by itself.
func (v *View) alone(allow []policy.Entry) (grants []*grant) {
	if v.Catalog == nil {
		return nil
	}
	for _, e := range allow {
		if one, err := v.Catalog.Grants([]policy.Entry{e}, nil); err == nil { // it compiled with the others before
			grants = append(grants, &grant{e, one, make(map[string]bool)})
		}
	}
	return grants
}

// needed notes which entries a call needed, and gives their number: the first
// without a condition, else all with one, for nobody knows which of them held. An
// entry that has ended since is asked as of the call.
func needed(grants []*grant, op *policy.Operation, c usage.Count, now time.Time) (n int) {
	at := policy.Situation{Tenant: c.Tenant, Now: now}
	fits := func(gr *grant) bool {
		return gr.alone.Rule(op, at).Allow || gr.alone.Rule(op, policy.Situation{Tenant: c.Tenant, Now: c.Last}).Allow
	}
	for _, gr := range grants {
		if gr.When == nil && fits(gr) {
			gr.used[op.ID] = true
			return 1
		}
	}
	for _, gr := range grants {
		if gr.When != nil && fits(gr) {
			gr.used[op.ID] = true
			n++
		}
	}
	return n
}

// since notes and reports that an entry without a condition grants by now what report
// mode let pass. One with a condition granted nothing of it: none held.
func since(grants []*grant, op *policy.Operation, c usage.Count, now time.Time) bool {
	for _, gr := range grants {
		if gr.When == nil && gr.alone.Rule(op, policy.Situation{Tenant: c.Tenant, Now: now}).Allow {
			gr.used[op.ID] = true
			return true
		}
	}
	return false
}

// granted gives the operations that a group is granted in one of its tenants.
func (v *View) granted(g Group, now time.Time) map[string]bool {
	all := make(map[string]bool)
	if v.Catalog == nil {
		return all
	}
	tenants := g.Tenants
	if tenants == nil {
		for _, t := range v.Tenants {
			tenants = append(tenants, t.Name)
		}
	}
	for _, op := range v.Catalog.Operations() {
		for _, t := range tenants {
			if g.Grants.Rule(op, policy.Situation{Tenant: t, Now: now}).Allow {
				all[op.ID] = true
				break
			}
		}
	}
	return all
}

// operation finds a row by its id, those for paths outside the catalog too.
func (v *View) operation(id string) (*policy.Operation, bool) {
	if v.Catalog == nil {
		return nil, false
	}
	op, _ := v.Catalog.ByID(id)
	return op, op != nil
}

func (v *View) unused(gr *grant, ended bool) UnusedGrant {
	out := UnusedGrant{Entry: cmp.Or(gr.Text, strings.Join(gr.Operations, ", "))}
	for _, op := range v.Catalog.Operations() {
		if len(gr.alone.Trace(op, policy.Situation{})) > 0 {
			out.Operations++
		}
	}
	if ended {
		out.Why = "ended " + gr.Until.Format(time.RFC3339)
	}
	return out
}

// inOrder gives ids in the order of the catalog.
func (v *View) inOrder(ids map[string]bool) []string {
	var all []string
	for _, op := range v.Catalog.Operations() {
		if ids[op.ID] {
			all = append(all, op.ID)
		}
	}
	var strays []string
	for id := range ids {
		if !slices.Contains(all, id) {
			strays = append(strays, id)
		}
	}
	slices.Sort(strays)
	return append(all, strays...)
}

// fresh gives entries for what nothing grants now, those of the same tenants in
// one. A group that has one tenant needs no names.
func (v *View) fresh(g Group, operations map[string]map[string]bool) (all []SuggestedGrant) {
	ids := make(map[string]bool)
	for id := range operations {
		ids[id] = true
	}
	for _, id := range v.inOrder(ids) {
		var tenants []string
		if len(g.Tenants) != 1 && len(v.Tenants) != 1 {
			for name := range operations[id] {
				tenants = append(tenants, name)
			}
			slices.Sort(tenants)
		}
		i := slices.IndexFunc(all, func(s SuggestedGrant) bool { return slices.Equal(s.Tenants, tenants) })
		if i < 0 {
			i = len(all)
			all = append(all, SuggestedGrant{Tenants: tenants, New: true})
		}
		all[i].Operations = append(all[i].Operations, id)
	}
	return all
}

// Used is Usage of what a counter has counted, of one tenant's or client group's
// calls where tenant or client is not empty. Its error is for a name that is neither
// configured nor counted, and lists those that are.
func (v *View) Used(counter *usage.Counter, tenant, client string, now time.Time) (UsageReport, error) {
	counts := counter.Counts()
	if err := v.known(counts, tenant, client); err != nil {
		return UsageReport{}, err
	}
	if tenant != "" {
		counts = slices.DeleteFunc(counts, func(c usage.Count) bool { return c.Tenant != tenant })
	}
	report := v.Usage(counts, now)
	report.Since, report.Until, report.Missed = counter.Span()
	if client != "" {
		report.Clients = slices.DeleteFunc(report.Clients, func(c ClientUsage) bool { return c.Client != client })
	}
	if client != "" {
		report.Retiring = v.retiring(slices.DeleteFunc(counts, func(c usage.Count) bool { return c.Client != client }))
	}
	if tenant != "" {
		report.Tenants = slices.DeleteFunc(report.Tenants, func(t TenantUsage) bool { return t.Tenant != tenant })
	}
	return report, nil
}

// known looks for the names that a report is asked for.
func (v *View) known(counts []usage.Count, tenant, client string) error {
	var tenants, groups []string
	for _, t := range v.Tenants {
		tenants = append(tenants, t.Name)
	}
	for _, g := range v.Groups {
		groups = append(groups, g.Name)
	}
	for _, c := range counts {
		tenants, groups = append(tenants, c.Tenant), append(groups, c.Client)
	}
	for _, asked := range []struct {
		what, name string
		known      []string
	}{{"tenant", tenant, tenants}, {"client group", client, groups}} {
		if asked.name == "" || slices.Contains(asked.known, asked.name) {
			continue
		}
		const most = 20
		slices.Sort(asked.known)
		asked.known = slices.Compact(asked.known)
		list := strings.Join(asked.known[:min(len(asked.known), most)], ", ")
		if n := len(asked.known) - most; n > 0 {
			list += fmt.Sprintf(" and %d more", n)
		}
		return fmt.Errorf("no %s is called %.64q; there are %s", asked.what, asked.name, list)
	}
	return nil
}

// UnknownName is the code of a refusal to tell of a tenant or client group that there
// is none of.
const UnknownName = "UnknownName"

// usage answers /-/usage: ?client=NAME and ?tenant=NAME leave out the others,
// ?output=policy gives the suggested grants in the configuration's form.
func (p *pages) usage(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	report, err := p.View().Used(p.Usage, query.Get("tenant"), query.Get("client"), time.Now())
	if err != nil {
		refuse(w, http.StatusNotFound, UnknownName, "There is no usage to tell: "+err.Error()+".")
		return
	}
	switch output := query.Get("output"); output {
	case "", "json":
		writeJSON(w, http.StatusOK, report)
	case "policy":
		if query.Get("tenant") != "" {
			refuse(w, http.StatusBadRequest, "InvalidRequest", "A policy is of all tenants: each allow takes the place of the one that the group has, which holds for the others too. Leave tenant out, or take another output.")
			return
		}
		w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
		_ = report.WritePolicy(w) // nobody is left to tell
	default:
		refuse(w, http.StatusBadRequest, "InvalidRequest", fmt.Sprintf("output=%.20q is neither json nor policy.", output))
	}
}
