package simulator

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxHuntingRows is the documented limit of a result.
const maxHuntingRows = 100_000

// huntingShape is how the three APIs differ in their answers. The one with a context
// is Graph's, which says of numbers of 64 bits what they are, for JSON does not
// (OData 4.01 JSON, section 4.6.3).
type huntingShape struct {
	schema, results, name, kind string
	context, stats              bool
}

func huntingHandlers() map[string]handler {
	return map[string]handler{
		"hunting.runMDE":      hunt(huntingShape{"Schema", "Results", "Name", "Type", false, false}),
		"hunting.runMDEByKey": huntByKey(huntingShape{"Schema", "Results", "Name", "Type", false, false}),
		"hunting.runXDR":      hunt(huntingShape{"Schema", "Results", "Name", "Type", false, true}),
		"graph.hunting.run":   hunt(huntingShape{"schema", "results", "name", "type", true, false}),
	}
}

// hunt runs a query and streams its rows: a result may be too long to hold.
func hunt(shape huntingShape) handler {
	return func(c *call) (reply, error) {
		f, p := c.object()
		if p != nil {
			return reply{}, p
		}
		text, p := f.need("Query")
		if p != nil {
			return reply{}, p
		}
		timespan, p := f.text("Timespan")
		if p != nil {
			return reply{}, p
		}
		if shape.context && timespan != "" && !strings.HasPrefix(timespan, "P") && !strings.Contains(timespan, "/") {
			return reply{}, problemf(http.StatusBadRequest, "BadRequest", "Timespan '%s' is not an ISO 8601 duration or interval.", timespan)
		}
		return shape.run(c, text)
	}
}

// huntByKey runs the query of the parameter key, as the sample for Power BI sends it
// (learn.microsoft.com/defender-endpoint/api/run-advanced-query-sample-power-bi-app-token,
// read 2026-11).
func huntByKey(shape huntingShape) handler {
	return func(c *call) (reply, error) {
		text := c.r.URL.Query().Get("key")
		if text == "" {
			return reply{}, problemf(http.StatusBadRequest, "BadRequest", "The parameter key is missing.")
		}
		return shape.run(c, text)
	}
}

// run runs a query.
func (h huntingShape) run(c *call, text string) (reply, error) {
	q, err := parseQuery(text, c.now)
	if err != nil {
		return reply{}, problemf(http.StatusBadRequest, "BadRequest", "%s. Fix semantic errors in your query.", err)
	}
	return reply{stream: func(w io.Writer) error { return h.write(w, c, q) }}, nil
}

// write streams the answer.
func (h huntingShape) write(w io.Writer, c *call, q *query) error {
	out := bufio.NewWriterSize(w, 32<<10)
	out.WriteByte('{')
	if h.context {
		out.WriteString(`"@odata.context":"` + c.metadata() + `microsoft.graph.security.huntingQueryResults",`)
	}
	if h.stats {
		stats, err := marshalPlain(members{
			{"ExecutionTime", 0.0156652}, {"resource_usage", members{
				{"cache", members{{"memory", members{{"hits", 5}, {"misses", 0}, {"total", 5}}}, {"disk", members{{"hits", 0}, {"misses", 0}, {"total", 0}}}}},
				{"cpu", members{{"user", "00:00:00"}, {"kernel", "00:00:00"}, {"total cpu", "00:00:00"}}},
				{"memory", members{{"peak_per_node", 16777312}}},
			}}, {"dataset_statistics", []any{members{{"table_row_count", 1}, {"table_size", 60}}}},
		})
		if err != nil {
			return err
		}
		out.WriteString(`"Stats":`)
		out.Write(stats)
		out.WriteByte(',')
	}
	schema := []members{}
	for _, col := range q.columns() {
		schema = append(schema, members{{h.name, col.name}, {h.kind, col.kind}})
	}
	text, err := marshalPlain(schema)
	if err != nil {
		return err
	}
	out.WriteString(`"` + h.schema + `":`)
	out.Write(text)
	out.WriteString(`,"` + h.results + `":[`)
	first := true
	long := make(map[string]bool)
	for _, col := range q.columns() {
		long[col.name] = h.context && col.kind == "Int64"
	}
	err = q.run(c.fleet, func(row members) error {
		text, err := annotated(row, long).MarshalJSON()
		if err != nil {
			return err
		}
		if !first {
			out.WriteByte(',')
		}
		first = false
		_, err = out.Write(text)
		return err
	})
	if err != nil {
		return err
	}
	out.WriteString("]}")
	return out.Flush()
}

// annotated puts an annotation before the members that want one.
func annotated(row members, long map[string]bool) members {
	var out members
	for _, m := range row {
		if long[m.name] {
			out = append(out, member{m.name + "@odata.type", "#Int64"})
		}
		out = append(out, m)
	}
	return out
}

// column of a hunting table.
type column struct{ name, kind string }

// table of advanced hunting. Row i follows from the fleet and i alone, so that
// events need no memory.
type table struct {
	columns []column
	rows    func(f *fleet) int
	row     func(f *fleet, machines []machine, alerts []alert, i int) []any
}

// eventCount is how many events each event table has: more than a result holds.
const eventCount = 120_000

func columns(pairs ...string) []column {
	var out []column
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, column{pairs[i], pairs[i+1]})
	}
	return out
}

// event gives time, machine and user of an event.
func event(f *fleet, machines []machine, i int) (time.Time, machine, user) {
	m := machines[i%len(machines)]
	return f.born.Add(-time.Duration(i) * 21 * time.Second), m, f.users[m.users[i%len(m.users)]]
}

var huntingTables = map[string]table{
	"DeviceInfo": {
		columns("Timestamp", "DateTime", "DeviceId", "String", "DeviceName", "String", "OSPlatform", "String", "OSBuild", "Int64",
			"PublicIP", "String", "MachineGroup", "String", "IsAzureADJoined", "SByte", "OnboardingStatus", "String"),
		func(f *fleet) int { return len(snapshot(f, &f.machines)) },
		func(_ *fleet, machines []machine, _ []alert, i int) []any {
			m := machines[i]
			return []any{m.LastSeen.Time, m.ID, m.ComputerDNSName, m.OSPlatform, m.OSBuild, m.LastExternalIPAddress, m.RBACGroupName, m.IsAADJoined, m.OnboardingStatus}
		},
	},
	"AlertInfo": {
		columns("Timestamp", "DateTime", "AlertId", "String", "Title", "String", "Category", "String", "Severity", "String",
			"ServiceSource", "String", "DetectionSource", "String", "AttackTechniques", "String"),
		func(f *fleet) int { return len(snapshot(f, &f.alerts)) },
		func(_ *fleet, _ []machine, alerts []alert, i int) []any {
			a := alerts[i]
			return []any{a.AlertCreationTime.Time, a.ID, a.Title, a.Category, a.Severity, "Microsoft Defender for Endpoint", a.DetectionSource, strings.Join(a.MitreTechniques, ",")}
		},
	},
	"AlertEvidence": {
		columns("Timestamp", "DateTime", "AlertId", "String", "EntityType", "String", "DeviceId", "String", "SHA1", "String", "FileName", "String", "AccountName", "String"),
		func(f *fleet) int { return len(snapshot(f, &f.alerts)) },
		func(f *fleet, _ []machine, alerts []alert, i int) []any {
			a := alerts[i]
			x := f.files[a.links.file]
			return []any{a.AlertCreationTime.Time, a.ID, "File", a.MachineID, x.SHA1, x.name, a.RelatedUser.UserName}
		},
	},
	"DeviceProcessEvents": {
		columns("Timestamp", "DateTime", "DeviceId", "String", "DeviceName", "String", "ActionType", "String", "FileName", "String", "SHA1", "String",
			"ProcessId", "Int64", "ProcessCommandLine", "String", "AccountName", "String", "InitiatingProcessFileName", "String", "ReportId", "Int64"),
		func(*fleet) int { return eventCount },
		func(f *fleet, machines []machine, _ []alert, i int) []any {
			when, m, u := event(f, machines, i)
			x := f.files[i%len(f.files)]
			return []any{when, m.ID, m.ComputerDNSName, "ProcessCreated", x.name, x.SHA1, 1000 + i%60_000, `"` + x.name + `" /run`, u.AccountName, "explorer.exe", i}
		},
	},
	"DeviceNetworkEvents": {
		columns("Timestamp", "DateTime", "DeviceId", "String", "DeviceName", "String", "ActionType", "String", "RemoteIP", "String", "RemotePort", "Int32",
			"RemoteUrl", "String", "LocalIP", "String", "ReportId", "Int64"),
		func(*fleet) int { return eventCount },
		func(f *fleet, machines []machine, _ []alert, i int) []any {
			when, m, _ := event(f, machines, i)
			return []any{when, m.ID, m.ComputerDNSName, "ConnectionSuccess", f.ips[i%len(f.ips)], 443, f.domains[i%len(f.domains)], m.LastIPAddress, i}
		},
	},
	"DeviceLogonEvents": {
		columns("Timestamp", "DateTime", "DeviceId", "String", "DeviceName", "String", "ActionType", "String", "LogonType", "String", "AccountName", "String",
			"AccountDomain", "String", "ReportId", "Int64"),
		func(*fleet) int { return eventCount },
		func(f *fleet, machines []machine, _ []alert, i int) []any {
			when, m, u := event(f, machines, i)
			return []any{when, m.ID, m.ComputerDNSName, []string{"LogonSuccess", "LogonFailed"}[i%5/4], "Interactive", u.AccountName, u.AccountDomain, i}
		},
	},
}
