package main

import (
	"testing"

	"defender-proxy/internal/admin"
)

func TestTheWordsForARegion(t *testing.T) {
	ms := func(v float64) *float64 { return &v }
	for _, c := range []struct {
		name           string
		row            admin.Region
		latency, state string
	}{
		{"nothing is known yet", admin.Region{Healthy: true}, "-", "not measured"},
		{"it does well", admin.Region{Healthy: true, LatencyMS: ms(5)}, "5.0 ms", "in use"},
		{"real requests are as usual", admin.Region{Healthy: true, LatencyMS: ms(5), SurplusMS: ms(0), Real: 70}, "5.0 ms", "in use"},
		{"real requests take longer", admin.Region{Healthy: true, LatencyMS: ms(5), SurplusMS: ms(301.24), Real: 70}, "5.0 ms + 301.2 ms", "in use"},
		{"nobody uses it", admin.Region{Healthy: true, Resting: true, LatencyMS: ms(5)}, "5.0 ms", "resting"},
		{"an answer was a failure", admin.Region{Healthy: true, LatencyMS: ms(5), Failures: 2, Failure: "answered 503 Service Unavailable"}, "5.0 ms", "failed 2 times: answered 503 Service Unavailable"},
		{"it could not be reached", admin.Region{Healthy: true, Suspect: true, LatencyMS: ms(5), Failures: 1, Failure: "no connection: connection refused"}, "5.0 ms", "suspect: no connection: connection refused"},
		{"it is out", admin.Region{Suspect: true, Failures: 3, Failure: "no connection: connection refused"}, "-", "out: no connection: connection refused"},
		{"it failed long ago", admin.Region{Healthy: true, LatencyMS: ms(5), Failure: "no connection: connection refused"}, "5.0 ms", "in use"},
	} {
		if latency, state := latencyWords(c.row), stateWords(c.row); latency != c.latency || state != c.state {
			t.Errorf("%s: got %q, %q, want %q, %q", c.name, latency, state, c.latency, c.state)
		}
	}
}
