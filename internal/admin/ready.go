package admin

import (
	"fmt"
	"net/http"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// maxReadyRows bounds the tenants that /-/ready lists when it lists those that
// are ready too.
const maxReadyRows = 100

// readyRow is one tenant's line of /-/ready.
type readyRow struct {
	Tenant  string         `json:"tenant"`
	Service policy.Service `json:"service,omitempty"`
	Ready   bool           `json:"ready"`
	Region  regions.Name   `json:"region,omitempty"`
	Reason  string         `json:"reason,omitempty"`

	waiting bool // for the first token
}

// ready says whether the proxy should be sent requests: every tenant's first
// token has come or failed for a reason that is told, and at least one tenant
// can be served. A tenant that fails stops nobody else; one that comes with a
// reload is waited for by its own callers only. Nothing is ready while a record is
// in a write that does not return; a disk that is full, which lets reads pass, is
// none of that.
//
// The question asks for no token and counts as no use of one.
func (p *pages) ready(w http.ResponseWriter, _ *http.Request) {
	view := p.View()
	out := struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason,omitempty"`
		Counts struct {
			Tenants int `json:"tenants"`
			Ready   int `json:"ready"`
			Waiting int `json:"waiting"`
			Failed  int `json:"failed"`
		} `json:"counts"`
		Tenants []readyRow `json:"tenants"`
	}{Tenants: []readyRow{}}
	for _, t := range view.Tenants {
		row := t.readiness()
		switch {
		case row.Ready:
			out.Counts.Ready++
		case row.waiting:
			out.Counts.Waiting++
		default:
			out.Counts.Failed++
		}
		if !row.Ready || len(view.Tenants) <= maxReadyRows {
			out.Tenants = append(out.Tenants, row)
		}
	}
	out.Counts.Tenants = len(view.Tenants)
	var records audit.Stats
	if p.Audit != nil {
		records = p.Audit.Stats()
	}
	switch {
	case records.Stalled:
		// No request ends before its record is written, reads neither.
		out.Reason = fmt.Sprintf("Audit records do not get through to audit.file: %s. See /-/audit, and who reads the pipe or whether the file system hangs.", records.Failing)
	case out.Counts.Waiting > 0 && (p.Begun == nil || !p.Begun()):
		out.Reason = fmt.Sprintf("The first tokens of %d of %d tenants have not come yet.", out.Counts.Waiting, out.Counts.Tenants)
	case out.Counts.Ready == 0:
		out.Reason = "No tenant can be served."
	default:
		out.Ready = true
	}
	status := http.StatusOK
	if !out.Ready {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "5")
	}
	writeJSON(w, status, out)
}

// readiness tells of the first service that can be used, or why none can.
func (t Tenant) readiness() readyRow {
	row := readyRow{Tenant: t.Name, Reason: "no service can be reached in the tenant's cloud and regions"}
	if len(t.Access) == 0 && len(t.Impaired) > 0 {
		row.Reason = "the tenant is left out, because its file is faulty: " + t.Impaired[0]
	}
	told := false // the reason of an access whose token was asked for
	for i, a := range t.Access {
		reason, waiting := a.standing(a.Token.State())
		if told && reason != "" || i > 0 && waiting {
			continue
		}
		told = !waiting
		current, _ := a.Regions.Current()
		row = readyRow{Tenant: t.Name, Service: a.Service, Region: current.Region, Ready: reason == "", Reason: reason, waiting: waiting}
		if row.Ready {
			break
		}
	}
	return row
}

// standing says why requests to the service cannot be answered; empty means that
// they can, with the token that is there or, after one came and lapsed for want
// of use, with a new one. waiting says that no first fetch has ended yet.
func (a Access) standing(st token.State) (reason string, waiting bool) {
	switch {
	case st.Live:
	case st.Error != nil:
		return st.Error.Sentence + " " + st.Error.Remedy, false
	case st.Fetches == 0:
		return "the first token has not come yet", true
	}
	if !a.Regions.Answering() {
		return "no region has answered a probe; see /-/regions", false
	}
	return "", false
}
