package redact

import (
	"strings"
	"testing"
)

// A token, as Entra ID shapes them; nobody signed it.
const (
	aToken   = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJhdWQiOiJodHRwczovL2FwaSIsImFwcGlkIjoiMSJ9.c2ln_bmF0-dXJl"
	aSecret  = "aB38Q~abcdefghijklmnopqrstuvwxyz.12345-6"
	aRefresh = "0.AXoAabcdefghijklmnopqr_-123456.AgABAAEAAABc-Defghij"
	aSAS     = "https://acct.blob.core.windows.net/c/f.gz?sv=2020-08-04&se=2026-11-21T10%3A00%3A00Z&sr=b&sp=r&skoid=11111111&sig=Ab%2Fc%2Bd%3D"
)

func TestASecretIsTakenOut(t *testing.T) {
	long := strings.Repeat("Ab3_", 30)
	for _, c := range []struct{ name, in, want string }{
		// By shape.
		{"a token on its own", aToken, mark},
		{"a token in a sentence", "the token " + aToken + " was refused", "the token " + mark + " was refused"},
		{"a token in a path", "/api/alerts/" + aToken + "/x y", "/api/alerts/" + mark + "/x y"},
		{"a token that was cut off", "GET /" + aToken[:14] + "…", "GET /" + mark + "…"},
		{"a token behind letters", "x" + aToken, "x" + mark},
		{"a token whose dots are escaped", strings.ReplaceAll(aToken, ".", "%2E"), mark},
		{"two tokens", aToken + " " + aToken, mark + " " + mark},
		{"a client secret", "with " + aSecret + ", then", "with " + mark + ", then"},
		{"a client secret whose tilde is escaped", strings.ReplaceAll(aSecret, "~", "%7E"), mark},
		{"a refresh token", "got " + aRefresh, "got " + mark},
		{"a long opaque word", "at /blob/" + long + " now", "at /blob/" + mark + " now"},
		{"a private key", "x -----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\ny", "x " + mark + "\ny"},
		{"a private key in JSON", `{"k":"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"}`, `{"k":"` + mark + `\n"}`},
		{"a private key without an end", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE", mark},

		// By what stands before it.
		{"a bearer", "sent Bearer abc-def-123 there", "sent Bearer " + mark + " there"},
		{"a basic credential", "basic dXNlcjpwYXNz", "basic " + mark},
		{"a bearer in a query's form", "a=Bearer+abc.def.123", "a=Bearer+" + mark},
		{"a bearer with escaped spaces", "Bearer%20abc.def.123 x", "Bearer%20" + mark + " x"},
		{"a signed header of storage", "SharedKey account:AbCd0123==", "SharedKey " + mark},
		{"a header", "GET / HTTP/1.1\r\nAuthorization: Digest user=\"a\", x\r\nHost: y", "GET / HTTP/1.1\r\nAuthorization: " + mark + "\r\nHost: y"},
		{"a cookie", "Cookie: a=b; c=\"d\"; e=f\nHost: x", "Cookie: " + mark + "\nHost: x"},
		{"headers as Go prints them", "map[Authorization:[Bearer x] Host:[y]]", "map[Authorization:" + mark},
		{"a form", "grant_type=client_credentials&client_secret=a%2Fb&x=1", "grant_type=client_credentials&client_secret=" + mark + "&x=" + mark},
		{"a form whose name is escaped", "client%5Fsecret=a%2Fb", "client%5Fsecret=" + mark},
		{"a variable", "CONTOSO_SECRET=hunter2 in the environment", "CONTOSO_SECRET=" + mark + " in the environment"},
		{"a member of JSON", `{"client_secret":"a b\"c","x":"y"}`, `{"client_secret":"` + mark + `","x":"y"}`},
		{"a member of JSON with spaces", `{ "password" : "a b" , "x":1 }`, `{ "password" : "` + mark + `" , "x":1 }`},
		{"a member of JSON whose value ends in a backslash", `{"password":"a\\","b":"c"}`, `{"password":"` + mark + `","b":"c"}`},
		{"a member of JSON in JSON", `{"e":"{\"password\":\"a\\\"b\",\"x\":\"y\"}"}`, `{"e":"{\"password\":\"` + mark + `\",\"x\":\"y\"}"}`},
		{"a member of JSON as .NET escapes it", `{\u0022access_token\u0022:\u0022abc\u0022,\u0022x\u0022:1}`, `{\u0022access_token\u0022:\u0022` + mark + `\u0022,\u0022x\u0022:1}`},
		{"a number", `{"pwd":123456,"x":1}`, `{"pwd":` + mark + `,"x":1}`},
		{"a struct as Go prints it", "{ClientSecret:hunter2 Name:x}", "{ClientSecret:" + mark + " Name:x}"},
		{"YAML", "password: hunter2\n", "password: " + mark + "\n"},
		{"YAML in quotes", "password: 'a b'\n", "password: '" + mark + "'\n"},
		{"an account key", "DefaultEndpointsProtocol=https;AccountKey=aB+/c==;EndpointSuffix=x", "DefaultEndpointsProtocol=https;AccountKey=" + mark},
		{"a signature on its own", "sig=Ab%2Fc%2Bd%3D", "sig=" + mark},
		{"a signature in an escaped URL", "u=https%3A%2F%2Fx%2Fy%3Fsp%3Dr%26sig%3DAb%252F", "u=https%3A%2F%2Fx%2Fy%3Fsp%3Dr%26sig%3D" + mark},
		{"a signature behind an ampersand as JSON has it", `x\u0026se=2026\u0026sig=Ab`, `x\u0026se=` + mark + `\u0026sig=` + mark},
		{"a signature behind an ampersand as HTML has it", `x&amp;se=2026&amp;sig=Ab`, `x&amp;se=` + mark + `&amp;sig=` + mark},

		// URLs.
		{"a download link", "see " + aSAS + " now", "see https://acct.blob.core.windows.net/c/f.gz?sv=" + mark + "&se=" + mark + "&sr=" + mark + "&sp=" + mark + "&skoid=" + mark + "&sig=" + mark + " now"},
		{"a URL in an error of Go's", `Get "https://h/api/alerts?$filter=title eq 'x'&$top=5": EOF`, `Get "https://h/api/alerts?$filter=` + mark + ` eq 'x'&$top=5": EOF`},
		{"a path with a query", "GET /api/alerts?$filter=x&$skip=1 failed", "GET /api/alerts?$filter=" + mark + "&$skip=1 failed"},
		{"a URL whose query is a token", "https://h/?abcdef", "https://h/?" + mark},
		{"user and password", "via http://user:p%40ss@proxy.corp:3128 now", "via http://" + mark + "@proxy.corp:3128 now"},
		{"a password that no URL may hold", `parse "http://user:p/ss?@proxy.corp:3128": bad`, `parse "http://` + mark + `@proxy.corp:3128": bad`},
		{"a user that is a token", "https://ghp@h/x", "https://" + mark + "@h/x"},
		{"a password in an escaped URL", "/x/https%3A%2F%2Fu%3Ap%40h%2Fx", "/x/https%3A%2F%2F" + mark + "%40h%2Fx"},
		{"a password in a path", "/t/u:p@ss@h/x", "/t/" + mark + "@h/x"},
		{"a password without a scheme", "GET //u:p@h/x and \"//u:p@h\"", "GET //" + mark + "@h/x and \"//" + mark + "@h\""},
		{"a refresh token behind an equals sign", "a=" + aRefresh, "a=" + mark},
		{"a password in JSON with escaped slashes", `http:\/\/u:p@h\/x`, `http:\/\/` + mark + `@h\/x`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Text(c.in)
			if got != c.want {
				t.Errorf("\ngot  %s\nwant %s", got, c.want)
			}
			if again := Text(got); again != got {
				t.Errorf("a second time: %s\nof %s", again, got)
			}
		})
	}
}

// What the proxy and Entra ID say of secrets, without one.
var sentences = []string{
	"",
	"the token lacks Machine.Isolate, let pass by policy.claims: report",
	"token: tenant contoso, audience https://api.securitycenter.microsoft.com: Entra ID does not know the client secret of application 22222222-2222-2222-2222-222222222222. Set the secret's value, not its ID, without spaces or line ends around it; or create a new one under App registrations, Certificates & secrets.",
	"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '22222222-2222-2222-2222-222222222222'. Trace ID: 0a0a0a0a-1111-2222-3333-444444444444 Correlation ID: 0a0a0a0a-1111-2222-3333-444444444444 Timestamp: 2026-11-21 10:00:00Z",
	"credential: client_secret: AADSTS7000222: the secret has expired",
	`Entra ID refuses the token: "AADSTS999999: nobody knows.". Microsoft explains the code at https://login.microsoftonline.com/error?code=999999. Ask again.`,
	"tenants[0].credential.client_secret: the variable CONTOSO_SECRET is not set",
	"proxy.yaml:12:5: tenants[0].credential.client_secret: unknown key \"fil\"; did you mean file?",
	"password: file /run/secrets/contoso cannot be read: permission denied",
	"An administrator of the tenant consents at https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/adminconsent?client_id=22222222-2222-2222-2222-222222222222",
	"https://login.microsoftonline.com/common/oauth2/authorize?prompt=consent&client_id=22222222-2222-2222-2222-222222222222&response_type=code&sso_reload=true",
	"Microsoft explains the code at https://login.microsoftonline.com/error?code=7000215",
	`Bearer error="invalid_token", authorization_uri="https://login.microsoftonline.com/x"`,
	"a bearer token without an audience; basic authentication is off; Bearer Authentication",
	"/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/isolate",
	"/api/files/E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855/alerts",
	"/api/machines/findbyip(ip='10.248.240.38',timestamp=2019-09-22T08:44:05Z)",
	"/api/alerts?$top=100&$skip=0&$select=id,title&$orderby=alertCreationTime desc",
	"GET /-/operations lists what is granted. Is it /api/x? No.",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
	"0198c7d0-0000-7000-8000-000000000000", "https://[::1]:8443/x", "http://HOST:PORT/api/alerts, not as a tunnel", "spiffe://corp.example/ns/soc/sa/analyst",
	"region eu: dial tcp 10.0.0.1:443: connect: connection refused", "design=1 assign=2 token_type=Bearer token_uti=abc",
	"goroutine 1 [running]:\ndefender-proxy/internal/token.(*Engine).fetch.func1.TestNoPrintedValueShowsTheTokenOrTheSecret.func1.2()\n\t/src/internal/token/fetch.go:67 +0x1d4",
	"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" + strings.Repeat("0a", 40),
	"version 0.A, 1.Again; the year 2026; user@example.com; a or b?", "sent to https://h/p@th, https://h:443/a@b",
	`{"password":null,"token":true,"client_secret":{"env":"NAME"}}`,
	"/api/libraryfiles/HoneyJarCollector.ps1", "/api/libraryfiles/MonkeyJenkins42.ps1", "/api/machines/KeyJ-LAPTOP01/isolate", "/api/machines/donkeyjoe-LAPTOP01.corp.example/isolate",
	"/api/machines/eyJohnson01/isolate", "/api/users/surveyJ12345/alerts", "sent by MonkeyJenkinsAgent/1.0",
}

func TestASentenceStaysAsItIs(t *testing.T) {
	for _, s := range sentences {
		if got := Text(s); got != s {
			t.Errorf("\ngot  %s\nwant %s", got, s)
		}
		if n := testing.AllocsPerRun(10, func() { _ = Text(s) }); n != 0 {
			t.Errorf("%v allocations for %s", n, s)
		}
	}
}

// What a write goes to has to be seen in its record.
func TestThePathOfAnOperationShowsItsTarget(t *testing.T) {
	for _, s := range []string{
		"/api/libraryfiles/HoneyJarCollector.ps1", "/api/machines/KeyJ-LAPTOP01/isolate", "/api/machines/eyJohnson01/isolate",
		"/api/libraryfiles/report2026Q~final.docx", "/security/alerts_v2/1.AbcdefghijklmnopqrstuV",
		"/api/users/contoso:bob@contoso.com/alerts", "/api/users/domain%3Abob%40contoso.com/alerts",
		"/api/indicators/findbytoken(token='abc')", "/api/machines/findbyip(ip='10.0.0.1',timestamp=2026-11-21T00:00:00Z)",
		"/security/collaboration/analyzedEmails/" + strings.Repeat("AAMkAGVm", 12) + "/remediate", "/api/libraryfiles/Basic%20Monitoring2%20agent.ps1",
		"/api/libraryfiles/Token%20Harvester2026X.ps1", "/api/libraryfiles/Bearer+Collector2026ForWindows.ps1", "/api/libraryfiles/R&D=plan.txt", "/api/users/secret:agent007/alerts", "/api/domains/token.example.com/stats",
	} {
		if got := Path(s); got != s {
			t.Errorf("\ngot  %s\nwant %s", got, s)
		}
	}
	for _, secret := range []string{aToken, "x" + aToken, strings.ReplaceAll(aToken, ".", "%2E"), aSecret, strings.ReplaceAll(aSecret, "~", "%7E"), "1.A" + strings.Repeat("XoA_1", 20) + ".AgABAA", strings.Repeat("Ab3_", 30)} {
		in, want := "/api/machines/"+secret+"/isolate", "/api/machines/"+mark+"/isolate"
		if got := Path(in); strings.TrimPrefix(got, "/api/machines/x") != strings.TrimPrefix(want, "/api/machines/") && got != want {
			t.Errorf("of %s\ngot  %s\nwant %s", in, got, want)
		}
	}
}

// Never the segments behind it.
func TestASecretInThePathOfAnOperationGoesAlone(t *testing.T) {
	for in, want := range map[string]string{
		"/api/machines/client_secret=hunter2/isolate":            "/api/machines/client_secret=" + mark + "/isolate",
		"/api/machines/cookie=hunter2/isolate":                   "/api/machines/cookie=" + mark + "/isolate",
		"/api/machines/%22password%22:%22hunter2%22/isolate":     "/api/machines/%22password%22:%22" + mark + "%22/isolate",
		"/api/machines/Basic%20Y2FuYXJ5OmNhbmFyeTEyMw==/isolate": "/api/machines/Basic%20" + mark + "/isolate",
	} {
		if got := Path(in); got != want {
			t.Errorf("\ngot  %s\nwant %s", got, want)
		}
	}
}

func TestAQueryShowsNoValuesButAFew(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"numbers and properties stay", "$top=10&$skip=20&$count=true&pageSize=50000&$select=id,machineId&$orderby=a/b%20desc", "$top=10&$skip=20&$count=true&pageSize=50000&$select=id,machineId&$orderby=a/b%20desc"},
		{"a dollar sign may be escaped", "%24top=10&%24filter=x", "%24top=10&%24filter=" + mark},
		{"a filter goes", "$filter=title+eq+'x'&$top=1", "$filter=" + mark + "&$top=1"},
		{"a skiptoken goes", "$skiptoken=a%2Bb", "$skiptoken=" + mark},
		{"each parameter of a shared access signature goes", "sv=1&ss=b&se=2&sp=r&sig=x", "sv=" + mark + "&ss=" + mark + "&se=" + mark + "&sp=" + mark + "&sig=" + mark},
		{"what is no number does not hide in $top", "$top=hunter2&$skip=1234567890", "$top=" + mark + "&$skip=" + mark},
		{"what is no property does not hide in $select", "$select=a1b2c3d4&$orderby=contains(x,'y')&$expand=" + strings.Repeat("x", 33), "$select=" + mark + "&$orderby=" + mark + "&$expand=" + mark},
		{"a parameter without a value is one", "hunter2&a=b", mark + "&a=" + mark},
		{"an option without a value stays", "$count&$filter=", "$count&$filter="},
		{"a name that is no word goes", "hunter2=x&" + aToken + "=", mark + "=" + mark + "&" + mark + "=" + mark},
		{"empty parameters stay", "&&$top=1&", "&&$top=1&"},
		{"only the first equals sign counts", "$top==1&$filter=a=b", "$top=" + mark + "&$filter=" + mark},
		{"a semicolon does not separate", "$top=1;x=hunter2", "$top=" + mark},
		{"what comes behind many is left out", strings.Repeat("$top=1&", 40) + "a=b", strings.Repeat("$top=1&", 32) + "…"},
		{"a code of an error is a number, any other goes", "code=700016&code=0.AXoA", "code=700016&code=" + mark},
		{"an application's id stays, what else is called so goes", "client_id=22222222-2222-2222-2222-222222222222&client_id=22222222-2222-2222-2222-22222222222", "client_id=22222222-2222-2222-2222-222222222222&client_id=" + mark},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Query(c.in)
			if got != c.want {
				t.Errorf("\ngot  %s\nwant %s", got, c.want)
			}
			if again := Query(got); again != got {
				t.Errorf("a second time: %s\nof %s", again, got)
			}
			if text := Text(got); text != got {
				t.Errorf("as text: %s\nof %s", text, got)
			}
		})
	}
	if n := testing.AllocsPerRun(10, func() { _ = Query("$top=10&$select=id&pageSize=5") }); n != 0 {
		t.Errorf("%v allocations where nothing goes", n)
	}
}

func BenchmarkText(b *testing.B) {
	for name, s := range map[string]string{
		"path": "/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07/isolate", "error": sentences[2], "token": "got " + aToken, "link": aSAS,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(s)))
			b.ReportAllocs()
			for b.Loop() {
				_ = Text(s)
			}
		})
	}
}

// What is cut off would show the first half of a secret, which nobody knows by its
// shape.
func TestShortCutsNoSecretInTwo(t *testing.T) {
	const secret = "dGhpc2lz8Q~aCanaryCanaryCanaryCanary1234"
	for _, n := range []int{0, 100, 230, 240, 255, 256, 4060, 4090, 4096} {
		got := Short(strings.Repeat("x", n) + " " + secret + strings.Repeat(" y", 3000))
		if strings.Contains(got, secret[:12]) || len(got) > 256+len("…") {
			t.Errorf("behind %d bytes: %d bytes, %q", n, len(got), got)
		}
	}
	if got := Short("curl/8.0"); got != "curl/8.0" {
		t.Errorf("a short text is %q", got)
	}
}
