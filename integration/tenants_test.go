package integration

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// customer is a tenant of a service provider: a copy of the demo tenant under
// another name and id. n is from 1 to 9999.
func customer(n int) simulator.Tenant {
	t := simulator.DefaultTenant()
	t.Name = fmt.Sprintf("customer%04d", n)
	t.ID = fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", n)
	return t
}

// entry is the configuration of a tenant that the credential proves.
func entry(t simulator.Tenant, credential object) object {
	c := maps.Clone(credential)
	if _, ok := c["client_id"]; !ok {
		c["client_id"] = t.Apps[0].ClientID
	}
	return object{"name": t.Name, "id": t.ID, "cloud": "lab", "credential": c}
}

// bySecret is the credential of the demo tenant's application.
func bySecret() object { return object{"client_secret": object{"env": secretVariable}} }

// certified makes an RSA key with a certificate of it, and gives the
// certificate in DER and both in PEM.
func certified(t *testing.T, life time.Duration) (der, pemFile []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "defender-proxy"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life),
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der, slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	)
}

// tokensOf lists the token requests of a tenant that arrived at Entra ID.
func (w *world) tokensOf(t simulator.Tenant) []simulator.Request {
	return slices.DeleteFunc(w.sim.Requests(), func(r simulator.Request) bool {
		return r.Listener != "entra" || r.Tenant != t.ID
	})
}

// inTenant asks for alerts of a tenant.
func (w *world) inTenant(name string) answer {
	w.t.Helper()
	return w.get("/t/" + name + "/api/alerts?$top=1")
}

// Four customers of a service provider are in one configuration: one with a
// secret, one with a certificate, one with a token that the platform writes, and
// one whose secret file is not there. The first three work, each with its own
// token; the fourth's callers are told what is wrong, and so is the operator.
// When the file appears the fourth works too, and nobody restarted anything.
func TestTenantsWithDifferentCredentialsLiveSideBySide(t *testing.T) {
	t.Parallel()
	secret, certificate, federated, late := customer(1), customer(2), customer(3), customer(4)
	der, file := certified(t, 365*24*time.Hour)
	certificate.Apps[0].Secrets, certificate.Apps[0].Certificates = nil, [][]byte{der}
	federated.Apps[0].Secrets = nil
	w := simulated(t, setup{sim: simulator.Config{Tenants: []simulator.Tenant{secret, certificate, federated, late}}, config: func(c object) {
		c["tenants"] = []object{
			entry(secret, bySecret()),
			entry(certificate, object{"certificate": object{"file": "app.pem"}}),
			entry(federated, object{"federated_token": object{"file": "workload.jwt"}}),
			entry(late, object{"client_secret": object{"file": "late.secret"}}),
		}
	}})
	w.write("app.pem", file)
	if err := w.sim.SetFederated(federated.ID, federated.Apps[0].ClientID, simulator.Federated{
		Issuer: w.sim.WorkloadIssuer(), Subject: "system:serviceaccount:soc:proxy", Audience: "api://AzureADTokenExchange",
	}); err != nil {
		t.Fatal(err)
	}
	w.write("workload.jwt", []byte(w.sim.WorkloadToken("system:serviceaccount:soc:proxy", time.Hour)+"\n"))
	w.process = start(t, "", w.file, secretVariable+"="+simulator.DefaultSecret)
	w.process.faulty = append(w.process.faulty, `"level":"error"`) // about the fourth
	w.ready()

	for tenant, proof := range map[*simulator.Tenant]string{&secret: "secret", &certificate: "certificate", &federated: "federated"} {
		if a := w.inTenant(tenant.Name); a.status != http.StatusOK {
			t.Errorf("tenant %s: %v", tenant.Name, a)
		}
		if asked := w.tokensOf(*tenant); len(asked) == 0 || asked[0].Proof != proof {
			t.Errorf("tenant %s proved itself by %+v, want %s", tenant.Name, asked, proof)
		}
	}
	a := w.inTenant(late.Name)
	if code, message := a.refused(); code != "TokenUnavailable" || a.status != http.StatusServiceUnavailable {
		t.Errorf("the tenant without its file: %d %s", a.status, message)
	}
	w.write("late.secret", []byte(simulator.DefaultSecret+"\n"))
	w.eventually("the tenant whose file came late works", func() error {
		if a := w.inTenant(late.Name); a.status != http.StatusOK {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
}

// The operator rotates. The first of two secrets ends and the second is used; a
// certificate is replaced on the disk and the new one is used; every token that
// is out is revoked meanwhile, so that new ones are needed, and no caller notices.
func TestARotationIsUsedAndNoCallerNotices(t *testing.T) {
	t.Parallel()
	two, certificate := customer(1), customer(2)
	oldDER, oldFile := certified(t, 20*24*time.Hour)
	newDER, newFile := certified(t, 365*24*time.Hour)
	certificate.Apps[0].Secrets, certificate.Apps[0].Certificates = nil, [][]byte{oldDER}
	two.Apps[0].Secrets = []string{"first~secret", "second~secret"}
	w := simulated(t, setup{sim: simulator.Config{Tenants: []simulator.Tenant{two, certificate}}, config: func(c object) {
		inRegions(c, "eu")
		c["tenants"] = []object{
			entry(two, object{"client_secret": object{"env": "FIRST"}, "next_client_secret": object{"env": "SECOND"}}),
			entry(certificate, object{"certificate": object{"file": "app.pem"}}),
		}
	}})
	w.write("app.pem", oldFile)
	w.process = start(t, "", w.file, "FIRST=first~secret", "SECOND=second~secret")
	w.ready()
	w.eventually("the log warns of the certificate that ends in twenty days", func() error { return w.logged(`"days_left":19`) })

	if err := w.sim.SetSecrets(two.ID, two.Apps[0].ClientID, "second~secret"); err != nil {
		t.Fatal(err)
	}
	if err := w.sim.SetCertificates(certificate.ID, certificate.Apps[0].ClientID, newDER); err != nil {
		t.Fatal(err)
	}
	w.write("app.pem", newFile)
	for range 3 {
		w.sim.Revoke()
		for _, tenant := range []simulator.Tenant{two, certificate} {
			if a := w.inTenant(tenant.Name); a.status != http.StatusOK {
				t.Errorf("tenant %s: %v", tenant.Name, a)
			}
		}
	}
	refused := slices.DeleteFunc(w.tokensOf(two), func(r simulator.Request) bool { return r.Status == http.StatusOK })
	if len(refused) > 1 {
		t.Errorf("the secret that had ended was sent %d times, want once", len(refused))
	}
	w.eventually("the log says that the second secret is in use", func() error { return w.logged("next_client_secret is in use") })
}

// A service provider's day: a customer is added, another changes its
// application, a third leaves. Each is a file in a folder. The proxy notices
// within seconds; the tenant that nobody touched keeps its token; the one that
// left is unknown to callers, and no token of it is asked for any more.
func TestTenantsComeAndGoWhileTheProxyRuns(t *testing.T) {
	t.Parallel()
	stays, leaves, comes := customer(1), customer(2), customer(3)
	w := simulated(t, setup{sim: simulator.Config{Tenants: []simulator.Tenant{stays, leaves, comes}}, config: func(c object) {
		delete(c, "tenants")
		c["tenants_dir"] = "tenants"
		c["tenant_defaults"] = object{"cloud": "lab", "credential": object{
			"client_id": simulator.DefaultClientID, "client_secret": object{"env": secretVariable},
		}}
	}})
	w.mkdir("tenants")
	file := func(tenant simulator.Tenant) string { return filepath.Join("tenants", tenant.Name+".yaml") }
	put := func(tenant simulator.Tenant) { w.write(file(tenant), []byte("id: "+tenant.ID+"\n")) }
	put(stays)
	put(leaves)
	w.process = start(t, "", w.file, secretVariable+"="+simulator.DefaultSecret)
	w.ready()
	for _, tenant := range []simulator.Tenant{stays, leaves} {
		if a := w.inTenant(tenant.Name); a.status != http.StatusOK {
			t.Fatalf("tenant %s: %v", tenant.Name, a)
		}
	}
	if a := w.inTenant(comes.Name); a.status != http.StatusNotFound {
		t.Errorf("a tenant that is not there yet: %v", a)
	}
	asked := len(w.tokensOf(stays))

	put(comes)
	w.remove(file(leaves))
	w.eventually("the new tenant works and the other is gone", func() error {
		if a := w.inTenant(comes.Name); a.status != http.StatusOK {
			return fmt.Errorf("the new one: %v", a)
		}
		if a := w.inTenant(leaves.Name); a.status != http.StatusNotFound {
			return fmt.Errorf("the old one: %v", a)
		}
		return nil
	})
	if a := w.inTenant(stays.Name); a.status != http.StatusOK {
		t.Errorf("the one that nobody touched: %v", a)
	}
	if now := len(w.tokensOf(stays)); now != asked {
		t.Errorf("the one that nobody touched lost its token: %d requests for tokens, %d before", now, asked)
	}

	// A slip of the pen changes nothing and is told; mended, it is taken.
	w.write(file(stays), []byte("id: "+stays.ID+"\ncluod: lab\n"))
	a := w.do(http.MethodPost, w.admin+"/-/reload", "")
	if a.status != http.StatusUnprocessableEntity || !slices.Contains([]string{"InvalidConfiguration"}, first(a.refused())) {
		t.Errorf("a faulty file: %v", a)
	}
	w.process.faulty = append(w.process.faulty, `"level":"error"`)
	if a := w.inTenant(stays.Name); a.status != http.StatusOK {
		t.Errorf("after a faulty file: %v", a)
	}
	put(stays)
	w.eventually("the mended file is taken", func() error {
		if a := w.do(http.MethodPost, w.admin+"/-/reload", ""); a.status != http.StatusOK {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if a := w.inTenant(stays.Name); a.status != http.StatusOK {
		t.Errorf("at the end: %v", a)
	}
}

func first(code, _ string) string { return code }
