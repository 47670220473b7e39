package usage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"defender-proxy/internal/audit"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

// traffic is what some callers did, with what is to be counted of it.
var traffic = []audit.Record{
	{Event: audit.Request, Time: at(1), Client: "soc", Tenant: "contoso", Operation: "alerts.list", Status: 200, Attempts: 1},
	{Event: audit.Request, Time: at(3), Client: "soc", Tenant: "contoso", Operation: "alerts.list", Status: 404, Attempts: 2},
	{Event: audit.Request, Time: at(2), Client: "soc", Tenant: "contoso", Operation: "alerts.list", Status: 499, Code: "ClientGone", Attempts: 1},
	{Event: audit.Request, Time: at(4), Client: "soc", Tenant: "contoso", Operation: "alerts.list", Status: 429, Code: "Overloaded"},
	{Event: audit.Request, Time: at(5), Client: "soc", Tenant: "fabrikam", Operation: "alerts.list", Status: 200, Attempts: 1},
	{Event: audit.Request, Time: at(6), Client: "bots", Tenant: "contoso", Operation: "alerts.list", Status: 200, Attempts: 1},
	{Event: audit.Request, Time: at(7), Client: "bots", Tenant: "contoso", Operation: "machines.isolate", Status: 403, Code: "NotGranted"},
	{Event: audit.Request, Time: at(8), Client: "bots", Tenant: "contoso", Operation: "machines.get", Status: 502, Code: "RegionUnavailable", Attempts: 3},
	{Event: audit.Intent, Time: at(9), Client: "soc", Tenant: "contoso", Operation: "machines.isolate"},
	{Event: audit.Request, Time: at(10), Client: "soc", Tenant: "contoso", Operation: "machines.isolate", Status: 202},
	{Event: audit.Request, Time: at(11), Client: "soc", Tenant: "contoso", Operation: "machines.get", Status: 499, Code: "ClientGone"},
	{Event: audit.Request, Time: at(12), Client: "soc", Tenant: "contoso", Status: 404, Code: "UnknownOperation"},
	{Event: audit.Request, Time: at(13), Client: "soc", Status: 200},
	{Event: audit.Request, Time: at(13), Client: "trial", Tenant: "contoso", Operation: "machines.isolate", Status: 201, Attempts: 1, Reported: []string{"MissingPermission"}},
	{Event: audit.Request, Time: at(14), Client: "trial", Tenant: "contoso", Operation: "machines.isolate", Status: 201, Attempts: 1, Reported: []string{"NotGranted", "MissingPermission"}},
	{Event: audit.Request, Time: at(12), Client: "soc", Tenant: "contoso", Operation: "hunting.runMDE", Status: 200, Attempts: 1},
	{Event: audit.Request, Time: at(13), Client: "soc", Tenant: "contoso", Operation: "hunting.runMDE", SentAs: "graph.hunting.run", Status: 200, Attempts: 2},
	{Event: audit.Request, Time: at(13), Client: "soc", Tenant: "contoso", Operation: "hunting.runMDE", SentAs: "graph.hunting.run", Status: 403, Code: "MissingPermission", Attempts: 1},
	{Event: audit.Request, Time: at(14), Status: 403, Code: "ClientNotAdmitted"},
	{Event: audit.Request, Time: at(5), Client: "soc", Tenant: "contoso", Operation: "machineactions.getPackageUri", Status: 200, Attempts: 1},
	{Event: audit.Request, Time: at(6), Client: "soc", Tenant: "contoso", Operation: "machineactions.getPackageUri", File: "a.example/c/f", Status: 200},
	{Event: audit.Request, Time: at(7), Client: "soc", Tenant: "contoso", Operation: "machineactions.getPackageUri", File: "a.example/c/f", Status: 206, Reported: []string{"NotGranted"}},
	{Event: audit.Request, Time: at(8), Client: "soc", Tenant: "contoso", Operation: "machineactions.getPackageUri", File: "a.example/c/f", Status: 410, Code: "LinkExpired"},
	{Event: audit.Request, Time: at(9), Client: "soc", Tenant: "contoso", Operation: "machineactions.getPackageUri", File: "a.example/c/f", Status: 502, Code: "RegionUnavailable"},
}

var counted = []Count{
	{Key: Key{"bots", "contoso", "alerts.list"}, Answered: 1, First: at(6), Last: at(6)},
	{Key: Key{"bots", "contoso", "machines.get"}, Refused: 1},
	{Key: Key{"bots", "contoso", "machines.isolate"}, Refused: 1},
	{Key: Key{"soc", "contoso", "alerts.list"}, Answered: 3, Refused: 1, First: at(1), Last: at(3)},
	{Key: Key{"soc", "contoso", "hunting.runMDE"}, Answered: 2, Bridged: 1, Refused: 1, First: at(12), Last: at(13)},
	{Key: Key{"soc", "contoso", "machineactions.getPackageUri"}, Answered: 1, First: at(5), Last: at(5)},
	{Key: Key{"soc", "fabrikam", "alerts.list"}, Answered: 1, First: at(5), Last: at(5)},
	{Key: Key{"trial", "contoso", "machines.isolate"}, Answered: 2, Reported: 1, First: at(13), Last: at(14)},
}

func TestRecordsAreCountedByGroupTenantAndOperation(t *testing.T) {
	c := New()
	if first, last, missed := c.Span(); len(c.Counts()) != 0 || !first.IsZero() || !last.IsZero() || missed != 0 {
		t.Errorf("nothing counts as %v, %v to %v, %d", c.Counts(), first, last, missed)
	}
	for _, r := range traffic {
		c.Observe(&r)
	}
	if got := c.Counts(); !slices.Equal(got, counted) {
		t.Errorf("got  %+v\nwant %+v", got, counted)
	}
	if first, last, missed := c.Span(); !first.Equal(at(1)) || !last.Equal(at(14)) || missed != 0 {
		t.Errorf("from %v to %v, %d missed", first, last, missed)
	}
}

// What a file is counted to is what the process counted that wrote it.
func TestAFileCountsLikeTheTrafficThatItIsOf(t *testing.T) {
	var file bytes.Buffer
	log := audit.New(&file)
	for _, r := range traffic {
		if err := log.Write(&r); err != nil {
			t.Fatal(err)
		}
	}
	c := New()
	lines, err := c.Read(iotest.OneByteReader(bytes.NewReader(file.Bytes())))
	if err != nil || lines != len(traffic) || !slices.Equal(c.Counts(), counted) {
		t.Errorf("%d lines, %v\ngot  %+v\nwant %+v", lines, err, c.Counts(), counted)
	}
	for _, f := range []struct {
		name, text string
		lines      int
		err        string
	}{
		{"nothing", "", 0, ""},
		{"a line that is on its way", file.String() + `{"time":"2026-11-21T12:0`, len(traffic), ""},
		{"empty lines", "\n\n" + file.String() + "\n", len(traffic), ""},
		{"another file", "listeners:\n  - address: 127.0.0.1:8080\n", 0, "line 1 is no audit record"},
		{"other JSON", "{}\n{}\n", 0, "line 1 is no audit record"},
		{"a fault in the middle", file.String() + "oops\n" + file.String(), len(traffic), fmt.Sprintf("line %d is no audit record", len(traffic)+1)},
	} {
		lines, err := New().Read(strings.NewReader(f.text))
		if lines != f.lines || (err == nil) != (f.err == "") || err != nil && !strings.Contains(err.Error(), f.err) {
			t.Errorf("%s: %d lines, %v; want %d and %q", f.name, lines, err, f.lines, f.err)
		}
	}
	if _, err := New().Read(io.MultiReader(&file, iotest.ErrReader(errors.New("disk broken")))); err == nil || !strings.Contains(err.Error(), "disk broken") {
		t.Errorf("a file that cannot be read to its end gives %v", err)
	}
}

func TestTheKeysAreBounded(t *testing.T) {
	c := New()
	for i := range MaxKeys + 5 {
		c.Observe(&audit.Record{Event: audit.Request, Time: start, Client: "soc", Tenant: fmt.Sprint("t", i), Operation: "alerts.list", Attempts: 1})
	}
	c.Observe(&audit.Record{Event: audit.Request, Time: start, Client: "soc", Tenant: "t0", Operation: "alerts.list", Attempts: 1})
	if _, _, missed := c.Span(); len(c.Counts()) != MaxKeys || missed != 5 || c.Counts()[0].Answered != 2 {
		t.Errorf("%d keys, %d missed, %+v", len(c.Counts()), missed, c.Counts()[0])
	}
}

func TestManyCountAtOnce(t *testing.T) {
	c := New()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				c.Observe(&audit.Record{Event: audit.Request, Time: start, Client: "soc", Tenant: "contoso", Operation: "alerts.list", Attempts: 1})
				c.Span()
			}
			c.Counts()
		})
	}
	wg.Wait()
	if got := c.Counts(); len(got) != 1 || got[0].Answered != 4000 {
		t.Errorf("got %+v", got)
	}
}

func BenchmarkObserve(b *testing.B) {
	c := New()
	r := &audit.Record{Event: audit.Request, Time: start, Client: "soc", Tenant: "contoso", Operation: "alerts.list", Attempts: 1}
	b.ReportAllocs()
	for b.Loop() {
		c.Observe(r)
	}
}

// However odd a file is, what is counted of it is a part of what is in it.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-21T12:00:00.000Z","event":"request","client":"soc","tenant":"contoso","operation":"alerts.list","attempts":1}` + "\n"))
	f.Add([]byte(`{"time":"2026-11-21T12:00:00.000Z","event":"lost","count":3}` + "\n\n{"))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c := New()
		lines, err := c.Read(bytes.NewReader(file))
		most := bytes.Count(file, []byte("\n")) + 1
		var total int64
		for _, n := range c.Counts() {
			total += n.Answered + n.Refused
			if n.Client == "" || n.Tenant == "" || n.Operation == "" || n.Answered > 0 && n.Last.Before(n.First) {
				t.Errorf("counted %+v", n)
			}
		}
		if lines > most || total > int64(lines) {
			t.Errorf("%d lines and %d requests of %d lines, %v", lines, total, most, err)
		}
	})
}
