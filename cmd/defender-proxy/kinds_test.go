package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// Each kind of credential of a configuration brings a token, from the commands
// as from the proxy.
func TestEveryKindOfCredentialBringsAToken(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(20 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	const (
		workload = "system:serviceaccount:soc:proxy"
		identity = "55555555-5555-5555-5555-555555555555"
		object1  = "66666666-6666-6666-6666-666666666666"
		person   = "ana@contoso.onmicrosoft.com"
		password = "canary-password-1"
	)
	permissions := map[string][]string{"mde": {"Alert.Read.All"}}
	// One directory for each, so that the tenants share nothing.
	app := simulator.App{
		ClientID: labApp, Secrets: []string{labSecret}, Permissions: permissions, Certificates: [][]byte{der},
		Users: []simulator.User{{Name: person, Password: password, Scopes: map[string][]string{"mde": {"Alert.Read"}}}},
	}
	var tenants []simulator.Tenant
	for i, name := range []string{"secret", "certificate", "federated", "password", "machine", "assertion"} {
		tenants = append(tenants, simulator.Tenant{ID: labID(i), Name: name, Apps: []simulator.App{app}})
	}
	sim := startSimulator(t, simulator.Config{Tenants: tenants, Identities: []simulator.Identity{
		{ClientID: identity, ObjectID: object1, TenantID: labID(4), System: true, Permissions: permissions},
	}})
	exchange := "api://AzureADTokenExchange"
	for i, f := range map[int]simulator.Federated{
		2: {Issuer: sim.WorkloadIssuer(), Subject: workload, Audience: exchange},
		5: {Issuer: sim.Authority() + "/" + labID(4) + "/v2.0", Subject: object1, Audience: exchange},
	} {
		if err := sim.SetFederated(labID(i), labApp, f); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("IDENTITY_ENDPOINT", sim.IdentityURL()+"/msi/token")
	t.Setenv("IDENTITY_HEADER", sim.IdentityHeader())

	l := &lab{t: t, sim: sim, dir: t.TempDir()}
	l.write("ca.pem", string(sim.CA()))
	l.write("old.secret", "an-old-one")
	l.write("new.secret", labSecret)
	l.write("password", password)
	l.write("federated.jwt", sim.WorkloadToken(workload, time.Hour))
	l.write("app.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))+string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	credentials := []object{
		{"client_id": labApp, "client_secret": object{"file": "old.secret"}, "next_client_secret": object{"file": "new.secret"}, "verify_signature": true},
		{"client_id": labApp, "certificate": object{"file": "app.pem"}, "token_version": "v1"},
		{"client_id": labApp, "federated_token": object{"file": "federated.jwt"}},
		{"client_id": labApp, "client_secret": object{"file": "new.secret"}, "user": object{"flow": "password", "username": person, "password": object{"file": "password"}}},
		{"managed_identity": object{}},
		{"client_id": labApp, "managed_identity": object{"as_assertion": true}},
	}
	var configured []object
	for i, c := range credentials {
		configured = append(configured, object{"name": tenants[i].Name, "id": labID(i), "cloud": "lab", "credential": c})
	}
	l.config = object{
		"clients": []object{{"name": "soc", "from": []string{"127.0.0.0/8"}, "allow": []string{"alerts.list"}}},
		"tenants": configured,
		"egress":  object{"ca_file": "ca.pem"},
		"clouds": []object{{
			"name": "lab", "authority": sim.Authority(), "endpoints": object{"mde": object{"eu": sim.Endpoint("eu")}},
			"audiences": object{"mde": "https://api.securitycenter.microsoft.com"},
		}},
	}
	l.save()
	for _, tenant := range tenants {
		code, stdout, stderr := ran(t, "token", "--config", l.path("proxy.yaml"), "--tenant", tenant.Name)
		if code != exitOK || !strings.Contains(stdout, "Alert.Read") || strings.Contains(stdout+stderr, password) {
			t.Errorf("%s: %d %s%s", tenant.Name, code, stdout, stderr)
		}
		l.clean(stdout + stderr)
	}
	code, stdout, stderr := ran(t, "check", "--config", l.path("proxy.yaml"), "--online")
	if code != exitOK {
		t.Errorf("check: %d %s%s", code, stdout, stderr)
	}
	l.clean(stdout)
	for _, want := range []string{
		"warning: tenant certificate: the certificate in " + l.path("app.pem") + " ends in 19 days",
		"NOTICE      ", "credential  certificate, 19 days left", "credential  managed_identity_assertion", "application of the machine's identity", "credential  user",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("check does not say %q\n%s", want, stdout)
		}
	}
	code, stdout, stderr = ran(t, "explain", "GET", "/api/alerts", "--config", l.path("proxy.yaml"), "--tenant", "machine", "--online")
	if code != exitOK || !strings.Contains(stdout, "allowed") {
		t.Errorf("explain: %d %s%s", code, stdout, stderr)
	}
}
