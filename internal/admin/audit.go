package admin

import (
	"net/http"
	"time"

	"defender-proxy/internal/audit"
)

// auditReport is how the audit is, for /-/audit.
type auditReport struct {
	Stored uint64 `json:"stored"`
	Lost   uint64 `json:"lost"`
	// Failing says why the newest record could not be stored; writes are refused then,
	// where audit.writes is required.
	Failing string    `json:"failing,omitempty"`
	Since   time.Time `json:"failing_since,omitzero"`
	// Stalled says that a record is in a write that does not return, and that all
	// requests wait behind it.
	Stalled bool   `json:"stalled,omitempty"`
	Syncs   uint64 `json:"syncs"`
	Aside   uint64 `json:"files_put_aside,omitempty"`
	// Seq and Head are the newest of a chain. Noted elsewhere, they show later whether
	// the end of the file is missing.
	Seq    uint64      `json:"seq,omitempty"`
	Head   string      `json:"head,omitempty"`
	Places []auditCopy `json:"places,omitempty"`
}

// auditCopy is a place beside the file.
type auditCopy struct {
	Name    string `json:"name"`
	Sent    uint64 `json:"sent"`
	Dropped uint64 `json:"dropped"`
	Waiting int    `json:"waiting"`
	Failing string `json:"failing,omitempty"`
}

func reportOf(s audit.Stats) auditReport {
	out := auditReport{
		Stored: s.Stored, Lost: s.Lost, Failing: s.Failing, Since: s.Since, Stalled: s.Stalled, Syncs: s.Syncs, Aside: s.PutAside, Seq: s.Seq, Head: s.Head,
	}
	for _, p := range s.Places {
		out.Places = append(out.Places, auditCopy{p.Name, p.Sent, p.Dropped, p.Waiting, p.Failing})
	}
	return out
}

// audit tells whether records are stored, and how far a chain has come.
func (p *pages) audit(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, reportOf(p.Audit.Stats()))
}
