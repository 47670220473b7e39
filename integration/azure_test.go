package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// corporate is the proxy of a network: it tunnels (CONNECT) to the hosts that it
// knows, wherever they really are, and remembers what it was asked for.
type corporate struct {
	url string

	mu    sync.Mutex
	hosts map[string]string // host:port → address
	asked []string
}

func newCorporate(t *testing.T, hosts map[string]string) *corporate {
	c := &corporate{hosts: hosts}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *corporate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.asked = append(c.asked, r.Method+" "+r.Host)
	address := c.hosts[r.Host]
	c.mu.Unlock()
	if r.Method != http.MethodConnect || address == "" {
		http.Error(w, "not for you", http.StatusForbidden)
		return
	}
	upstream, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, "it is not there", http.StatusBadGateway)
		return
	}
	defer upstream.Close()
	w.WriteHeader(http.StatusOK)
	caller, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer caller.Close()
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(upstream, buffered); done <- struct{}{} }()
	go func() { _, _ = io.Copy(caller, upstream); done <- struct{}{} }()
	<-done
}

func (c *corporate) tunnelled() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

// The secret is in Key Vault, and the vault is beyond the proxy of the network.
// The secret is fetched by its real name through that proxy and used; when it is
// rotated in the vault and the old one ends, the new one is used, and no caller
// notices. While the vault is away, what was fetched serves on.
func TestASecretInKeyVaultIsFetchedThroughTheNetworksProxyAndFollowsItsRotation(t *testing.T) {
	t.Parallel()
	customer := customer(1)
	customer.Apps[0].Secrets = []string{"old~secret", "new~secret"}
	// Who may read the vault is another application, as it should be.
	reader := simulator.App{ClientID: "bbbbbbbb-0000-4000-8000-000000000001", Secrets: []string{"vault~reader"}, Permissions: map[string][]string{"vault": {"Key Vault Secrets User"}}}
	customer.Apps = append(customer.Apps, reader)
	vault := make(map[string]string)
	network := newCorporate(t, vault)
	w := simulated(t, setup{sim: simulator.Config{Tenants: []simulator.Tenant{customer}, VaultTenant: customer.ID}, config: func(c object) {
		c["tenants"] = []object{entry(customer, object{"client_secret": object{"key_vault": "https://contoso.vault.azure.net/secrets/defender"}})}
		c["egress"].(object)["proxy"] = network.url
	}})
	at, err := url.Parse(w.sim.VaultURL())
	if err != nil {
		t.Fatal(err)
	}
	network.mu.Lock()
	vault["contoso.vault.azure.net:443"] = at.Host
	network.mu.Unlock()
	put := func(value string) {
		if _, err := w.sim.SetVaultSecret("defender", value, time.Now().Add(20*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	put("old~secret")
	w.process = start(t, "", w.file, "AZURE_AUTHORITY_HOST="+w.sim.Authority(), "AZURE_TENANT_ID="+customer.ID,
		"AZURE_CLIENT_ID="+reader.ClientID, "AZURE_CLIENT_SECRET="+reader.Secrets[0])
	w.ready()
	if a := w.inTenant(customer.Name); a.status != http.StatusOK {
		t.Fatalf("with the secret of the vault: %v", a)
	}
	if asked := network.tunnelled(); !slices.Contains(asked, "CONNECT contoso.vault.azure.net:443") || slices.ContainsFunc(asked, func(s string) bool { return !strings.HasPrefix(s, "CONNECT contoso.vault") }) {
		t.Errorf("the network's proxy was asked for %q", asked)
	}
	w.eventually("the end of the secret is told", func() error { return w.logged(`"days_left":19`) })

	if err := w.sim.SetVault(simulator.Fault{Kind: simulator.FaultStatus, Status: 503}); err != nil {
		t.Fatal(err)
	}
	w.sim.Revoke()
	if a := w.inTenant(customer.Name); a.status != http.StatusOK {
		t.Errorf("while the vault is away: %v", a)
	}
	if err := w.sim.SetVault(simulator.Fault{}); err != nil {
		t.Fatal(err)
	}

	put("new~secret")
	if err := w.sim.SetSecrets(customer.ID, customer.Apps[0].ClientID, "new~secret"); err != nil {
		t.Fatal(err)
	}
	w.sim.Revoke()
	w.eventually("the rotated secret is used", func() error {
		if a := w.inTenant(customer.Name); a.status != http.StatusOK {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	for _, text := range []string{w.stdout.String(), w.stderr.String()} {
		for _, secret := range []string{"old~secret", "new~secret", reader.Secrets[0]} {
			if strings.Contains(text, secret) {
				t.Errorf("a secret is in the output")
			}
		}
	}
}

// A machine in Azure, here one of App Service, needs no secret: its own identity
// reads one tenant, and is
// the proof of a service provider's application in another. The network's proxy
// is not asked for the identity.
func TestTheIdentityOfAMachineNeedsNoSecret(t *testing.T) {
	t.Parallel()
	home, abroad := customer(1), customer(2)
	abroad.Apps[0].Secrets = nil
	identity := simulator.Identity{
		ClientID: "cccccccc-0000-4000-8000-000000000001", ObjectID: "cccccccc-0000-4000-8000-000000000002", TenantID: home.ID,
		Permissions: home.Apps[0].Permissions,
	}
	network := newCorporate(t, nil)
	w := simulated(t, setup{sim: simulator.Config{Tenants: []simulator.Tenant{home, abroad}, Identities: []simulator.Identity{identity}}, config: func(c object) {
		c["tenants"] = []object{
			{"name": home.Name, "id": home.ID, "cloud": "lab", "credential": object{"managed_identity": object{"client_id": identity.ClientID}}},
			entry(abroad, object{"managed_identity": object{"client_id": identity.ClientID, "as_assertion": true}}),
		}
		c["egress"].(object)["proxy"] = network.url
	}})
	if err := w.sim.SetFederated(abroad.ID, abroad.Apps[0].ClientID, simulator.Federated{
		Issuer: w.sim.Authority() + "/" + home.ID + "/v2.0", Subject: identity.ObjectID, Audience: "api://AzureADTokenExchange",
	}); err != nil {
		t.Fatal(err)
	}
	w.process = start(t, "", w.file, "IDENTITY_ENDPOINT="+w.sim.IdentityURL()+"/msi/token", "IDENTITY_HEADER="+w.sim.IdentityHeader())
	w.ready()
	for _, tenant := range []simulator.Tenant{home, abroad} {
		if a := w.inTenant(tenant.Name); a.status != http.StatusOK {
			t.Errorf("tenant %s: %v", tenant.Name, a)
		}
	}
	if asked := network.tunnelled(); len(asked) != 0 {
		t.Errorf("the network's proxy was asked for %q", asked)
	}
}
