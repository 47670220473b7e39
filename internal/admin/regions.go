package admin

import (
	"math"
	"net/http"
	"time"

	"defender-proxy/regions"
)

// Region is one row of /-/regions and of the command regions.
type Region struct {
	Service   regions.Service `json:"service"`
	Region    regions.Name    `json:"region"`
	Host      string          `json:"host"`
	Healthy   bool            `json:"healthy"`    // not out
	Suspect   bool            `json:"suspect"`    // could not be reached when it was heard of last
	Resting   bool            `json:"resting"`    // not probed, because nobody uses it
	LatencyMS *float64        `json:"latency_ms"` // null before the first probe
	LastMS    *float64        `json:"last_ms"`
	Samples   int             `json:"samples"`
	// SurplusMS is by how much real requests exceed what is usual for their
	// operations; null before the first. Regions are compared by the sum of this
	// and LatencyMS.
	SurplusMS *float64   `json:"surplus_ms"`
	Real      int        `json:"real"`     // requests that the surplus was found with
	Failures  int        `json:"failures"` // in a row
	Failure   string     `json:"failure,omitempty"`
	FailedAt  *time.Time `json:"failed_at,omitempty"`
	Since     time.Time  `json:"since"`
	Chosen    []string   `json:"chosen,omitempty"` // why pools go here first
}

// Regions gives a Monitor's snapshot in the words of /-/regions.
func Regions(snapshot []regions.State) []Region {
	rows := make([]Region, len(snapshot))
	for i, st := range snapshot {
		row := Region{
			Service: st.Service, Region: st.Region, Host: st.Host,
			Healthy: st.Healthy, Suspect: st.Suspect, Resting: st.Resting,
			Samples: st.Samples, Real: st.Real, Failures: st.Failures, Failure: st.LastFailure, Since: st.Since.UTC(),
		}
		if st.Samples > 0 {
			row.LatencyMS, row.LastMS = ms(st.Latency), ms(st.Last)
		}
		if st.Real > 0 {
			row.SurplusMS = ms(st.Surplus)
		}
		if !st.LastFailureAt.IsZero() {
			at := st.LastFailureAt.UTC()
			row.FailedAt = &at
		}
		for _, c := range st.Chosen {
			row.Chosen = append(row.Chosen, c.Reason)
		}
		rows[i] = row
	}
	return rows
}

// ms gives milliseconds to a tenth.
func ms(d time.Duration) *float64 {
	v := math.Round(float64(d)/float64(time.Millisecond)*10) / 10
	return &v
}

func (p *pages) regions(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"regions": Regions(p.Monitor.Snapshot())})
}
