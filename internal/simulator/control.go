package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
)

// decodeStrict reads one JSON value without unknown keys.
func decodeStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// maxControlBody bounds what the control port reads.
const maxControlBody = 64 << 10

// controlHandler is the control port. It has no lock, so it answers only for
// loopback names (a web page that was rebound to loopback brings another) and
// to no browser page of another origin.
func (s *Simulator) controlHandler() http.Handler {
	rt := mux.NewRouter()
	rt.HandleFunc("/", s.controlHelp).Methods(http.MethodGet, http.MethodHead)
	rt.HandleFunc("/state", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, s.state()) }).Methods(http.MethodGet)
	rt.HandleFunc("/requests", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, s.Requests()) }).Methods(http.MethodGet)
	rt.HandleFunc("/requests", action204(func(*http.Request, []byte) error { s.ResetRequests(); return nil })).Methods(http.MethodDelete)
	rt.HandleFunc("/tokens/issued", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, s.issuedList()) }).Methods(http.MethodGet)
	change := rt.Methods(http.MethodPost, http.MethodPut).Subrouter()
	change.HandleFunc("/reset", action204(func(*http.Request, []byte) error { return s.Reset() }))
	change.HandleFunc("/tokens/revoke", action204(func(*http.Request, []byte) error { s.Revoke(); return nil }))
	change.HandleFunc("/tokens/lifetime", action204(func(_ *http.Request, body []byte) error {
		var in struct {
			Lifetime string `json:"lifetime"`
		}
		return firstError(decodeStrict(body, &in), func() error {
			d, err := time.ParseDuration(in.Lifetime)
			if err != nil || d <= 0 {
				return fmt.Errorf("lifetime %q: write a number with a unit, such as 30s", in.Lifetime)
			}
			s.SetTokenLifetime(d)
			return nil
		})
	}))
	change.HandleFunc("/regions/{region}/fault", action204(func(r *http.Request, body []byte) error {
		f, err := readFault(body)
		return firstError(err, func() error { return s.SetRegion(mux.Vars(r)["region"], f) })
	}))
	change.HandleFunc("/regions/{region}/delay", action204(func(r *http.Request, body []byte) error {
		var in struct {
			Delay string `json:"delay"`
		}
		return firstError(decodeStrict(body, &in), func() error {
			d, err := time.ParseDuration(in.Delay)
			if err != nil {
				return fmt.Errorf("delay %q: write a number with a unit, such as 250ms", in.Delay)
			}
			return s.SetDelay(mux.Vars(r)["region"], d)
		})
	}))
	change.HandleFunc("/entra/fault", action204(func(_ *http.Request, body []byte) error {
		f, err := readFault(body)
		return firstError(err, func() error { return s.SetEntra(f) })
	}))
	change.HandleFunc("/retired", action204(func(_ *http.Request, body []byte) error {
		var in struct {
			Status int `json:"status"`
		}
		return firstError(decodeStrict(body, &in), func() error { return s.SetRetired(in.Status) })
	}))
	change.HandleFunc("/apps/{tenant}/{app}", action204(s.changeApp))
	s.credentialRoutes(rt, change)
	// A fault is also mended by deleting it.
	rt.HandleFunc("/regions/{region}/fault", action204(func(r *http.Request, _ []byte) error {
		return s.SetRegion(mux.Vars(r)["region"], Fault{})
	})).Methods(http.MethodDelete)
	rt.HandleFunc("/entra/fault", action204(func(*http.Request, []byte) error { return s.SetEntra(Fault{}) })).Methods(http.MethodDelete)
	rt.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusNotFound, map[string]string{"error": "there is no " + r.URL.Path + " here; GET / lists what there is"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains([]string{s.control.address, "localhost:" + s.control.address[strings.LastIndexByte(s.control.address, ':')+1:]}, r.Host) ||
			r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" && r.Header.Get("Sec-Fetch-Site") != "none" && r.Header.Get("Sec-Fetch-Site") != "same-origin" {
			writeJSON(w, http.StatusForbidden, map[string]string{"error": "the control port answers for " + s.control.address + " only, and to no web page"})
			return
		}
		rt.ServeHTTP(w, r)
	})
}

func firstError(err error, then func() error) error {
	if err != nil {
		return err
	}
	return then()
}

// action204 reads a bounded body, acts, and answers 204, or 400 with what was
// wrong.
func action204(act func(*http.Request, []byte) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
		if err == nil {
			err = act(r, body)
		}
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func readFault(body []byte) (Fault, error) {
	var f Fault
	return f, decodeStrict(body, &f)
}

// changeApp sets what is there of permissions, secrets and switches.
func (s *Simulator) changeApp(r *http.Request, body []byte) error {
	var in struct {
		Permissions    map[string][]string `json:"permissions"`
		Secrets        []string            `json:"secrets"`
		ExpiredSecrets []string            `json:"expired_secrets"`
		Disabled       *bool               `json:"disabled"`
		Consented      *bool               `json:"consented"`
		Certificates   [][]byte            `json:"certificates"` // DER in base64
		Federated      []Federated         `json:"federated"`
	}
	if err := decodeStrict(body, &in); err != nil {
		return err
	}
	tenant, app := mux.Vars(r)["tenant"], mux.Vars(r)["app"]
	for service, roles := range in.Permissions {
		if err := s.SetPermissions(tenant, app, service, roles...); err != nil {
			return err
		}
	}
	if in.Secrets != nil {
		if err := s.SetSecrets(tenant, app, in.Secrets...); err != nil {
			return err
		}
	}
	for _, secret := range in.ExpiredSecrets {
		if err := s.ExpireSecret(tenant, app, secret); err != nil {
			return err
		}
	}
	if in.Certificates != nil {
		if err := s.SetCertificates(tenant, app, in.Certificates...); err != nil {
			return err
		}
	}
	if in.Federated != nil {
		if err := s.SetFederated(tenant, app, in.Federated...); err != nil {
			return err
		}
	}
	if in.Consented != nil {
		if err := s.SetConsented(tenant, app, *in.Consented); err != nil {
			return err
		}
	}
	if in.Disabled != nil {
		return s.SetDisabled(tenant, app, *in.Disabled)
	}
	return nil
}

// issuedList is Issued as a sorted list.
func (s *Simulator) issuedList() any {
	type row struct {
		Tenant   string `json:"tenant"`
		App      string `json:"app"`
		Audience string `json:"audience"`
		Count    int    `json:"count"`
	}
	rows := []row{}
	for k, n := range s.Issued() {
		rows = append(rows, row{k.Tenant, k.App, k.Audience, n})
	}
	slices.SortFunc(rows, func(a, b row) int {
		return strings.Compare(a.Tenant+a.App+a.Audience, b.Tenant+b.App+b.Audience)
	})
	return rows
}

// state is everything that can be set, without secrets.
func (s *Simulator) state() any {
	type regionState struct {
		Region   string `json:"region"`
		Endpoint string `json:"endpoint"`
		Delay    string `json:"delay"`
		Fault    *Fault `json:"fault"`
	}
	type appState struct {
		Tenant      string              `json:"tenant"`
		TenantName  string              `json:"tenant_name"`
		App         string              `json:"app"`
		Secrets     int                 `json:"secrets"`
		Disabled    bool                `json:"disabled"`
		Permissions map[string][]string `json:"permissions"`

		Certificates int         `json:"certificates"`
		Federated    []Federated `json:"federated,omitempty"`
		Public       bool        `json:"public"`
		Consented    bool        `json:"consented"`
	}
	shown := func(f Fault) *Fault {
		if f.Kind == FaultNone {
			return nil
		}
		return &f
	}
	var regions []regionState
	for _, name := range regionNames {
		delay, fault := s.regions[name].faults.state(s.regions[name].gate)
		regions = append(regions, regionState{name, s.Endpoint(name), delay.String(), shown(fault)})
	}
	apps := []appState{}
	s.directory.mu.Lock()
	for _, t := range s.directory.tenants {
		for _, a := range t.apps {
			apps = append(apps, appState{
				t.id, t.name, a.clientID, len(a.secrets), a.disabled, clonePermissions(a.permissions),
				len(a.certificates), slices.Clone(a.federated), a.public, !a.unconsented,
			})
		}
	}
	s.directory.mu.Unlock()
	slices.SortFunc(apps, func(a, b appState) int { return strings.Compare(a.Tenant+a.App, b.Tenant+b.App) })
	_, entra := s.entra.state(s.login)
	_, vault := s.vault.faults.state(s.vault.gate)
	_, identity := s.identity.faults.state(s.identity.gate)
	return members{
		{"authority", s.Authority()}, {"blob", s.BlobURL()}, {"control", s.ControlURL()}, {"regions", regions}, {"entra_fault", shown(entra)},
		{"vault", s.VaultURL()}, {"vault_fault", shown(vault)}, {"identity", s.IdentityURL()}, {"identity_fault", shown(identity)},
		{"workload_issuer", s.WorkloadIssuer()},
		{"token_lifetime", time.Duration(s.signer.lifetime.Load()).String()}, {"apps", apps}, {"seed", s.cfg.Seed},
		{"quotas", s.cfg.Quotas}, {"misbehave", s.cfg.Misbehave}, {"retired", s.retired.Load()},
	}
}

// controlHelp lists what there is, in lines to paste.
func (s *Simulator) controlHelp(w http.ResponseWriter, _ *http.Request) {
	u := s.ControlURL()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, `The simulator of Entra ID, Defender, Graph and blob storage.

Entra ID  %s
Blob      %s
Vault     %s
Identity  %s
`, s.Authority(), s.BlobURL(), s.VaultURL(), s.IdentityURL())
	for _, name := range regionNames {
		fmt.Fprintf(w, "%-9s %s\n", name, s.Endpoint(name))
	}
	fmt.Fprintf(w, `
See what is set, and what arrived:
  curl %[1]s/state
  curl %[1]s/requests
  curl -X DELETE %[1]s/requests
  curl %[1]s/tokens/issued
  curl %[1]s/refused

Break a region, and mend it:
  curl -X PUT %[1]s/regions/eu/fault -d '{"kind":"refuse"}'
  curl -X PUT %[1]s/regions/eu/fault -d '{"kind":"throttle","retry_after":"2","count":3,"match":"/api/alerts"}'
  curl -X PUT %[1]s/regions/eu/delay -d '{"delay":"250ms"}'
  curl -X DELETE %[1]s/regions/eu/fault
  kinds: %[2]s

Switch the older hunting APIs off (404 or 410), and on again:
  curl -X PUT %[1]s/retired -d '{"status":410}'
  curl -X PUT %[1]s/retired -d '{"status":0}'

Break Entra ID, and mend it:
  curl -X PUT %[1]s/entra/fault -d '{"kind":"aadsts","code":53003}'
  curl -X DELETE %[1]s/entra/fault
  kinds: %[3]s

Change an application; revoke all tokens; shorten new ones:
  curl -X PUT %[1]s/apps/contoso.onmicrosoft.com/%[4]s -d '{"permissions":{"mde":["Alert.Read.All","Machine.Isolate"]}}'
  curl -X POST %[1]s/tokens/revoke
  curl -X PUT %[1]s/tokens/lifetime -d '{"lifetime":"30s"}'
  curl -X POST %[1]s/rotate-keys
  curl -X POST %[1]s/forget-old-keys

Sign people in and out; approve a device's code, or decline it:
  curl -X PUT %[1]s/signed-in -d '{"user":"analyst@contoso.onmicrosoft.com"}'
  curl -X PUT %[1]s/devices/CODE -d '{"user":"analyst@contoso.onmicrosoft.com"}'
  curl -X DELETE %[1]s/devices/CODE
  curl -X POST %[1]s/refresh-tokens/revoke -d '{"user":"analyst@contoso.onmicrosoft.com"}'

Fill the key vault, let it read, break it and the machine's identity:
  curl -X PUT %[1]s/vault/secrets/api -d '{"value":"%[5]s","expires":"2030-01-01T00:00:00Z"}'
  curl -X PUT %[1]s/apps/contoso.onmicrosoft.com/%[4]s -d '{"permissions":{"vault":["Key Vault Secrets User"]}}'
  curl -X PUT %[1]s/vault/fault -d '{"kind":"throttle","count":1}'
  curl -X PUT %[1]s/identity/fault -d '{"kind":"status","status":410}'
  curl -X POST %[1]s/workload-token -d '{"subject":"system:serviceaccount:ns:name"}'

Back to the start:
  curl -X POST %[1]s/reset
`, u, kindList(regionFaults), kindList(entraFaults), DefaultClientID, DefaultSecret)
}

func kindList(kinds []FaultKind) string {
	var out []string
	for _, k := range kinds {
		out = append(out, string(k))
	}
	return strings.Join(out, " ")
}
