package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"defender-proxy/internal/simulator"
)

// object is a piece of configuration. JSON is YAML, so it is written as that.
type object = map[string]any

// setup says how a world differs from the usual one: contoso with the demo
// tenant's permissions, a listener and an admin listener on free ports of
// loopback, read and hunt granted.
type setup struct {
	sim simulator.Config
	// permissions are added to those of the demo tenant, by service.
	permissions map[string][]string
	// config changes the configuration before it is written.
	config func(object)
	// before runs when the simulator is up and the proxy is not.
	before func(*simulator.Simulator)
	// unready starts a proxy that is not expected to become ready.
	unready bool
	level   string
}

// world is a simulator and a proxy before it.
type world struct {
	*process
	t    *testing.T
	sim  *simulator.Simulator
	dir  string
	file string // the configuration
}

const secretVariable = "CONTOSO_SECRET"

// newWorld starts a simulator and a proxy, and ends both with the test. What
// the proxy must never do (race, panic, leave with an error) is checked then.
func newWorld(t *testing.T, s setup) *world {
	t.Helper()
	w := simulated(t, s)
	w.process = start(t, s.level, w.file, secretVariable+"="+simulator.DefaultSecret)
	if !s.unready {
		w.ready()
	}
	return w
}

// simulated starts the simulator and writes the configuration, for tests that
// run the proxy themselves.
func simulated(t *testing.T, s setup) *world {
	t.Helper()
	if s.sim.Delays == nil {
		// Far enough apart that the order is the same on a busy machine.
		s.sim.Delays = map[string]time.Duration{
			"eu": time.Millisecond, "uk": 60 * time.Millisecond, "us": 120 * time.Millisecond, "au": 180 * time.Millisecond,
			"swa": 180 * time.Millisecond, "ina": 180 * time.Millisecond, "aea": 180 * time.Millisecond,
		}
	}
	if s.sim.Tenants == nil {
		s.sim.Tenants = []simulator.Tenant{simulator.DefaultTenant()}
	}
	for service, more := range s.permissions {
		held := s.sim.Tenants[0].Apps[0].Permissions
		held[service] = append(held[service], more...)
	}
	sim, err := simulator.New(s.sim)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sim.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the simulator: %v", err)
		}
	})
	if s.before != nil {
		s.before(sim)
	}
	w := &world{t: t, sim: sim, dir: t.TempDir()}
	w.write("ca.pem", sim.CA())
	c := w.configuration()
	if s.config != nil {
		s.config(c)
	}
	w.file = w.configure(c)
	return w
}

// in is the world for a subtest, which fails by itself.
func (w *world) in(t *testing.T) *world {
	c := *w
	c.t = t
	return &c
}

// configuration is the usual one.
func (w *world) configuration() object {
	endpoints := object{}
	for _, r := range w.sim.Regions() {
		endpoints[r] = w.sim.Endpoint(r)
	}
	return object{
		"listeners": []object{{"address": "127.0.0.1:0"}},
		"admin":     object{"address": "127.0.0.1:0"},
		"clients":   []object{{"name": "local", "from": []string{"127.0.0.0/8", "::1/128"}, "allow": []string{"read", "hunt"}}},
		"tenants": []object{{
			"name": "contoso", "id": simulator.DefaultTenantID, "cloud": "lab",
			"credential": object{"client_id": simulator.DefaultClientID, "client_secret": object{"env": secretVariable}},
		}},
		"egress": object{"ca_file": "ca.pem"},
		"clouds": []object{{
			"name": "lab", "authority": w.sim.Authority(),
			"endpoints": object{"mde": endpoints, "xdr": endpoints, "graph": endpoints},
			"audiences": object{
				"mde": "https://api.securitycenter.microsoft.com", "xdr": "https://api.security.microsoft.com", "graph": "https://graph.microsoft.com",
			},
			"blob_hosts": []string{"127.0.0.1"},
		}},
	}
}

// allow sets what the client group may do.
func allow(c object, what ...string) { c["clients"].([]object)[0]["allow"] = what }

// inRegions keeps the tenant to some regions.
func inRegions(c object, names ...string) {
	c["tenants"].([]object)[0]["regions"] = object{"allow": names}
}

// preferring keeps the tenant to some regions and begins with the first of them
// while that is well, whatever this machine's mood does to the measures.
func preferring(c object, names ...string) {
	c["tenants"].([]object)[0]["regions"] = object{"allow": names, "prefer": names[0]}
}

// probing measures the regions often, so that a bad first sample on a busy
// machine does not decide the order for half a minute.
func probing(c object) { c["regions"] = object{"probe_interval": "1s"} }

// configure writes a configuration.
func (w *world) configure(c object) string {
	w.t.Helper()
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		w.t.Fatal(err)
	}
	return w.write("proxy.yaml", text)
}

func (w *world) write(name string, data []byte) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// upstream lists what arrived at the regions, but for the probes, which carry
// no token.
func (w *world) upstream() []simulator.Request {
	return slices.DeleteFunc(w.sim.Requests(), func(r simulator.Request) bool {
		return r.Listener != "api" || r.Method == http.MethodHead && r.Header.Get("Authorization") == ""
	})
}

// arrivals lists what arrived with a method at a path.
func (w *world) arrivals(method, path string) []simulator.Request {
	return slices.DeleteFunc(w.upstream(), func(r simulator.Request) bool {
		target, _, _ := strings.Cut(r.Target, "?")
		return r.Method != method || target != path
	})
}

// answer is what a caller got.
type answer struct {
	status int
	proto  string
	header http.Header
	body   []byte
	// err is how the body ended before its end, if it did.
	err error
}

// refused gives the code and message of an error body, empty for any other.
func (a answer) refused() (code, message string) {
	var body struct {
		Error struct{ Code, Message, Target string }
	}
	if json.Unmarshal(a.body, &body) != nil {
		return "", ""
	}
	return body.Error.Code, body.Error.Message
}

// ours reports whether the proxy made the answer itself.
func (a answer) ours() bool { return strings.Contains(a.header.Get("Proxy-Status"), "error=") }

func (a answer) String() string {
	const most = 600
	return fmt.Sprintf("%d %v %.*q %v", a.status, a.header, most, a.body, a.err)
}

// page is a collection's answer.
type page struct {
	Value []struct {
		ID string `json:"id"`
	} `json:"value"`
	Next  string `json:"@odata.nextLink"`
	Count *int   `json:"@odata.count"`
}

func (a answer) page(t *testing.T) page {
	t.Helper()
	var p page
	if err := json.Unmarshal(a.body, &p); err != nil || a.status != http.StatusOK {
		t.Fatalf("the answer is no page of a collection: %v: %v", err, a)
	}
	return p
}

// caller is the client of callers: it keeps connections, follows nothing and
// decompresses nothing.
var caller = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// ask sends a request and reads the answer, however it ends. header holds names
// and values in turn.
func ask(ctx context.Context, method, url, body string, header ...string) (answer, error) {
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, from)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := caller.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, proto: resp.Proto, header: resp.Header}
	a.body, a.err = io.ReadAll(resp.Body)
	return a, nil
}

// patience bounds how long a story waits for anything.
const patience = 30 * time.Second

// do sends a request to the callers' listener; url may also be a whole one.
func (w *world) do(method, url, body string, header ...string) answer {
	w.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = w.url + url
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := ask(ctx, method, url, body, header...)
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", method, url, err, w.stderr)
	}
	return a
}

func (w *world) get(url string, header ...string) answer {
	w.t.Helper()
	return w.do(http.MethodGet, url, "", header...)
}

// ready waits until the proxy says that it is.
func (w *world) ready() {
	w.t.Helper()
	w.eventually("the proxy is ready", func() error {
		if a := w.get(w.admin + "/-/ready"); a.status != http.StatusOK {
			return fmt.Errorf("it answers %d %s", a.status, a.body)
		}
		return nil
	})
}

// place is a row of /-/regions.
type place struct {
	Service, Region, Host string
	Healthy, Resting      bool
	LatencyMS             float64 `json:"latency_ms"`
	Samples, Failures     int
	Chosen                []string
}

// places reads /-/regions: the rows of one service, by region.
func (w *world) places(service string) map[string]place {
	w.t.Helper()
	a := w.get(w.admin + "/-/regions")
	var view struct{ Regions []place }
	if err := json.Unmarshal(a.body, &view); err != nil {
		w.t.Fatalf("/-/regions: %v: %v", err, a)
	}
	rows := make(map[string]place)
	for _, r := range view.Regions {
		if r.Service == service {
			rows[r.Region] = r
		}
	}
	return rows
}

// nearest waits until every region has been measured and requests for Defender
// for Endpoint would go to one first.
func (w *world) nearest(region string) {
	w.t.Helper()
	w.nearestOf("mde", region)
}

func (w *world) nearestOf(service, region string) {
	w.t.Helper()
	w.eventually("the nearest region is "+region, func() error {
		for _, r := range w.places(service) {
			switch {
			case r.Samples+r.Failures == 0:
				return fmt.Errorf("%s has not been measured", r.Region)
			case len(r.Chosen) > 0 && r.Region != region:
				return fmt.Errorf("it is %s: %v", r.Region, r.Chosen)
			}
		}
		return nil
	})
}

// eventually waits until check has nothing to say.
func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	eventually(w.t, what, check)
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		switch {
		case err == nil:
			return
		case time.Now().After(deadline):
			t.Fatalf("waited %v until %s: %v", patience, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// record is one line of the audit.
type record struct {
	Event, Method, Path, Tenant, Operation, Class, Decision, Rule, Code, Reason, Region, Client string
	Time                                                                                        time.Time
	RequestID                                                                                   string `json:"request_id"`
	TokenUTI                                                                                    string `json:"token_uti"`
	Status, Attempts                                                                            int
	Tried                                                                                       []string
	RegionReason                                                                                string  `json:"region_reason"`
	Waited                                                                                      float64 `json:"waited_ms"`
	BytesIn                                                                                     int64   `json:"bytes_in"`
	BytesOut                                                                                    int64   `json:"bytes_out"`
	Duration                                                                                    float64 `json:"duration_ms"`
}

// records reads audit records, whole lines only.
func records(t *testing.T, data []byte) []record {
	t.Helper()
	var all []record
	end := bytes.LastIndexByte(data, '\n') + 1
	for line := range bytes.Lines(data[:end]) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("an audit record is not JSON: %v: %s", err, line)
		}
		asTheSchemaSays(t, line)
		all = append(all, r)
	}
	return all
}

// asTheSchemaSays checks a line of the audit by docs/audit.schema.json.
func asTheSchemaSays(t *testing.T, line []byte) {
	t.Helper()
	schema, err := auditSchema()
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("by the schema of the audit this line is wrong: %v\n%s", err, line)
	}
}

var auditSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	return c.Compile("../docs/audit.schema.json")
})

// recordsOf waits for the record of a request's outcome, and gives all that
// there are of it.
func (w *world) recordsOf(a answer) []record {
	w.t.Helper()
	id := a.header.Get("X-Request-Id")
	var found []record
	w.eventually("the record of request "+id+" is written", func() error {
		found = slices.DeleteFunc(records(w.t, w.stdout.bytes()), func(r record) bool { return r.RequestID != id })
		if len(found) == 0 || found[len(found)-1].Event != "request" {
			return fmt.Errorf("there are %d", len(found))
		}
		return nil
	})
	return found
}

// metrics reads the admin listener's metrics: the value of each series.
func (w *world) metrics() map[string]float64 {
	w.t.Helper()
	a := w.get(w.admin + "/metrics")
	if a.status != http.StatusOK {
		w.t.Fatalf("metrics: %v", a)
	}
	series, err := parseMetrics(a.body)
	if err != nil {
		w.t.Fatal(err)
	}
	return series
}

// sum adds up the series whose name, with labels, holds all the parts.
func sum(series map[string]float64, name string, parts ...string) float64 {
	total := 0.0
	for s := range maps.Keys(series) {
		if strings.HasPrefix(s, name) && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) }) {
			total += series[s]
		}
	}
	return total
}

func (w *world) mkdir(name string) {
	w.t.Helper()
	if err := os.Mkdir(filepath.Join(w.dir, name), 0o700); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

// logged says what is missing until the proxy's log holds the text.
func (w *world) logged(text string) error {
	if !strings.Contains(w.stderr.String(), text) {
		return fmt.Errorf("there is no %q in\n%s", text, w.stderr)
	}
	return nil
}
