package credential

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defender-proxy/internal/token"
)

// spoken is a Value whose answer a test changes.
type spoken struct {
	secret Secret
	err    error
}

func (s *spoken) value() Value {
	return func(context.Context) (Secret, error) { return s.secret, s.err }
}

func texts(ps []token.Proof) (out []string) {
	for _, p := range ps {
		out = append(out, p.Form.Get("client_secret"))
	}
	return out
}

func TestClientSecretsAreOfferedInTheOrderOfTheirLastSuccess(t *testing.T) {
	first, next := &spoken{secret: Secret{Text: "old"}}, &spoken{secret: Secret{Text: "new"}}
	c := ClientSecret(first.value(), next.value())
	want := func(when string, order ...string) []token.Proof {
		t.Helper()
		ps := proofsOf(t, c, testAsk)
		if got := texts(ps); !slices.Equal(got, order) {
			t.Errorf("%s the order is %q, want %q", when, got, order)
		}
		return ps
	}

	ps := want("at the start", "old", "new")
	if n := c.Health().Notice; n != "" {
		t.Errorf("at the start there is a notice: %s", n)
	}
	ps[0].Rejected(7000222)
	if n := c.Health().Notice; n != "" {
		t.Errorf("a rejection alone gives the notice %q, want none before the next one was granted", n)
	}
	if err := ps[1].Granted(token.Grant{}); err != nil {
		t.Fatal(err)
	}
	n := c.Health().Notice
	for _, w := range []string{"client_secret is not accepted (AADSTS7000222)", "next_client_secret is in use", "if client_secret is the older one", "if it is new, wait"} {
		if !strings.Contains(n, w) {
			t.Errorf("the notice is %q, want it to say %q", n, w)
		}
	}

	want("once the first was rejected", "new", "old")
	first.secret.Text = "renewed"
	want("once the first has a new text", "renewed", "new")
	if n := c.Health().Notice; n != "" {
		t.Errorf("the notice stays after the first was renewed: %s", n)
	}
}

func TestARejectedFirstSecretIsUsedAgainWhenTheNextOneFails(t *testing.T) {
	first, next := &spoken{secret: Secret{Text: "old"}}, &spoken{secret: Secret{Text: "new"}}
	c := ClientSecret(first.value(), next.value())
	ps := proofsOf(t, c, testAsk)
	ps[0].Rejected(0)
	_ = ps[1].Granted(token.Grant{})
	ps = proofsOf(t, c, testAsk)
	// Now the next one is refused and the first taken: the notice goes.
	ps[0].Rejected(7000215)
	_ = ps[1].Granted(token.Grant{})
	if n := c.Health().Notice; n != "" {
		t.Errorf("the first is in use again, and the notice is %q", n)
	}
	if got := texts(proofsOf(t, c, testAsk)); !slices.Equal(got, []string{"old", "new"}) {
		t.Errorf("the order is %q, want the first one first again", got)
	}
}

func TestTheNoticeDoesNotContradictItselfWhenTheNextSecretCannotBeReadEither(t *testing.T) {
	first, next := &spoken{secret: Secret{Text: "old"}}, &spoken{secret: Secret{Text: "new"}}
	c := ClientSecret(first.value(), next.value())
	ps := proofsOf(t, c, testAsk)
	ps[0].Rejected(7000222)
	_ = ps[1].Granted(token.Grant{})
	next.err, next.secret = errors.New("the file /n cannot be read"), Secret{}
	proofsOf(t, c, testAsk)
	n := c.Health().Notice
	if !strings.Contains(n, "client_secret is not accepted (AADSTS7000222).") || !strings.Contains(n, "next_client_secret cannot be used") || strings.Contains(n, "in use") {
		t.Errorf("the notice is %q", n)
	}
}

func TestASecretsKeeperHearsWhetherEntraTookItsText(t *testing.T) {
	var heard []bool
	v := &spoken{secret: Secret{Text: "one", judged: func(taken bool) { heard = append(heard, taken) }}}
	p := proofsOf(t, ClientSecret(v.value(), nil), testAsk)[0]
	p.Rejected(7000215)
	_ = p.Granted(token.Grant{})
	if !slices.Equal(heard, []bool{false, true}) {
		t.Errorf("the keeper heard %v, want a no and a yes", heard)
	}
}

func TestAGrantOfAnOldTextDoesNotClearTheRejectionOfANewOne(t *testing.T) {
	first, next := &spoken{secret: Secret{Text: "old"}}, &spoken{secret: Secret{Text: "next"}}
	c := ClientSecret(first.value(), next.value())
	old := proofsOf(t, c, testAsk)
	first.secret.Text = "new"
	ps := proofsOf(t, c, testAsk)
	ps[0].Rejected(7000215)
	_ = old[0].Granted(token.Grant{}) // of a fetch that took long
	_ = ps[1].Granted(token.Grant{})
	if got := texts(proofsOf(t, c, testAsk)); !slices.Equal(got, []string{"next", "new"}) {
		t.Errorf("the order is %q, want the rejected new text last", got)
	}
}

func TestARejectedSecretThatCannotBeReadForAWhileStaysRejected(t *testing.T) {
	first, next := &spoken{secret: Secret{Text: "old"}}, &spoken{secret: Secret{Text: "next"}}
	c := ClientSecret(first.value(), next.value())
	ps := proofsOf(t, c, testAsk)
	ps[0].Rejected(7000215)
	_ = ps[1].Granted(token.Grant{})
	first.err, first.secret = errors.New("the file /f cannot be read"), Secret{}
	proofsOf(t, c, testAsk)
	first.err, first.secret = nil, Secret{Text: "old"}
	if got := texts(proofsOf(t, c, testAsk)); !slices.Equal(got, []string{"next", "old"}) {
		t.Errorf("the order is %q, want the rejected one last", got)
	}
}

func TestALateSecretIsLeftOutWhereTheOtherOneIsThere(t *testing.T) {
	late := func(ctx context.Context) (Secret, error) {
		<-ctx.Done()
		return Secret{}, vaultTimeout(secretRef{host: "v"})
	}
	good := (&spoken{secret: Secret{Text: "good"}}).value()
	for name, c := range map[string]struct {
		first, next Value
		fetch, took time.Duration
		says        string
	}{
		"the first":                      {late, good, 15 * time.Second, 5 * time.Second, "client_secret cannot be used: The client secret was not read in time."},
		"the next":                       {good, late, 15 * time.Second, 5 * time.Second, "next_client_secret cannot be used: The next client secret was not read in time."},
		"the next, within a short fetch": {good, late, 3 * time.Second, time.Second, "was not read in time."},
		"the next, without a deadline":   {good, late, 0, 5 * time.Second, "was not read in time."},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cred := ClientSecret(c.first, c.next)
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if c.fetch > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.fetch)
				}
				defer cancel()
				start := time.Now()
				ps, err := cred.Proofs(ctx, testAsk)
				if took := time.Since(start); err != nil || !slices.Equal(texts(ps), []string{"good"}) || took != c.took {
					t.Errorf("got %q, %v after %v; want the good one after %v", texts(ps), err, took, c.took)
				}
				if n := cred.Health().Notice; !strings.Contains(n, c.says) {
					t.Errorf("the notice is %q, want it to say %q", n, c.says)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		_, err := ClientSecret(late, late).Proofs(ctx, testAsk)
		mustFault(t, err, token.Unreachable, "did not answer in time", "And the next one")
	})
}

func TestAPanicOfAValueIsItsReadersToCatch(t *testing.T) {
	defer func() {
		if got := recover(); got != "broken" {
			t.Errorf("recovered %v, want the value's panic", got)
		}
	}()
	_, err := ClientSecret(func(context.Context) (Secret, error) { panic("broken") }, nil).Proofs(t.Context(), testAsk)
	t.Errorf("no panic, but %v", err)
}

func TestAMarkOfUTF8InFrontOfASecretIsLeftOut(t *testing.T) {
	c := ClientSecret(Plain(func() (string, error) { return "\xef\xbb\xbfone", nil }), nil)
	if got := texts(proofsOf(t, c, testAsk)); !slices.Equal(got, []string{"one"}) {
		t.Errorf("got %q", got)
	}
}

func TestEqualClientSecretsAreSentOnce(t *testing.T) {
	v := (&spoken{secret: Secret{Text: "same"}}).value()
	if got := texts(proofsOf(t, ClientSecret(v, v), testAsk)); !slices.Equal(got, []string{"same"}) {
		t.Errorf("got %q, want one", got)
	}
}

func TestOneUnreadableClientSecretDoesNotStopTheOther(t *testing.T) {
	good, bad := &spoken{secret: Secret{Text: "good"}}, &spoken{err: errors.New("the file /run/secret cannot be read: permission denied")}
	for name, c := range map[string]struct {
		c   token.Credential
		key string
	}{
		"the first": {ClientSecret(bad.value(), good.value()), "client_secret cannot be used"},
		"the next":  {ClientSecret(good.value(), bad.value()), "next_client_secret cannot be used"},
	} {
		if got := texts(proofsOf(t, c.c, testAsk)); !slices.Equal(got, []string{"good"}) {
			t.Errorf("%s unreadable: got %q, want the other", name, got)
		}
		if n := c.c.Health().Notice; !strings.Contains(n, c.key) || !strings.Contains(n, "/run/secret") {
			t.Errorf("%s unreadable: the notice is %q", name, n)
		}
	}
	_, err := ClientSecret(bad.value(), bad.value()).Proofs(t.Context(), testAsk)
	mustFault(t, err, token.Misconfigured, "/run/secret", "And the next one")
	_, err = ClientSecret(nil, nil).Proofs(t.Context(), testAsk)
	mustFault(t, err, token.Misconfigured, "no client secret")
}

func TestAClientSecretThatCannotBeOneIsAFault(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"an empty one":             {"", "is empty"},
		"a space in front":         {" s3cr3t-canary", "white space"},
		"a line end behind":        {"s3cr3t-canary\n", "line end"},
		"two lines":                {"s3cr3t-canary\nsecond", "several lines"},
		"a carriage return inside": {"s3cr3t-canary\rsecond", "several lines"},
		"a space inside":           {"s3cr3t-canary second", "a space or a character that cannot be seen"},
		"a tabulator inside":       {"s3cr3t-canary\tsecond", "a space or a character that cannot be seen"},
		"an escape inside":         {"s3cr3t-canary\x1b[0m", "a space or a character that cannot be seen"},
		"a space without width":    {"s3cr3t-canary\u200b", "a space or a character that cannot be seen"},
		"bytes that are no text":   {"s3cr3t-canary\x80", "a space or a character that cannot be seen"},
		"UTF-16 with its mark":     {"\xff\xfes\x003\x00c\x00r\x00", "UTF-16"},
		"UTF-16 without":           {"s\x003\x00c\x00r\x00", "UTF-16"},
	} {
		_, err := ClientSecret((&spoken{secret: Secret{Text: c.text}}).value(), nil).Proofs(t.Context(), testAsk)
		f := mustFault(t, err, token.Misconfigured, c.says)
		mustNotShow(t, []string{"s3cr3t-canary"}, f, err)
		if t.Failed() {
			t.Fatalf("in the case of %s", name)
		}
	}
}

func TestHealthGivesTheEndOfTheSecretInUse(t *testing.T) {
	soon, late := time.Now().Add(time.Hour), time.Now().Add(48*time.Hour)
	first, next := &spoken{secret: Secret{Text: "a", Expires: soon, kind: kindKeyVault}}, &spoken{secret: Secret{Text: "b", Expires: late}}
	c := ClientSecret(first.value(), next.value())
	if h := c.Health(); h.Kind != kindClientSecret || !h.Expires.IsZero() {
		t.Errorf("before the first read: %+v", h)
	}
	ps := proofsOf(t, c, testAsk)
	if h := c.Health(); h.Kind != kindKeyVault || !h.Expires.Equal(soon) {
		t.Errorf("with the first in use: %+v, want %v", h, soon)
	}
	kept := first.secret
	first.secret, first.err = Secret{}, errors.New("the file /f cannot be read")
	proofsOf(t, c, testAsk)
	if h := c.Health(); h.Kind != kindKeyVault || !h.Expires.Equal(soon) {
		t.Errorf("while the first cannot be read: %+v, want what was known of it", h)
	}
	first.secret, first.err = kept, nil
	ps[0].Rejected(0)
	_ = ps[1].Granted(token.Grant{})
	if h := c.Health(); !h.Expires.Equal(late) {
		t.Errorf("with the next in use: %+v, want %v", h, late)
	}
}

func TestPlainReadsAnewEachTimeAndThroughASwappedSymlink(t *testing.T) {
	dir := kubernetesDir(t, map[string]string{"secret": "one"})
	c := ClientSecret(Plain(func() (string, error) {
		b, err := os.ReadFile(filepath.Join(dir, "secret"))
		return string(b), err
	}), nil)
	if got := texts(proofsOf(t, c, testAsk)); !slices.Equal(got, []string{"one"}) {
		t.Errorf("got %q", got)
	}
	kubernetesSwap(t, dir, map[string]string{"secret": "two"})
	if got := texts(proofsOf(t, c, testAsk)); !slices.Equal(got, []string{"two"}) {
		t.Errorf("after the swap got %q", got)
	}
}

func TestASecretPrintsAsRedacted(t *testing.T) {
	s := Secret{Text: "canary-7f3a", Version: "canary-7f3a"}
	mustNotShow(t, []string{"canary-7f3a"}, s, &s, struct{ S Secret }{s}, map[string]Secret{"x": s}, []*Secret{&s})
	if j, err := json.Marshal(struct{ S Secret }{s}); err != nil || string(j) != `{"S":"[redacted]"}` {
		t.Errorf("JSON is %s, %v", j, err)
	}
	if s.String() != redacted || s.GoString() != redacted {
		t.Errorf("String gives %s, GoString %s", s.String(), s.GoString())
	}
}

// kubernetesDir lays files out as the kubelet does: links through ..data, which
// is itself a link.
func kubernetesDir(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	kubernetesSwap(t, dir, files)
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// kubernetesSwap makes a new folder and swaps ..data over to it.
func kubernetesSwap(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	stamp, err := os.MkdirTemp(dir, "..2026_")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(stamp, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tmp := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(stamp), tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}
