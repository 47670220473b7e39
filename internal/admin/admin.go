// Package admin is the operator's side: whether the proxy lives and is ready,
// how each tenant's credential and tokens are, which regions it goes to, its
// metrics, what client groups really use, and the two things to do there: to read
// the configuration again, and to approve a call that waits for a second person.
//
// It has a listener of its own, so that no caller of the APIs reaches it, and
// no page of it holds a token or a secret. cmd builds it from the same parts as
// the proxy, and says at each question which configuration is in force.
package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/egress"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/usage"
	"defender-proxy/regions"
)

// Sources are what the pages tell about.
type Sources struct {
	// View gives the configuration that is in force. It is called for each request,
	// concurrently, and returns at once; what it gives does not change any more.
	View func() *View
	// Begun reports whether the first tokens of all tenants that there were at the
	// start have come or failed. It is called concurrently. Nil says no: then the
	// proxy is ready only when no tenant waits for its first token.
	Begun   func() bool
	Monitor *regions.Monitor
	Metrics *Metrics
	// Names are what the listener may be called, Address where it is, for records.
	Names   *listen.Names
	Address string
	// Audit is where decisions are recorded, and whose state is told. Approvals are
	// the calls that wait for them, Usage is what was called. Nil, there are no pages
	// of theirs.
	Audit     *audit.Log
	Approvals *approval.Store
	Usage     *usage.Counter
	// Reload reads the configuration anew; nil where there is none to read, and
	// then there is no page for it.
	Reload Reload
}

// pages are the handlers of the admin listener.
type pages struct{ Sources }

// New makes the handler of the admin listener. It is safe for concurrent use.
// Metrics may serve one handler only.
func New(s Sources) (http.Handler, error) {
	if s.View == nil || s.Monitor == nil || s.Metrics == nil || s.Names == nil {
		return nil, errors.New("admin: view, monitor, metrics and names are all needed")
	}
	if err := s.Metrics.registry.Register(state{s}); err != nil {
		return nil, fmt.Errorf("admin: register metrics: %w", err)
	}
	p := &pages{s}
	r := mux.NewRouter().SkipClean(true).UseEncodedPath()
	add := func(path string, page http.Handler, methods ...string) {
		r.Path(path).Handler(only(methods, page))
	}
	read := map[string]http.HandlerFunc{
		"/":          p.index,
		"/-/healthy": healthy,
		"/-/ready":   p.ready,
		"/-/regions": p.regions,
		"/-/tenants": p.tenants,
	}
	if s.Usage != nil {
		read["/-/usage"] = p.usage
	}
	if s.Audit != nil {
		read["/-/audit"] = p.audit
	}
	if s.Audit != nil && s.Approvals != nil {
		read["/-/approvals"] = p.approvals
		read["/-/approvals/{id}"] = p.oneApproval
		add("/-/approvals/{id}/{verdict:approve|deny}", http.HandlerFunc(p.verdict), http.MethodPost)
	}
	for path, page := range read {
		add(path, page, http.MethodGet, http.MethodHead)
	}
	add("/metrics", promhttp.HandlerFor(s.Metrics.registry, promhttp.HandlerOpts{}), http.MethodGet, http.MethodHead)
	if s.Reload != nil {
		add("/-/reload", http.HandlerFunc(p.reload), http.MethodPost)
	}
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "NotFound", "There is no such page. GET / lists those there are.")
	})
	return p.guarded(r), nil
}

// only refuses other methods than those given.
func only(methods []string, page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(methods, r.Method) {
			page.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		message := "This page is to be read: GET it."
		if methods[0] == http.MethodPost {
			message = "This page does something: POST to it."
		}
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", message)
	})
}

// guarded checks who asks, under which name and as which page. mux's own
// middleware would not run where nothing matches.
func (p *pages) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if r.ContentLength != 0 {
			// Nobody reads a body here but a short one, and net/http would wait for its end.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(2 * time.Second))
		}
		if groups := p.View().Clients; groups != nil {
			if _, ok := groups.Find(callerOf(r)); !ok {
				refuse(w, http.StatusForbidden, "ClientNotAdmitted", "You belong to no client group under admin.clients of the proxy's configuration.")
				return
			}
		}
		if v := listen.Violated(r); v != nil {
			refuse(w, v.Status, "InvalidRequest", v.Reason)
			return
		}
		if egress.FromProxy(r.Header) {
			refuse(w, http.StatusLoopDetected, "InvalidRequest", "The request was sent by a defender-proxy (CDN-Loop), to this listener, which is for people. Correct the address where it was sent from: the endpoints under clouds, or egress.resolve.")
			return
		}
		err := p.Names.Check(r)
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

// callerOf gives what is known of who asks. X-Forwarded-For is not believed here.
func callerOf(r *http.Request) clients.Caller {
	peer := listen.PeerOf(r)
	c := clients.Caller{Addr: peer.Addr, Certificate: peer.Certificate(), Header: r.Header}
	if u := peer.Unix; u != nil {
		c.Unix, c.UID, c.GIDs = true, u.UID, u.Groups
	}
	return c
}

// healthy says that the process lives and answers, and nothing else: a failure
// of Entra ID or of a region is no reason to restart it, and neither are audit
// records that do not get through, which another process would not get through
// either: /-/ready tells of those.
func healthy(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"healthy": true})
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
