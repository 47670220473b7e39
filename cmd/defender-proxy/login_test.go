package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/config"
	"defender-proxy/internal/credential"
	"defender-proxy/internal/simulator"
)

const (
	loginUser   = "ana@contoso.onmicrosoft.com"
	loginSecret = "canary-client-secret"
)

// loginLab is a simulator with a public and a confidential application, and a
// configuration for both.
func loginLab(t *testing.T) (sim *simulator.Simulator, dir string, browser *http.Client) {
	t.Helper()
	users := []simulator.User{{Name: loginUser, Password: "canary-password", Scopes: map[string][]string{"mde": {"Alert.Read"}}}}
	sim = startSimulator(t, simulator.Config{DeviceInterval: time.Second, Tenants: []simulator.Tenant{{
		ID: simulator.DefaultTenantID, Name: "contoso", Apps: []simulator.App{
			{ClientID: "22222222-2222-2222-2222-222222222222", Public: true, Users: users},
			{ClientID: "33333333-3333-3333-3333-333333333333", Secrets: []string{loginSecret}, Users: users},
		},
	}}})
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { // whatever the umask: a store is kept in no folder that others can write to
		t.Fatal(err)
	}
	lab := simulatorConfig(sim, "127.0.0.1:0", "127.0.0.1:0", "ca.pem", nil)
	from, to := strings.Index(lab, "tenants:\n"), strings.Index(lab, "egress:")
	lab = lab[:from] + fmt.Sprintf(`tenants:
  - name: analyst
    id: %[1]s
    cloud: simulator
    credential:
      client_id: 22222222-2222-2222-2222-222222222222
      user: {flow: device_code, token_store: analyst.login, key_file: analyst.key}
  - name: web
    id: %[1]s
    cloud: simulator
    credential:
      client_id: 33333333-3333-3333-3333-333333333333
      client_secret: {env: WEB_SECRET}
      user: {flow: authorization_code, username: %[2]s, token_store: web.login, key_file: web.key}
`, simulator.DefaultTenantID, loginUser) + lab[to:]
	for name, data := range map[string]string{"lab.yaml": lab, "ca.pem": string(sim.CA())} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sim.CA())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	return sim, dir, &http.Client{Transport: transport}
}

// shows waits until the command has written what the expression finds, and
// gives its group.
func (c *command) shows(t *testing.T, expression string) string {
	t.Helper()
	re := regexp.MustCompile(expression)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if m := re.FindStringSubmatch(c.stderr.String()); m != nil {
			return m[1]
		}
		select {
		case code := <-c.code:
			t.Fatalf("it ended with %d before it showed %s\n%s", code, expression, c)
		default:
		}
	}
	t.Fatalf("it has not shown %s\n%s", expression, c)
	return ""
}

func (c *command) ends(t *testing.T, want int) {
	t.Helper()
	select {
	case got := <-c.code:
		if got != want {
			t.Errorf("it exited with %d, not %d\n%s", got, want, c)
		}
	case <-time.After(time.Minute):
		t.Fatalf("it has not ended\n%s", c)
	}
}

func TestLoginWithADeviceCode(t *testing.T) {
	sim, dir, _ := loginLab(t)
	file := filepath.Join(dir, "lab.yaml")
	c := begin(t, nil, "login", "analyst", "--config", file)
	defer c.cancel()
	code := c.shows(t, `type the code (\S+) there`)
	c.shows(t, `(https://\S+/deviceauth)\n`)
	if err := sim.ApproveDevice(code, loginUser); err != nil {
		t.Fatal(err)
	}
	c.ends(t, exitOK)
	for _, want := range []string{loginUser + " has signed in for tenant analyst.", filepath.Join(dir, "analyst.login"), filepath.Join(dir, "analyst.key")} {
		if !strings.Contains(c.stdout.String(), want) {
			t.Errorf("stdout does not hold %q\n%s", want, c)
		}
	}
	for _, name := range []string{"analyst.login", "analyst.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Separator == '/' && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o, want 0600", name, info.Mode().Perm())
		}
	}
}

func TestLoginThatIsDeclined(t *testing.T) {
	sim, dir, _ := loginLab(t)
	c := begin(t, nil, "login", "analyst", "--config", filepath.Join(dir, "lab.yaml"))
	defer c.cancel()
	if err := sim.DeclineDevice(c.shows(t, `type the code (\S+) there`)); err != nil {
		t.Fatal(err)
	}
	c.ends(t, exitWrong)
	if !strings.Contains(c.stderr.String(), "declined the sign-in") {
		t.Errorf("stderr does not say so\n%s", c)
	}
	if _, err := os.Stat(filepath.Join(dir, "analyst.login")); !os.IsNotExist(err) {
		t.Errorf("there is a token store: %v", err)
	}
}

func TestLoginWithABrowser(t *testing.T) {
	_, dir, browser := loginLab(t)
	c := begin(t, map[string]string{"WEB_SECRET": loginSecret}, "login", "web", "--config", filepath.Join(dir, "lab.yaml"))
	defer c.cancel()
	resp, err := browser.Get(c.shows(t, `\n  (https://\S+)\n`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	c.ends(t, exitOK)
	if !strings.Contains(c.stdout.String(), loginUser+" has signed in for tenant web.") {
		t.Errorf("stdout does not tell who has signed in\n%s", c)
	}
	if strings.Contains(c.String(), "canary") {
		t.Errorf("a secret is shown\n%s", c)
	}
}

func TestLoginThatIsInterrupted(t *testing.T) {
	_, dir, _ := loginLab(t)
	c := begin(t, nil, "login", "analyst", "--config", filepath.Join(dir, "lab.yaml"), "--flow", "authorization_code")
	c.shows(t, `open this (page) in a browser`)
	c.cancel()
	c.ends(t, exitWrong)
	if !strings.Contains(c.stderr.String(), "interrupted") {
		t.Errorf("stderr does not say so\n%s", c)
	}
}

func TestLoginThatCouldNotBeKeptIsNotBegun(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"the key file holds no key", "analyst.key", "does not hold a key"},
		{"the token store is another file", "analyst.login", "is not a token store"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, dir, _ := loginLab(t)
			file := filepath.Join(dir, test.file)
			if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			c := begin(t, nil, "login", "analyst", "--config", filepath.Join(dir, "lab.yaml"))
			defer c.cancel()
			c.ends(t, exitWrong)
			if s := c.stderr.String(); !strings.Contains(s, test.want) || !strings.Contains(s, file) || strings.Contains(s, "type the code") {
				t.Errorf("stderr does not say that %s, or asks somebody to sign in\n%s", test.want, c)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != "precious" {
				t.Errorf("the file holds %q, %v, not what it held", got, err)
			}
		})
	}
}

// Two tenants of a configuration may be two users of one application. The
// sign-in of the one is not the other's, whoever renames the files.
func TestLoginIsForOneNameOfTheConfiguration(t *testing.T) {
	_, dir, _ := loginLab(t)
	analyst := config.Tenant{Name: "analyst", ID: simulator.DefaultTenantID, Cloud: "simulator"}
	analyst.Credential.ClientID = "22222222-2222-2222-2222-222222222222"
	analyst.Credential.User = &config.User{TokenStore: filepath.Join(dir, "analyst.login"), KeyFile: filepath.Join(dir, "analyst.key")}
	if err := userStore(analyst).Save(credential.Login{RefreshToken: "canary"}); err != nil {
		t.Fatal(err)
	}
	if err := userStore(analyst).Check(); err != nil {
		t.Error(err)
	}
	admin := analyst
	admin.Name = "admin"
	if err := userStore(admin).Check(); err == nil || !strings.Contains(err.Error(), `the tenant called "analyst"`) {
		t.Errorf("got %v, want that it is the analyst's", err)
	}
}

func TestNamesArePrintedWithoutWhatIsNotSeen(t *testing.T) {
	for name, want := range map[string]string{
		"ana@contoso.example":         "ana@contoso.example",
		"Ána SS 山田 O'Neill":           "Ána SS 山田 O'Neill",
		"ana\x1b[2J\r\n@contoso":      "ana[2J@contoso",
		"ana\u202e@osotnoc\u2066":     "ana@osotnoc",
		"a\u200bn\u200ea\ufeff\u2028": "ana",
		"ana\u0085\u009b31m":          "ana31m",
	} {
		if got := printable(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
