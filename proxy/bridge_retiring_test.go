package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"defender-proxy/policy"
)

func TestAnswersOfRetiringOperationsSaySo(t *testing.T) {
	const (
		deprecation = "@1770336000" // 2026-02-06
		sunset      = "Mon, 01 Feb 2027 00:00:00 GMT"
	)
	for _, c := range []struct {
		name string
		way  Hunting
		path string
		page string
	}{
		{"mde, not bridged", HuntingLegacy, runMDE, "https://learn.microsoft.com/defender-endpoint/api/run-advanced-query-api"},
		{"mde, bridged", HuntingGraph, runMDE, "https://learn.microsoft.com/defender-endpoint/api/run-advanced-query-api"},
		{"xdr, not bridged", HuntingLegacy, runXDR, "https://learn.microsoft.com/defender-xdr/api-advanced-hunting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := hunts(t, c.way, nil, gives(200, graphAnswer, "Link", `<https://x.example>; rel="y"`, "Deprecation", "@1", "Sunset", "Tue, 02 Mar 2027 00:00:00 GMT"))
			h := w.do("POST", c.path, aQuery).header
			if h.Get("Deprecation") != deprecation || h.Get("Sunset") != sunset {
				t.Errorf("Deprecation %q, Sunset %q", h["Deprecation"], h["Sunset"])
			}
			links := strings.Join(h["Link"], ", ")
			for _, want := range []string{"<" + c.page + `>; rel="deprecation"`, `<https://learn.microsoft.com/graph/api/security-security-runhuntingquery>; rel="successor-version"`} {
				if !strings.Contains(links, want) {
					t.Errorf("%s is not among the links %s", want, links)
				}
			}
			if strings.Contains(links, "x.example") != (c.way == HuntingGraph) {
				t.Errorf("links %s", links)
			}
		})
	}
	t.Run("what Microsoft says of the operation itself stands", func(t *testing.T) {
		w := hunts(t, HuntingLegacy, gives(200, `{}`, "Sunset", "Tue, 02 Mar 2027 00:00:00 GMT"), nil)
		if h := w.do("POST", runMDE, aQuery).header; len(h["Sunset"]) != 1 || h.Get("Sunset") != "Tue, 02 Mar 2027 00:00:00 GMT" || h.Get("Deprecation") != deprecation {
			t.Errorf("%q %q", h["Sunset"], h["Deprecation"])
		}
	})
	t.Run("others say nothing", func(t *testing.T) {
		w := hunts(t, HuntingGraph, nil, nil)
		if h := w.do("GET", "/api/alerts", "").header; h["Sunset"] != nil || h["Deprecation"] != nil || h["Link"] != nil {
			t.Errorf("%v", h)
		}
	})
	t.Run("a refusal is none of Microsoft's answers", func(t *testing.T) {
		w := hunts(t, HuntingGraph, nil, nil, func(o *options) { o.deny = []string{"hunting.*"} })
		if h := w.do("POST", runMDE, aQuery).header; h["Sunset"] != nil {
			t.Errorf("%v", h)
		}
	})
}

func TestExplainAndOperationsSayWhatIsSent(t *testing.T) {
	w := hunts(t, HuntingGraph, nil, nil)
	got := w.do("GET", "/-/explain?method=POST&path="+runMDE, "")
	var e Explanation
	if err := json.Unmarshal([]byte(got.body), &e); err != nil {
		t.Fatal(err)
	}
	if !e.Allowed || e.Operation != "hunting.runMDE" || e.SentAs != "graph.hunting.run" || e.Sent != runGraph || !slices.Equal(e.Needs, []policy.Permission{"ThreatHunting.Read.All"}) || !strings.Contains(e.Message, "sent to Microsoft Graph as graph.hunting.run") {
		t.Errorf("%+v", e)
	}
	w.do("POST", runMDE, aQuery) // brings Graph's token
	var list struct {
		Operations []struct {
			ID        string
			SentAs    string `json:"sent_as"`
			Permitted *bool
			Needs     []string
		}
	}
	if err := json.Unmarshal([]byte(w.do("GET", "/-/operations?class=hunt", "").body), &list); err != nil || len(list.Operations) != 4 {
		t.Fatalf("%v %+v", err, list)
	}
	for _, op := range list.Operations {
		if (op.SentAs != "") != (op.ID != "graph.hunting.run") || !slices.Equal(op.Needs, []string{"ThreatHunting.Read.All"}) || op.Permitted == nil || !*op.Permitted {
			t.Errorf("%+v", op)
		}
	}
}

// A hundred thousand rows go through while they come, and the first is there before
// the last is sent.
func TestManyRowsStreamThroughTheBridge(t *testing.T) {
	first := make(chan struct{})
	w := hunts(t, HuntingGraph, nil, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{"schema":[{"name":"A","type":"Int64"}],"results":[{"A":0}`)
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-first:
		case <-r.Context().Done():
			return
		}
		for i := 1; i < 100_000; i++ {
			fmt.Fprintf(rw, `,{"A@odata.type":"#Int64","A":%d}`, i)
		}
		_, _ = io.WriteString(rw, `]}`)
	})
	req := httptest.NewRequest("POST", w.server.URL+runXDR, strings.NewReader(aQuery))
	req.RequestURI = ""
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	const begin = `{"Schema":[{"Name":"A","Type":"Int64"}],"Results":[{"A":0}`
	head := make([]byte, len(begin))
	if _, err := io.ReadFull(resp.Body, head); err != nil || string(head) != begin {
		t.Fatalf("the beginning: %s, %v", head, err)
	}
	close(first)
	rest, err := io.ReadAll(resp.Body)
	var all struct {
		Results []struct{ A int }
		Stats   struct {
			Dataset []struct {
				Rows int `json:"table_row_count"`
			} `json:"dataset_statistics"`
		}
	}
	if err != nil || json.Unmarshal(append(head, rest...), &all) != nil || len(all.Results) != 100_000 || all.Results[99_999].A != 99_999 || all.Stats.Dataset[0].Rows != 100_000 {
		t.Errorf("%d rows, %v, %+v", len(all.Results), err, all.Stats)
	}
}
