package credential

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/token"
)

func TestTheFederatedTokenFileIsReadForEachExchange(t *testing.T) {
	one, two := makeJWT(map[string]any{"sub": "one"}), makeJWT(map[string]any{"sub": "two", "exp": time.Now().Add(time.Hour).Unix()})
	dir := kubernetesDir(t, map[string]string{"token": one + "\n"})
	c := FederatedToken(dir + "/token")
	for _, want := range []string{one, two} {
		p := proofsOf(t, c, testAsk)[0]
		if got := p.Form.Get("client_assertion"); got != want {
			t.Errorf("the assertion is %q, want %q", got, want)
		}
		if got := p.Form.Get("client_assertion_type"); got != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			t.Errorf("the type is %q", got)
		}
		if len(p.Secrets) != 1 || p.Secrets[0] != want {
			t.Errorf("the secrets are %q", p.Secrets)
		}
		kubernetesSwap(t, dir, map[string]string{"token": two})
	}
	if h := c.Health(); h.Kind != "federated_token" || !h.Expires.IsZero() {
		t.Errorf("health is %+v", h)
	}
}

func TestAFederatedTokenFileThatIsOfNoUseIsAFault(t *testing.T) {
	good := makeJWT(map[string]any{"sub": "canary-sub"})
	for name, c := range map[string]struct {
		content string
		says    []string
	}{
		"an empty file":            {"", []string{"is empty"}},
		"half a token":             {good[:strings.LastIndex(good, ".")], []string{"does not hold a JWT"}},
		"a line end inside":        {good[:40] + "\n" + good[40:], []string{"does not hold a JWT"}},
		"a space in front":         {" " + good, []string{"does not hold a JWT"}},
		"five parts (encrypted)":   {good + ".a.b", []string{"does not hold a JWT"}},
		"a payload without JSON":   {"e30." + base64.RawURLEncoding.EncodeToString([]byte("nothing")) + ".c2ln", []string{"does not hold a JWT"}},
		"padding":                  {good + "=", []string{"does not hold a JWT"}},
		"a token that ended":       {makeJWT(map[string]any{"exp": time.Now().Add(-3 * time.Hour).Unix()}), []string{"ended at", "3 hours ago", "not being renewed", "the file was written"}},
		"a file that is too large": {strings.Repeat("a", 64<<10+1), []string{"more than 64 KiB"}},
	} {
		file := put(t, "token", []byte(c.content))
		err := CheckFederatedToken(file)
		mustFault(t, err, token.Misconfigured, append(c.says, file)...)
		_, again := FederatedToken(file).Proofs(t.Context(), testAsk)
		mustFault(t, again, token.Misconfigured, c.says...)
		mustNotShow(t, []string{"canary-sub", good}, err, again)
		if t.Failed() {
			t.Fatalf("in the case of %s", name)
		}
	}
	mustFault(t, CheckFederatedToken(t.TempDir()), token.Misconfigured, "not a regular file")
	mustFault(t, CheckFederatedToken(t.TempDir()+"/none"), token.Misconfigured, "cannot be read", "none")
	if err := CheckFederatedToken(put(t, "token", []byte(good))); err != nil {
		t.Errorf("a good file gives %v", err)
	}
}

func TestAFederatedTokenIsJudgedByEntrasClock(t *testing.T) {
	now := time.Now()
	c := FederatedToken(put(t, "token", []byte(makeJWT(map[string]any{"exp": now.Add(-time.Minute).Unix()}))))
	ask := testAsk
	ask.Now = now.Add(-20 * time.Minute) // this machine is 20 minutes ahead
	proofsOf(t, c, ask)
	ask.Now = now
	_, err := c.Proofs(t.Context(), ask)
	mustFault(t, err, token.Misconfigured, "not being renewed")
}

func TestAMarkOfUTF8InFrontOfATokenIsLeftOut(t *testing.T) {
	want := makeJWT(map[string]any{"sub": "s"})
	c := FederatedToken(put(t, "token", []byte("\xef\xbb\xbf"+want+"\r\n")))
	if got := proofsOf(t, c, testAsk)[0].Form.Get("client_assertion"); got != want {
		t.Errorf("the assertion is %q, want %q", got, want)
	}
}

func TestAnUnreadableFileNamesTheReason(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root reads everything; a folder in the way says the same.
		mustFault(t, CheckFederatedToken(put(t, "token", []byte("x"))+"/below"), token.Misconfigured, "cannot be read: not a directory")
		return
	}
	file := put(t, "token", []byte("x"))
	if err := os.Chmod(file, 0); err != nil {
		t.Fatal(err)
	}
	mustFault(t, CheckFederatedToken(file), token.Misconfigured, "permission denied", "the user that the proxy runs as")
}

// FuzzFederatedToken: what passes can stand in a form as it is, and has three
// parts that decode.
func FuzzFederatedToken(f *testing.F) {
	f.Add(makeJWT(map[string]any{"exp": 1}))
	f.Add(makeJWT(map[string]any{"exp": 1e300}))
	f.Add("a.b.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		_, ok := federatedExpiry(text)
		if !ok {
			return
		}
		parts := strings.Split(text, ".")
		if len(parts) != 3 || strings.ContainsAny(text, " \t\r\n\x00+/=&") {
			t.Errorf("%q passed", text)
		}
		for _, p := range parts {
			b, err := base64.RawURLEncoding.DecodeString(p)
			if err != nil || base64.RawURLEncoding.EncodeToString(b) != p {
				t.Errorf("%q passed, and is not the one spelling of its content", p)
			}
		}
	})
}
