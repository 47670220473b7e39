package credential

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// azure is a test's own Azure: Key Vault and Entra ID behind TLS under their
// real names, and a machine's identity endpoint over plain HTTP, as they are
// documented. Handlers and answers may be changed between requests.
type azure struct {
	t      testing.TB
	tls    *httptest.Server
	plain  *httptest.Server
	dialed sync.Map // addresses that were dialled, by name

	mu    sync.Mutex
	calls []string
	hosts map[string]http.HandlerFunc
	imds  http.HandlerFunc

	// What Entra ID and the vault go by.
	challenge string
	secrets   map[string]any // path to body, or an int: a status
}

const (
	vaultTenant = "33333333-3333-3333-3333-333333333333"
	vaultToken  = "vault-token-canary"
	theSecret   = "s3cr3t-of-the-vault-canary"
)

func newAzure(t testing.TB) *azure {
	t.Helper()
	a := &azure{t: t, hosts: map[string]http.HandlerFunc{}, secrets: map[string]any{},
		challenge: `Bearer authorization="https://login.microsoftonline.com/` + vaultTenant + `", resource="https://vault.azure.net"`}
	key := oneKey()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"*.vault.azure.net", "*.example.net", "login.microsoftonline.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a.tls = httptest.NewUnstartedServer(http.HandlerFunc(a.serveTLS))
	a.tls.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	a.tls.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that a test breaks
	a.tls.StartTLS()
	a.plain = httptest.NewServer(http.HandlerFunc(a.serveIMDS))
	t.Cleanup(func() { a.tls.Close(); a.plain.Close() })
	a.hosts["contoso.vault.azure.net"] = a.vault
	a.hosts["login.microsoftonline.com"] = a.entra
	return a
}

// transport leads every name to the test's servers. What is not TLS goes to the
// identity endpoint.
func (a *azure) transport() *http.Transport {
	roots := x509.NewCertPool()
	c, err := x509.ParseCertificate(a.tls.TLS.Certificates[0].Certificate[0])
	if err != nil {
		a.t.Fatal(err)
	}
	roots.AddCert(c)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			a.dialed.Store(addr, true)
			to := a.tls.Listener.Addr().String()
			if strings.HasSuffix(addr, ":80") {
				to = a.plain.Listener.Addr().String()
			}
			return (&net.Dialer{}).DialContext(ctx, network, to)
		},
	}
	a.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func (a *azure) note(r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, r.Method+" "+r.Host+r.URL.Path)
}

// count tells how many requests began with prefix.
func (a *azure) count(prefix string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

func (a *azure) set(path string, body any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets[path] = body
}

func (a *azure) serveTLS(w http.ResponseWriter, r *http.Request) {
	a.note(r)
	if h := a.hosts[r.Host]; h != nil {
		h(w, r)
		return
	}
	w.WriteHeader(http.StatusMisdirectedRequest)
}

func (a *azure) serveIMDS(w http.ResponseWriter, r *http.Request) {
	a.note(r)
	a.mu.Lock()
	h := a.imds
	a.mu.Unlock()
	h(w, r)
}

func (a *azure) setIMDS(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.imds = h
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// vaultError is Key Vault's shape of an error
// (learn.microsoft.com/azure/key-vault/general/rest-error-codes).
func vaultError(code, inner string) map[string]any {
	e := map[string]any{"code": code, "message": "a long message with body-canary in it"}
	if inner != "" {
		e["innererror"] = map[string]any{"code": inner}
	}
	return map[string]any{"error": e}
}

type vaultFailure struct {
	status int
	body   any
	header string // of Retry-After
}

func (a *azure) vault(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("api-version") == "" {
		answerJSON(w, 400, vaultError("BadParameter", ""))
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+vaultToken {
		if a.challenge != "" {
			w.Header().Set("WWW-Authenticate", a.challenge)
		}
		answerJSON(w, 401, vaultError("Unauthorized", ""))
		return
	}
	a.mu.Lock()
	s, ok := a.secrets[strings.TrimSuffix(r.URL.Path, "/")]
	a.mu.Unlock()
	switch s := s.(type) {
	case vaultFailure:
		if s.header != "" {
			w.Header().Set("Retry-After", s.header)
		}
		answerJSON(w, s.status, s.body)
	default:
		if !ok {
			answerJSON(w, 404, vaultError("SecretNotFound", ""))
			return
		}
		answerJSON(w, 200, s)
	}
}

// secretBundle is Key Vault's SecretBundle.
func secretBundle(value, version string, attributes map[string]any) map[string]any {
	a := map[string]any{"enabled": true, "created": 1493938410, "updated": 1493938410, "recoveryLevel": "Recoverable+Purgeable"}
	for k, v := range attributes {
		a[k] = v
	}
	return map[string]any{"value": value, "id": "https://contoso.vault.azure.net/secrets/app/" + version, "attributes": a}
}

func (a *azure) entra(w http.ResponseWriter, r *http.Request) {
	base := "https://" + r.Host + "/" + strings.Split(r.URL.Path, "/")[1]
	switch {
	case strings.HasSuffix(r.URL.Path, "/v2.0/.well-known/openid-configuration"):
		answerJSON(w, 200, map[string]any{"authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token", "issuer": base + "/v2.0"})
	case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token"):
		_ = r.ParseForm()
		f := r.PostForm
		bad := f.Get("grant_type") != "client_credentials" || !strings.HasPrefix(f.Get("scope"), "https://vault.azure.net/.default") || f.Get("client_id") != testAsk.ClientID
		if bad || f.Get("client_secret") != "env-secret-canary" && f.Get("client_assertion") == "" {
			answerJSON(w, 401, map[string]any{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided. body-canary " + f.Encode()})
			return
		}
		answerJSON(w, 200, map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": vaultToken})
	default:
		w.WriteHeader(404)
	}
}

// env is an environment of a map.
func env(pairs map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := pairs[name]; return v, ok }
}

var envSecret = map[string]string{"AZURE_TENANT_ID": vaultTenant, "AZURE_CLIENT_ID": testAsk.ClientID, "AZURE_CLIENT_SECRET": "env-secret-canary"}

// imdsAnswer is what IMDS says
// (learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
func imdsAnswer(token, resource string, left time.Duration) map[string]any {
	return map[string]any{"access_token": token, "client_id": "x", "expires_in": fmt.Sprint(int(left.Seconds())), "expires_on": fmt.Sprint(time.Now().Add(left).Unix()),
		"ext_expires_in": "86399", "not_before": "1506480273", "resource": resource, "token_type": "Bearer"}
}

// imdsHandler answers as IMDS does, each time with a new token.
func imdsHandler(t testing.TB, prefix string, left time.Duration) http.HandlerFunc {
	var mu sync.Mutex
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Header.Get("Metadata") != "true" || r.Host != "169.254.169.254" || r.URL.Path != "/metadata/identity/oauth2/token" || q.Get("api-version") != "2018-02-01" {
			t.Errorf("IMDS was asked %s %s with Metadata %q", r.Host, r.URL, r.Header.Get("Metadata"))
		}
		mu.Lock()
		n++
		text := fmt.Sprintf("%s-%d", prefix, n)
		mu.Unlock()
		answerJSON(w, 200, imdsAnswer(text, q.Get("resource"), left))
	}
}
