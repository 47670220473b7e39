package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// The network on the way to the nearest region misbehaves, in each of the ways
// that Toxiproxy knows. Reads are answered in full, by whichever region, or end
// in the middle so that everybody sees it. Each write arrives once at most, and
// its caller is told the truth about it.
func TestWhateverTheNetworkDoesReadsAreWholeAndWritesArriveOnce(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, kind, stream string
		attributes         object
		// breaks says that answers may end in the middle.
		breaks bool
	}{
		{"answers come in slices", "slicer", "downstream", object{"average_size": 200, "size_variation": 150, "delay": 20}, false},
		{"requests go out in slices", "slicer", "upstream", object{"average_size": 20, "size_variation": 15, "delay": 20}, false},
		{"there is little bandwidth", "bandwidth", "downstream", object{"rate": 400}, false},
		{"the latency jumps", "latency", "downstream", object{"latency": 100, "jitter": 90}, false},
		{"connections are reset when an answer comes", "reset_peer", "downstream", object{"timeout": 0}, false},
		{"connections are reset when a request goes out", "reset_peer", "upstream", object{"timeout": 0}, false},
		{"connections end after some data", "limit_data", "downstream", object{"bytes": 20_000}, true},
		{"answers are swallowed and the connection ends", "timeout", "downstream", object{"timeout": 700}, false},
		{"requests are swallowed and the connection ends", "timeout", "upstream", object{"timeout": 700}, false},
		{"connections linger", "slow_close", "downstream", object{"delay": 300}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, ways := afar(t, setup{
				permissions: map[string][]string{"mde": {"Ti.ReadWrite.All"}},
				config: func(c object) {
					allow(c, "read", "indicators.create")
					preferring(c, "eu", "uk", "us")
					timing(c, "probe_interval", "2s", "connect_timeout", "3s", "first_byte_timeout", "10s")
				},
			}, "eu", "uk", "us")
			w.nearest("eu")
			const list = "/api/alerts?$top=60"
			whole := w.get(list).body
			if len(whole) < 30_000 {
				t.Fatalf("the answer has only %d bytes", len(whole))
			}
			const path = "/api/indicators"
			w.sim.ResetRequests()
			ways["eu"].toxic(tc.kind, tc.stream, tc.attributes)
			told := make(map[string]answer)
			cut := 0
			for i := range 8 {
				body := fmt.Sprintf(`{"indicatorValue":"%040x","indicatorType":"FileSha1","action":"Audit","generateAlert":true,"title":"t","description":"d"}`, i+1)
				told[body] = w.do(http.MethodPost, path, body)
				a := w.get(list)
				switch {
				case a.status == http.StatusOK && a.err == nil && bytes.Equal(a.body, whole):
				case tc.breaks && a.err != nil && bytes.HasPrefix(whole, a.body):
					cut++
				default:
					t.Errorf("read %d: %d bytes of %d: %v", i, len(a.body), len(whole), a)
				}
			}
			arrived := make(map[string]int)
			for _, r := range w.arrivals(http.MethodPost, path) {
				arrived[r.BodySHA256]++
			}
			done, lost := 0, 0
			for body, a := range told {
				_, message := a.refused()
				switch n := arrived[sha256Hex(body)]; {
				case n > 1:
					t.Errorf("%s arrived %d times", body, n)
				case a.ours() && strings.Contains(message, "may have been carried out"):
					lost++
				case a.status == http.StatusOK && n == 1:
					done++
				default:
					t.Errorf("%s arrived %d times, and its caller was told %v", body, n, a)
				}
			}
			t.Logf("%d answers ended in the middle; %d writes were done and %d lost", cut, done, lost)
			ways["eu"].heal()
			if a := w.get(list); a.status != http.StatusOK || !bytes.Equal(a.body, whole) {
				t.Errorf("when all is well again: %v", a)
			}
		})
	}
}

// The way to a region gets long, though the region is as quick as ever. What
// counts is the whole of it: the next region is nearer now.
func TestALongWayMakesARegionFarther(t *testing.T) {
	t.Parallel()
	w, ways := afar(t, setup{config: probing}, "eu", "uk")
	w.nearest("eu")
	ways["eu"].toxic("latency", "downstream", object{"latency": 500, "jitter": 0})
	w.nearest("uk")
	if a := w.get("/api/alerts?$top=1"); a.status != http.StatusOK || a.hop() != "uk" {
		t.Errorf("got %v", a)
	}
	if rows := w.places("mde"); rows["eu"].LatencyMS < 100 || !rows["eu"].Healthy {
		t.Errorf("of the region with the long way is told: %+v", rows["eu"])
	}
	ways["eu"].heal()
	w.nearest("eu")
}

// All pages of a query come in slices of a few bytes, so that links are cut in
// every place. All of them lead home all the same, and nothing else is changed.
func TestLinksLeadHomeHoweverTheNetworkCutsThem(t *testing.T) {
	t.Parallel()
	const alerts, pageSize = 30, 3
	w, ways := afar(t, setup{sim: simulator.Config{Alerts: alerts, PageSize: pageSize}}, "eu")
	ways["eu"].toxic("slicer", "downstream", object{"average_size": 9, "size_variation": 8, "delay": 1})
	seen := make(map[string]bool)
	for next := w.url + "/api/alerts"; next != ""; {
		a := w.get(next)
		p := a.page(t)
		for _, row := range p.Value {
			seen[row.ID] = true
		}
		if strings.Contains(string(a.body), "microsoft.com/api") || !json.Valid(a.body) {
			t.Errorf("a page still leads to Microsoft: %v", a)
		}
		next = p.Next
	}
	if len(seen) != alerts {
		t.Errorf("%d alerts of %d", len(seen), alerts)
	}
}
