package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/config"
	"defender-proxy/internal/token"
)

// newService makes a service that serves nobody, of a configuration in which no
// address is asked.
func newService(t *testing.T, text string) (*service, *bytes.Buffer) {
	t.Helper()
	cfg := parsed(t, text)
	var log bytes.Buffer
	core, err := newCore(cfg, "proxy.yaml", nothing, zerolog.New(&log), audit.New(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	p, err := core.assemble(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &service{core: core, ctx: ctx, started: initialOf(cfg), read: cfg, turn: make(chan struct{}, 1)}
	s.now.Store(p)
	t.Cleanup(func() {
		cancel()
		s.warming.Wait()
	})
	return s, &log
}

func nothing(string) (string, bool) { return "", false }

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(filepath.Join(t.TempDir(), "proxy.yaml"), []byte(text), nothing)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// tenantText is a tenant's entry.
func tenantText(name string, i int, credential string) string {
	return fmt.Sprintf("  - {name: %s, id: %s, credential: {%s}}\n", name, labID(i), credential)
}

const secretText = "client_id: " + labApp + ", client_secret: {env: NO_SUCH}"

// A second SIGHUP during a reload is not lost, and two reloads are never under
// way at once.
func TestSignalsDuringAReloadAreCarriedOutAfterIt(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	text := "tenants:\n" + tenantText("contoso", 0, secretText)
	s, _ := newService(t, text)
	cfg := parsed(t, text)
	var loads, within atomic.Int32
	begun, goOn := make(chan struct{}), make(chan struct{})
	s.load = func() (*config.Config, error) {
		if within.Add(1) != 1 {
			t.Error("two reloads are under way")
		}
		defer within.Add(-1)
		loads.Add(1)
		begun <- struct{}{}
		<-goOn
		return cfg, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	hup := make(chan os.Signal, 1) // as signal.Notify fills it
	ended := make(chan struct{})
	go func() { s.follow(nil, hup); close(ended) }()
	hup <- os.Interrupt
	<-begun
	hup <- os.Interrupt
	// Somebody who leaves before his turn changes nothing.
	left, leave := context.WithCancel(context.Background())
	leave()
	if _, err := s.reload(left, "test"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	goOn <- struct{}{}
	<-begun
	goOn <- struct{}{}
	cancel()
	<-ended
	if loads.Load() != 2 {
		t.Errorf("%d reloads", loads.Load())
	}
	if _, err := s.reload(context.Background(), "test"); err == nil {
		t.Error("a proxy that is stopping reloads")
	}
}

// A faulty configuration may name a file that nobody watches: it is read again
// now and then, and its faults are told once.
func TestAFaultyConfigurationIsReadAgainNowAndThen(t *testing.T) {
	text := "tenants:\n" + tenantText("contoso", 0, secretText)
	s, log := newService(t, text)
	cfg := parsed(t, text)
	fault, loads := config.Faults{{File: "proxy.yaml", Line: 3, Message: "the file tls.pem cannot be read"}}, 0
	s.load = func() (*config.Config, error) {
		loads++
		if loads < 4 {
			return nil, fault
		}
		return cfg, nil
	}
	if _, err := s.reload(t.Context(), "test"); err == nil || err.Error() != fault[0].String() {
		t.Fatalf("got %v", err)
	}
	for range 2 * again {
		s.poll()
	}
	if loads != 3 || strings.Count(log.String(), "tls.pem") != 1 {
		t.Errorf("%d attempts; the log:\n%s", loads, log)
	}
	for range again {
		s.poll()
	}
	if loads != 4 || !strings.Contains(log.String(), "is in force") {
		t.Errorf("%d attempts; the log:\n%s", loads, log)
	}
	for range 3 * again {
		s.poll()
	}
	if loads != 4 {
		t.Errorf("a good configuration is read again and again: %d times", loads)
	}
}

// A snapshot that cannot be built leaves tokens, regions and accounts as they
// are.
func TestASnapshotThatFailsLeavesTheRunningOneAsItWas(t *testing.T) {
	s, _ := newService(t, "tenants:\n"+tenantText("contoso", 0, secretText))
	before, sources, known := s.now.Load(), slices.Clone(s.now.Load().sources), len(s.monitor.Snapshot())
	bad := parsed(t, "tenants:\n"+tenantText("contoso", 0, "client_id: "+labOtherApp+", client_secret: {env: OTHER}")+`clouds:
  - name: lab
    authority: https://login.lab.example
    endpoints: {mde: {mars: "https://mars.lab.example"}}
    audiences: {mde: "https://mde.lab.example"}
`)
	bad.Tenants = append(bad.Tenants, config.Tenant{Name: "lost", ID: "x", Cloud: "lab"}, config.Tenant{Name: "broken", Cloud: "nowhere"})
	s.load = func() (*config.Config, error) { return bad, nil }
	if _, err := s.reload(t.Context(), "test"); err == nil || !strings.Contains(err.Error(), "no cloud is called nowhere") {
		t.Fatalf("got %v", err)
	}
	bad.Tenants = bad.Tenants[:2]
	bad.Clients = []config.ClientGroup{{Name: "x", Allow: config.Granting("nonsense")}}
	if _, err := s.reload(t.Context(), "test"); err == nil {
		t.Fatal("nonsense is in force")
	}
	bad.Clients = nil
	bad.Listeners = []config.Listener{{Address: "127.0.0.1:8080", Clients: []string{"nobody"}}}
	if _, err := s.reload(t.Context(), "test"); err == nil {
		t.Fatal("a listener of nobody is in force")
	}
	if s.now.Load() != before || !slices.Equal(before.sources, sources) || len(s.monitor.Snapshot()) != known {
		t.Errorf("the running snapshot changed: %d regions known, before %d", len(s.monitor.Snapshot()), known)
	}
	if got := s.tokens.Source(before.accounts["contoso"], before.view.Tenants[0].Access[0].Audience); got != sources[0] {
		t.Error("the tenant's source is another one")
	}
}

// Regions that no tenant goes to any more are not asked.
func TestRegionsOfTheConfigurationBeforeAreForgotten(t *testing.T) {
	text := "tenants:\n" + tenantText("contoso", 0, secretText)
	s, _ := newService(t, strings.Replace(text, "name: contoso, ", "name: contoso, regions: {allow: [eu]}, ", 1))
	next := parsed(t, strings.Replace(text, "name: contoso, ", "name: contoso, regions: {allow: [uk]}, ", 1))
	s.load = func() (*config.Config, error) { return next, nil }
	if _, err := s.reload(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	for _, st := range s.monitor.Snapshot() {
		if st.Region == "eu" {
			t.Errorf("region eu of %s is still known", st.Service)
		}
	}
	if len(s.monitor.Snapshot()) == 0 {
		t.Error("no region is known")
	}
}

// What a credential knows of itself, such as which of two secrets works, outlasts
// a reload that does not change it.
func TestACredentialThatDidNotChangeIsKept(t *testing.T) {
	text := "tenants:\n" + tenantText("contoso", 0, secretText) + tenantText("fabrikam", 1, secretText)
	s, _ := newService(t, text)
	before := s.now.Load()
	after, err := s.assemble(parsed(t, strings.Replace(text, "name: fabrikam, ", "name: fabrikam, regions: {allow: [eu]}, ", 1)), nil, before)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"contoso", "fabrikam"} {
		if before.accounts[name].Credential != after.accounts[name].Credential {
			t.Errorf("%s has another credential", name)
		}
	}
	changed, err := s.assemble(parsed(t, strings.Replace(text, "NO_SUCH", "OTHER", 1)), nil, before)
	if err != nil {
		t.Fatal(err)
	}
	if before.accounts["contoso"].Credential == changed.accounts["contoso"].Credential || before.accounts["fabrikam"].Credential != changed.accounts["fabrikam"].Credential {
		t.Error("the changed one is kept, or the other one is not")
	}
}

// Every kind of credential becomes an account, and no two share tokens that are
// not the same one's.
func TestEveryKindOfCredentialHasAnAccountOfItsOwn(t *testing.T) {
	kinds := []struct{ name, credential, clientID, kind string }{
		{"secret", secretText, labApp, "client_secret"},
		{"vault", "client_id: " + labApp + ", client_secret: {key_vault: 'https://v.vault.azure.net/secrets/s'}", labApp, ""},
		{"certificate", "client_id: " + labApp + ", certificate: {file: no.pem, password: {env: P}}", labApp, "certificate"},
		{"federated", "client_id: " + labApp + ", federated_token: {file: no.txt}", labApp, "federated_token"},
		{"system", "managed_identity: {}", "", "managed_identity"},
		{"assigned", "managed_identity: {client_id: " + labOtherApp + "}", "", "managed_identity"},
		{"assertion", "client_id: " + labApp + ", managed_identity: {client_id: " + labOtherApp + ", as_assertion: true}", labApp, "managed_identity_assertion"},
		{"user", "client_id: " + labApp + ", user: {flow: device_code, token_store: a.login, key_file: a.key}", labApp, "user"},
		{"web", "client_id: " + labApp + ", client_secret: {env: S}, user: {flow: authorization_code, username: ana@contoso.com, token_store: b.login, key_file: b.key}", labApp, "user"},
		{"password", "client_id: " + labApp + ", user: {flow: password, username: ana@contoso.com, password: {env: P}}", labApp, "user"},
	}
	text := "tenants:\n"
	for i, k := range kinds {
		text += tenantText(k.name, i, k.credential)
	}
	s, _ := newService(t, text)
	subjects := make(map[string]string)
	for _, k := range kinds {
		a := s.now.Load().accounts[k.name]
		if a.ClientID != k.clientID || a.Credential == nil || a.Tenant == "" || a.Authority == "" {
			t.Errorf("%s: %+v", k.name, a)
		}
		if _, broken := a.Credential.(unusable); broken {
			t.Errorf("%s: %v", k.name, a.Credential)
		} else if got := a.Credential.Health().Kind; k.kind != "" && got != k.kind {
			t.Errorf("%s is of kind %q, want %q", k.name, got, k.kind)
		}
		if _, issues := a.Credential.(token.Issuer); issues != (k.kind == "managed_identity") {
			t.Errorf("%s: gets its tokens from the machine: %v", k.name, issues)
		}
		of := a.ClientID + " " + a.Subject
		application := a.Subject == ""
		if first := subjects[of]; first != "" && !application {
			t.Errorf("%s and %s are both %q", first, k.name, of)
		}
		subjects[of] = k.name
	}
	if a := s.now.Load().view.Tenants[4]; a.Name != "system" || a.ConsentURL != "" {
		t.Errorf("an identity has the consent page %s", a.ConsentURL)
	}
}

// A credential that cannot be made fails its own tenant, with its reason.
func TestACredentialThatCannotBeMadeFailsItsTenantAlone(t *testing.T) {
	s, _ := newService(t, "tenants:\n"+tenantText("contoso", 0, secretText))
	cfg := parsed(t, "tenants:\n"+tenantText("contoso", 0, secretText)+tenantText("fabrikam", 1, secretText))
	cfg.Tenants[1].Credential.ClientSecret = config.Secret{KeyVault: "https://vault.example/not-a-secret"}
	p, err := s.assemble(cfg, nil, s.now.Load())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.accounts["fabrikam"].Credential.Proofs(t.Context(), token.Ask{}); err == nil {
		t.Error("it gives a proof")
	}
	if h := p.accounts["fabrikam"].Credential.Health(); h.Kind == "" {
		t.Error("it has no kind")
	}
}

// 1,000 tenants: what a start does before it listens, and one look at a reload.
func BenchmarkAssemble(b *testing.B) {
	var text strings.Builder
	text.WriteString("tenants:\n")
	for i := range 1000 {
		text.WriteString(tenantText(fmt.Sprintf("t%d", i), i, secretText))
	}
	cfg, err := config.Parse("proxy.yaml", []byte(text.String()), nothing)
	if err != nil {
		b.Fatal(err)
	}
	core, err := newCore(cfg, "proxy.yaml", nothing, zerolog.Nop(), audit.New(io.Discard))
	if err != nil {
		b.Fatal(err)
	}
	var p *parts
	for b.Loop() {
		if p, err = core.assemble(cfg, nil, p); err != nil {
			b.Fatal(err)
		}
	}
}
