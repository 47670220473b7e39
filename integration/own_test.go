package integration

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"defender-proxy/internal/simulator"
)

// newOwn starts an upstream of the test's own, for what the simulator does not
// do. Probes it answers by itself, with 401.
func newOwn(t *testing.T, secure *tls.Config, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(w, r)
	}))
	server.TLS, server.Config.ErrorLog = secure, log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// among starts a proxy whose regions are upstreams of the test's own; tokens are
// the simulator's.
func among(t *testing.T, s setup, regions map[string]*httptest.Server) *world {
	t.Helper()
	w := simulated(t, setup{sim: s.sim, permissions: s.permissions, before: s.before, config: func(c object) {
		endpoints := object{}
		for name, server := range regions {
			endpoints[name] = server.URL
		}
		everywhere(c, endpoints)
		if s.config != nil {
			s.config(c)
		}
	}})
	trusted := w.sim.CA()
	for _, server := range regions {
		trusted = slices.Concat(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	}
	w.write("ca.pem", trusted)
	w.process = start(t, s.level, w.file, secretVariable+"="+simulator.DefaultSecret)
	if !s.unready {
		w.ready()
	}
	return w
}
