package admin

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"defender-proxy/internal/usage"
)

// RetiringUsage is an operation that Microsoft retires, and who still calls it.
type RetiringUsage struct {
	Operation string `json:"operation"`
	// Deprecated and Sunset are days, and Successor the operation that takes its
	// place; left out where nothing is known.
	Deprecated string           `json:"deprecated,omitempty"`
	Sunset     string           `json:"sunset,omitempty"`
	Successor  string           `json:"successor,omitempty"`
	Clients    []RetiringClient `json:"clients"`
}

// RetiringClient is a client group that calls it in one tenant.
type RetiringClient struct {
	Client string `json:"client"`
	Tenant string `json:"tenant"`
	// Count is how many calls got an answer of Microsoft's, Bridged how many of them
	// the successor's, Refused how many the proxy refused. Last is the last of Count.
	Count   int64     `json:"count"`
	Bridged int64     `json:"bridged,omitempty"`
	Refused int64     `json:"refused,omitempty"`
	Last    time.Time `json:"last,omitzero"`
}

// retiring picks the counts of operations that Microsoft retires, those first that
// end first. Calls of the successor by its own name are none of them.
func (v *View) retiring(counts []usage.Count) []RetiringUsage {
	all := []RetiringUsage{}
	for _, c := range counts {
		op, known := v.operation(c.Operation)
		if !known || !op.Retires() {
			continue
		}
		i := slices.IndexFunc(all, func(r RetiringUsage) bool { return r.Operation == op.ID })
		if i < 0 {
			i = len(all)
			all = append(all, RetiringUsage{Operation: op.ID, Deprecated: op.Deprecated, Sunset: op.Sunset, Successor: op.Successor})
		}
		all[i].Clients = append(all[i].Clients, RetiringClient{c.Client, c.Tenant, c.Answered, c.Bridged, c.Refused, c.Last})
	}
	slices.SortFunc(all, func(a, b RetiringUsage) int {
		return cmp.Or(cmp.Compare(cmp.Or(a.Sunset, "9"), cmp.Or(b.Sunset, "9")), cmp.Compare(a.Operation, b.Operation))
	})
	return all
}

var retiringRequests = prometheus.NewDesc("defender_proxy_retiring_requests_total",
	"Requests for operations that Microsoft retires, refused ones too, by operation and client group.", []string{"operation", "client"}, nil)

// collectRetiring tells who calls what is retired. Operations are those of the
// catalog, client groups those of the configuration, so there are few.
func (s state) collectRetiring(ch chan<- prometheus.Metric) {
	view := s.sources.View()
	if s.sources.Usage == nil || view.Catalog == nil {
		return
	}
	ids := make(map[string]bool)
	for _, op := range view.Catalog.Operations() {
		if op.Retires() {
			ids[op.ID] = true
		}
	}
	type series struct{ operation, client string }
	sums := make(map[series]int64)
	for _, c := range s.sources.Usage.Of(ids) {
		if slices.ContainsFunc(view.Groups, func(g Group) bool { return g.Name == c.Client }) {
			sums[series{c.Operation, c.Client}] += c.Answered + c.Refused
		}
	}
	for k, n := range maps.All(sums) {
		ch <- prometheus.MustNewConstMetric(retiringRequests, prometheus.CounterValue, float64(n), k.operation, k.client)
	}
}
