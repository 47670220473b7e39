package admin

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"defender-proxy/regions"
)

func TestRegionsShowsWhatWasMeasured(t *testing.T) {
	s := newSide(t, nil)
	s.warm()
	s.until("/-/ready", 200)
	var view struct{ Regions []Region }
	if err := json.Unmarshal(s.get("/-/regions").Body.Bytes(), &view); err != nil || len(view.Regions) != 1 {
		t.Fatal(err, view)
	}
	if r := view.Regions[0]; r.Region != "eu" || !r.Healthy || r.LatencyMS == nil || r.Samples == 0 || len(r.Chosen) != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestARowOfRegionsTellsWhatARegionIsComparedBy(t *testing.T) {
	at := time.Date(2026, 11, 21, 14, 0, 0, 0, time.FixedZone("", 3600))
	for _, c := range []struct {
		name string
		st   regions.State
		want string
	}{
		{"nothing is known yet", regions.State{Service: "mde", Region: "eu", Host: "h", Healthy: true, Since: at}, `{"service":"mde","region":"eu","host":"h","healthy":true,"suspect":false,"resting":false,` +
			`"latency_ms":null,"last_ms":null,"samples":0,"surplus_ms":null,"real":0,"failures":0,"since":"2026-11-21T13:00:00Z"}`},
		{"probed only", regions.State{Service: "mde", Region: "eu", Host: "h", Healthy: true, Resting: true, Latency: 5120 * time.Microsecond, Last: 6 * time.Millisecond, Samples: 3, Since: at}, `{"service":"mde","region":"eu","host":"h","healthy":true,"suspect":false,"resting":true,` +
			`"latency_ms":5.1,"last_ms":6,"samples":3,"surplus_ms":null,"real":0,"failures":0,"since":"2026-11-21T13:00:00Z"}`},
		{"in use", regions.State{
			Service: "mde", Region: "eu", Host: "h", Healthy: true, Suspect: true, Latency: 5 * time.Millisecond, Last: 6 * time.Millisecond, Samples: 3, Since: at,
			Surplus: 301240 * time.Microsecond, Real: 70, Failures: 1, LastFailure: "no connection", LastFailureAt: at, Chosen: []regions.Choice{{Reason: "nearest: 5ms"}},
		}, `{"service":"mde","region":"eu","host":"h","healthy":true,"suspect":true,"resting":false,` +
			`"latency_ms":5,"last_ms":6,"samples":3,"surplus_ms":301.2,"real":70,"failures":1,"failure":"no connection","failed_at":"2026-11-21T13:00:00Z","since":"2026-11-21T13:00:00Z","chosen":["nearest: 5ms"]}`},
		{"real requests are as usual", regions.State{Service: "mde", Region: "eu", Host: "h", Real: 1, Since: at}, `{"service":"mde","region":"eu","host":"h","healthy":false,"suspect":false,"resting":false,` +
			`"latency_ms":null,"last_ms":null,"samples":0,"surplus_ms":0,"real":1,"failures":0,"since":"2026-11-21T13:00:00Z"}`},
	} {
		got, err := json.Marshal(Regions([]regions.State{c.st})[0])
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", c.name, got, err, c.want)
		}
	}
}

// The surplus of a region reaches the page and the metrics.
func TestASlowRegionShowsItsSurplus(t *testing.T) {
	s := newSide(t, nil)
	s.warm()
	s.until("/-/ready", 200)
	e, _ := s.pool.Current()
	for i := range 200 {
		for _, operation := range []string{"alerts.list", "machines.list"} {
			s.monitor.Took(e, operation, time.Duration(i/100)*5*time.Second+time.Second)
		}
	}
	var view struct{ Regions []Region }
	if err := json.Unmarshal(s.get("/-/regions").Body.Bytes(), &view); err != nil || len(view.Regions) != 1 {
		t.Fatal(err, view)
	}
	if r := view.Regions[0]; r.SurplusMS == nil || *r.SurplusMS <= 0 || r.Real == 0 {
		t.Errorf("got %+v, want a surplus", r)
	}
	text := s.get("/metrics").Body.String()
	if !regexp.MustCompile(`defender_proxy_region_surplus_seconds\{host="[^"]+",region="eu",service="mde"\} (0\.\d*[1-9]|[1-9])`).MatchString(text) {
		t.Errorf("no surplus in the metrics:\n%s", text)
	}
	if !regexp.MustCompile(`defender_proxy_region_chosen\{host="[^"]+",region="eu",service="mde"\} 1\n`).MatchString(text) {
		t.Errorf("no choice in the metrics:\n%s", text)
	}
}
