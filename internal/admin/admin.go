// Package admin is the operator's side: whether the proxy lives and is ready,
// which regions it goes to, and its metrics.
//
// It has a listener of its own, so that no caller of the APIs reaches it, and
// no page of it holds a token or a secret. cmd builds it from the same parts as
// the proxy; it changes nothing.
package admin

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// Tenant is a tenant as readiness and metrics see it.
type Tenant struct {
	Name string
	// Access is by service. The tenant is ready when one of them is; the first
	// one's token is asked for, the others count once somebody has used them.
	Access []Access
}

// Access is what a tenant's requests to one service go through.
type Access struct {
	Service policy.Service
	Token   *token.Source
	Regions *regions.Pool
}

// Sources are what the pages tell about.
type Sources struct {
	Tenants []Tenant
	Monitor *regions.Monitor
	Metrics *Metrics
	// Names are what the listener may be called.
	Names *listen.Names
	// Clients are the groups that may use it; nil admits whoever reaches the
	// address, which config allows on loopback only.
	Clients *clients.Groups
}

// patience bounds how long a readiness question waits for tokens that have not
// come yet.
const patience = 2 * time.Second

// New makes the handler of the admin listener. It is safe for concurrent use.
func New(s Sources) (http.Handler, error) {
	if s.Monitor == nil || s.Metrics == nil || s.Names == nil {
		return nil, errors.New("admin: monitor, metrics and names are all needed")
	}
	if err := s.Metrics.registry.Register(state{s}); err != nil {
		return nil, fmt.Errorf("admin: register metrics: %w", err)
	}
	r := mux.NewRouter().SkipClean(true).UseEncodedPath()
	for path, page := range map[string]http.HandlerFunc{
		"/":          index,
		"/-/healthy": healthy,
		"/-/ready":   s.ready,
		"/-/regions": s.regions,
	} {
		r.Path(path).Methods(http.MethodGet, http.MethodHead).HandlerFunc(page)
	}
	r.Path("/metrics").Methods(http.MethodGet, http.MethodHead).Handler(promhttp.HandlerFor(s.Metrics.registry, promhttp.HandlerOpts{}))
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "NotFound", "There is no such page. GET / lists those there are.")
	})
	r.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "The pages of this listener are to be read: GET them.")
	})
	return s.guarded(r), nil
}

// guarded checks who asks, under which name and as which page. mux's own
// middleware would not run where nothing matches.
func (s Sources) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if r.ContentLength != 0 {
			// Nobody reads a body here, and net/http would wait for its end.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(2 * time.Second))
		}
		if s.Clients != nil {
			from, err := netip.ParseAddrPort(r.RemoteAddr)
			if _, ok := s.Clients.Find(from.Addr()); err != nil || !ok {
				refuse(w, http.StatusForbidden, "ClientNotAdmitted", "Your address belongs to no client group under admin.clients of the proxy's configuration.")
				return
			}
		}
		err := s.Names.Check(r)
		var host *listen.HostError
		switch {
		case errors.As(err, &host):
			refuse(w, http.StatusMisdirectedRequest, "HostNotAllowed", "The admin listener is called by its address.")
		case err != nil:
			refuse(w, http.StatusForbidden, "CrossSiteRequest", "The request comes from a web page of another origin.")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

//go:embed index.txt
var indexText []byte

func index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(indexText)
}

// healthy says that the process lives and answers, and nothing else: a failure
// of Entra ID or of a region is no reason to restart it.
func healthy(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"healthy": true})
}

// ready says whether requests can be answered: for each tenant a live token and
// a region that answers. The question itself counts as a use of the token, so
// that a proxy that is watched is warm.
func (s Sources) ready(w http.ResponseWriter, r *http.Request) {
	type row struct {
		Tenant  string         `json:"tenant"`
		Service policy.Service `json:"service,omitempty"`
		Ready   bool           `json:"ready"`
		Region  regions.Name   `json:"region,omitempty"`
		Reason  string         `json:"reason,omitempty"`
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	view := struct {
		Ready   bool  `json:"ready"`
		Tenants []row `json:"tenants"`
	}{Ready: len(s.Tenants) > 0, Tenants: []row{}}
	for _, t := range s.Tenants {
		o := row{Tenant: t.Name, Reason: "no service can be reached in the tenant's cloud and regions"}
		for i, a := range t.Access {
			reason := a.reason(ctx, i == 0)
			if i > 0 && reason != "" {
				continue // the first one's reason is told
			}
			current, _ := a.Regions.Current()
			o.Service, o.Region, o.Reason, o.Ready = a.Service, current.Region, reason, reason == ""
			if o.Ready {
				break
			}
		}
		view.Ready = view.Ready && o.Ready
		view.Tenants = append(view.Tenants, o)
	}
	status := http.StatusOK
	if !view.Ready {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "5")
	}
	writeJSON(w, status, view)
}

// reason says why requests to the service cannot be answered; empty means that
// they can. With ask a token that is not there is asked for.
func (a Access) reason(ctx context.Context, ask bool) string {
	if !ask {
		if st := a.Token.State(); !st.Live {
			return "no token"
		}
	} else if _, err := a.Token.Bearer(ctx); err != nil {
		var known *token.Error
		if errors.As(err, &known) {
			return known.Sentence + " " + known.Remedy
		}
		return "the token has been asked for and has not come yet"
	}
	if !a.Regions.Answering() {
		return "no region has answered a probe; see /-/regions"
	}
	return ""
}

// Region is one row of /-/regions and of the command regions.
type Region struct {
	Service   regions.Service `json:"service"`
	Region    regions.Name    `json:"region"`
	Host      string          `json:"host"`
	Healthy   bool            `json:"healthy"`
	LatencyMS *float64        `json:"latency_ms"` // null before the first probe
	LastMS    *float64        `json:"last_ms"`
	Samples   int             `json:"samples"`
	Failures  int             `json:"failures"` // in a row
	Failure   string          `json:"failure,omitempty"`
	FailedAt  *time.Time      `json:"failed_at,omitempty"`
	Since     time.Time       `json:"since"`
	Chosen    []string        `json:"chosen,omitempty"` // why pools go here first
}

// Regions gives a Monitor's snapshot in the words of /-/regions.
func Regions(snapshot []regions.State) []Region {
	rows := make([]Region, len(snapshot))
	for i, st := range snapshot {
		row := Region{
			Service: st.Service, Region: st.Region, Host: st.Host, Healthy: st.Healthy,
			Samples: st.Samples, Failures: st.Failures, Failure: st.LastFailure, Since: st.Since.UTC(),
		}
		if st.Samples > 0 {
			row.LatencyMS, row.LastMS = ms(st.Latency), ms(st.Last)
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

func (s Sources) regions(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"regions": Regions(s.Monitor.Snapshot())})
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // nobody is left to tell
}
