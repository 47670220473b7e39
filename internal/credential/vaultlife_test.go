package credential

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"defender-proxy/internal/token"
)

// fakeVault is a Vault on a test's own reads, for fake time.
func fakeVault(read func(ctx context.Context) (Secret, *token.Fault)) *Vault {
	v := NewVault(VaultOptions{})
	v.read = func(ctx context.Context, _ secretRef) (Secret, *token.Fault) { return read(ctx) }
	return v
}

// hang is a read of a vault that takes connections and never answers.
func hang(ctx context.Context) (Secret, *token.Fault) {
	<-ctx.Done()
	return Secret{}, vaultTimeout(secretRef{host: "contoso.vault.azure.net"})
}

var vaultAway = &token.Fault{Kind: token.Unavailable, Sentence: "The vault fails.", Remedy: "Wait."}

func TestAVaultsSecretIsKeptAndRenewedByItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, down, reads := "one", false, 0
		v := fakeVault(func(context.Context) (Secret, *token.Fault) {
			reads++
			if down {
				return Secret{}, vaultAway
			}
			return Secret{Text: text}, nil
		})
		c := ClientSecret(vaultValue(t, v, appURL), nil)
		want := func(when, secret string, n int) token.Proof {
			t.Helper()
			p := proofsOf(t, c, testAsk)[0]
			if got := p.Secrets[0]; got != secret || reads != n {
				t.Errorf("%s: %q after %d reads, want %q after %d", when, got, reads, secret, n)
			}
			return p
		}
		want("at first", "one", 1)
		text = "two"
		time.Sleep(15*time.Minute - time.Second)
		p := want("within 15 minutes", "one", 1)
		p.Rejected(7000215)
		p = want("at once when it was rejected", "two", 2)
		text = "three"
		p.Rejected(7000215)
		want("rejected again within 10 seconds", "two", 2)
		time.Sleep(10 * time.Second)
		p = want("rejected again, later", "three", 3)
		p.Rejected(7000215)
		time.Sleep(10 * time.Second)
		p = want("rejected, and the vault has no other", "three", 4)
		p = want("rejected, and just read", "three", 4)
		time.Sleep(10 * time.Second)
		want("as long as it stays rejected", "three", 5)
		_ = p.Granted(token.Grant{})
		time.Sleep(10 * time.Second)
		want("when Entra ID takes it after all", "three", 5)

		time.Sleep(15 * time.Minute)
		down = true
		want("when the vault fails", "three", 6)
		if n := c.Health().Notice; !strings.Contains(n, "The vault fails") || !strings.Contains(n, "in use until") {
			t.Errorf("the notice is %q", n)
		}
		time.Sleep(9 * time.Second)
		want("within 10 seconds of the failure", "three", 6)
		time.Sleep(time.Second)
		want("10 seconds after the failure", "three", 7)
		time.Sleep(24*time.Hour - 16*time.Minute)
		want("before the day is over", "three", 8)
		time.Sleep(5 * time.Minute)
		_, err := c.Proofs(t.Context(), testAsk)
		mustFault(t, err, token.Unavailable, "The vault fails.")
		down, text = false, "four"
		_, err = c.Proofs(t.Context(), testAsk)
		mustFault(t, err, token.Unavailable, "The vault fails.")
		time.Sleep(10 * time.Second)
		want("when it is back", "four", 10)
		if n := c.Health().Notice; n != "" {
			t.Errorf("the notice stays: %q", n)
		}
	})
}

func TestALateJudgementOfAnOldTextDoesNotTouchTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, reads := "one", 0
		v := fakeVault(func(context.Context) (Secret, *token.Fault) { reads++; return Secret{Text: text}, nil })
		c := ClientSecret(vaultValue(t, v, appURL), nil)
		old := proofsOf(t, c, testAsk)[0]
		text = "two"
		time.Sleep(15 * time.Minute)
		proofsOf(t, c, testAsk)
		old.Rejected(7000215)
		time.Sleep(time.Minute)
		proofsOf(t, c, testAsk)
		if reads != 2 {
			t.Errorf("%d reads, want two: the new text was not rejected", reads)
		}
	})
}

func TestWhatAFailureOfTheVaultMeansForTheSecretAtHand(t *testing.T) {
	for name, c := range map[string]struct {
		kind  token.Kind
		stays bool
	}{
		"no answer: it is used on":                         {token.Unreachable, true},
		"a passing fault: it is used on":                   {token.Unavailable, true},
		"a fault in the proxy: it is used on":              {token.Internal, true},
		"the secret is disabled or gone: it is dropped":    {token.Misconfigured, false},
		"the identity lost its right to it: it is dropped": {token.Rejected, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f *token.Fault
				v := fakeVault(func(context.Context) (Secret, *token.Fault) { return Secret{Text: "one"}, f })
				value := vaultValue(t, v, appURL)
				_, _ = value(t.Context())
				time.Sleep(time.Hour)
				f = &token.Fault{Kind: c.kind, Sentence: "The vault says so.", Remedy: "Look."}
				s, err := value(t.Context())
				if got := err == nil && s.Text == "one"; got != c.stays {
					t.Errorf("the old secret is given: %v (%v), want %v", got, err, c.stays)
				}
				// What was dropped does not come back with another failure.
				time.Sleep(time.Hour)
				f = vaultAway
				if s, err = value(t.Context()); (err == nil) != c.stays {
					t.Errorf("at the next failure got %v, want the old secret: %v", err, c.stays)
				}
				_ = s
			})
		})
	}
}

func TestAVaultsSecretIsNotUsedPastItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads, down := 0, false
		end := time.Now().Add(time.Hour)
		v := fakeVault(func(context.Context) (Secret, *token.Fault) {
			if reads++; down {
				return Secret{}, &token.Fault{Kind: token.Unreachable, Sentence: "The vault is away.", Remedy: "Wait."}
			}
			return Secret{Text: "one", Expires: end}, nil
		})
		value := vaultValue(t, v, appURL)
		if _, err := value(t.Context()); err != nil {
			t.Fatal(err)
		}
		down = true
		time.Sleep(59 * time.Minute)
		if s, err := value(t.Context()); err != nil || !strings.Contains(s.notice, "in use until "+end.UTC().Format(time.RFC3339)) {
			t.Errorf("before its end the notice is %q (%v), want it to name the end", s.notice, err)
		}
		time.Sleep(time.Minute)
		_, err := value(t.Context())
		mustFault(t, err, token.Unreachable, "The vault is away.")
		if reads != 3 {
			t.Errorf("%d reads, want another one when the secret had ended", reads)
		}
	})
}

func TestManyTenantsWithASecretOfNoUseDoNotReadItEachTime(t *testing.T) {
	for name, c := range map[string]struct {
		secret Secret
		fault  *token.Fault
		pause  time.Duration
	}{
		"it ended":                             {secret: Secret{Text: "x", Expires: time.Unix(900000000, 0)}, pause: 10 * time.Second},
		"it may not be read":                   {fault: &token.Fault{Kind: token.Rejected, Sentence: "No.", Remedy: "Ask."}, pause: 10 * time.Second},
		"the vault asks to come again later":   {fault: &token.Fault{Kind: token.Unavailable, Sentence: "No.", Remedy: "Wait.", RetryAfter: 2 * time.Minute}, pause: 2 * time.Minute},
		"the vault asks to come again at once": {fault: &token.Fault{Kind: token.Unavailable, Sentence: "No.", Remedy: "Wait.", RetryAfter: time.Second}, pause: 10 * time.Second},
		"the vault asks for an absurd wait":    {fault: &token.Fault{Kind: token.Unavailable, Sentence: "No.", Remedy: "Wait.", RetryAfter: time.Hour}, pause: 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reads := 0
				v := fakeVault(func(context.Context) (Secret, *token.Fault) { reads++; return c.secret, c.fault })
				try := func(want int) {
					t.Helper()
					for range 100 {
						if _, err := vaultValue(t, v, appURL)(t.Context()); err == nil {
							t.Fatal("it is given")
						}
					}
					if reads != want {
						t.Errorf("%d reads, want %d", reads, want)
					}
				}
				try(1)
				time.Sleep(c.pause - time.Second)
				try(1)
				if c.fault != nil && c.fault.RetryAfter > c.pause-time.Second {
					_, err := vaultValue(t, v, appURL)(t.Context())
					if f := mustFault(t, err, c.fault.Kind, "No."); f.RetryAfter != c.fault.RetryAfter-(c.pause-time.Second) {
						t.Errorf("RetryAfter is %v, want what is left of %v", f.RetryAfter, c.fault.RetryAfter)
					}
				}
				time.Sleep(time.Second)
				try(2)
			})
		})
	}
}

func TestAWaiterForTheVaultLeavesOnHisOwnContextAndEndsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		v := fakeVault(func(ctx context.Context) (Secret, *token.Fault) {
			reads.Add(1)
			select {
			case <-time.After(7 * time.Second):
				return Secret{Text: "one"}, nil
			case <-ctx.Done():
				return hang(ctx)
			}
		})
		value := vaultValue(t, v, appURL)
		ask := func(patience time.Duration) (Secret, time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			start := time.Now()
			s, err := value(ctx)
			return s, time.Since(start), err
		}
		var wg sync.WaitGroup
		for _, patience := range []time.Duration{5 * time.Second, 2 * time.Second} { // the first one begins the read
			wg.Go(func() {
				_, took, err := ask(patience)
				mustFault(t, err, token.Unreachable, "did not answer in time")
				if took != patience {
					t.Errorf("left after %v, want %v", took, patience)
				}
			})
			synctest.Wait()
		}
		for range 10 {
			wg.Go(func() {
				if s, took, err := ask(time.Minute); err != nil || s.Text != "one" || took != 7*time.Second {
					t.Errorf("a patient waiter got %v after %v, want the secret after 7s", err, took)
				}
			})
		}
		wg.Wait()
		if n := reads.Load(); n != 1 {
			t.Errorf("%d reads, want one, which outlives the one that began it", n)
		}
	})
}

func TestAReadOfAVaultThatHangsEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		value := vaultValue(t, fakeVault(hang), appURL)
		start := time.Now()
		_, err := value(t.Context()) // which has no end of its own
		mustFault(t, err, token.Unreachable, "did not answer in time")
		if took := time.Since(start); took != vaultReadTime {
			t.Errorf("took %v, want %v", took, vaultReadTime)
		}
		// The failure of a read whose caller left is kept as well.
		time.Sleep(vaultPause)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = value(ctx)
		time.Sleep(vaultReadTime)
		start = time.Now()
		_, err = value(t.Context())
		mustFault(t, err, token.Unreachable, "did not answer in time")
		if took := time.Since(start); took != 0 {
			t.Errorf("after a failure just now it took %v, want an answer at once", took)
		}
	})
}

func TestAFailureOfTheVaultIsSharedByThoseWhoWaitedForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		v := fakeVault(func(context.Context) (Secret, *token.Fault) {
			reads++
			time.Sleep(3 * time.Second)
			return Secret{}, vaultAway
		})
		value := vaultValue(t, v, appURL)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := value(t.Context())
				mustFault(t, err, token.Unavailable, "The vault fails.")
			})
		}
		wg.Wait()
		if reads != 1 {
			t.Errorf("%d reads, want one", reads)
		}
	})
}

func TestASlowVaultDoesNotTakeTheTimeOfAFetchWhileASecretIsAtHand(t *testing.T) {
	for name, c := range map[string]struct {
		fetch, idle time.Duration // 0: no deadline
		reject      bool
		text        string
		took        time.Duration
	}{
		"without a deadline":                       {0, time.Hour, false, "old", vaultPatience},
		"within a fetch":                           {15 * time.Second, time.Hour, false, "old", 3750 * time.Millisecond},
		"within a short fetch":                     {time.Second, time.Hour, false, "old", 250 * time.Millisecond},
		"unless the old one is too old":            {15 * time.Second, 25 * time.Hour, false, "new", 7 * time.Second},
		"unless the old one was rejected":          {15 * time.Second, time.Hour, true, "new", 7 * time.Second},
		"the old one is not read again when new":   {15 * time.Second, time.Minute, false, "old", 0},
		"rejected and new, it is read nonetheless": {15 * time.Second, time.Minute, true, "new", 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var slow atomic.Bool
				v := fakeVault(func(ctx context.Context) (Secret, *token.Fault) {
					if !slow.Load() {
						return Secret{Text: "old"}, nil
					}
					select {
					case <-time.After(7 * time.Second):
						return Secret{Text: "new"}, nil
					case <-ctx.Done():
						return hang(ctx)
					}
				})
				value := vaultValue(t, v, appURL)
				s, _ := value(t.Context())
				slow.Store(true)
				if c.reject {
					s.judged(false)
				}
				time.Sleep(c.idle)
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if c.fetch > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.fetch)
				}
				defer cancel()
				start := time.Now()
				s, err := value(ctx)
				if took := time.Since(start); err != nil || s.Text != c.text || took != c.took {
					t.Errorf("got %q, %v after %v; want %q after %v", s.Text, err, took, c.text, c.took)
				}
				time.Sleep(vaultReadTime) // by then the read has ended
			})
		})
	}
}

func TestAVaultThatHangsDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := NewVault(VaultOptions{})
		var under, most atomic.Int32
		v.read = func(ctx context.Context, ref secretRef) (Secret, *token.Fault) {
			if ref.host != "contoso.vault.azure.net" {
				return Secret{Text: "good"}, nil
			}
			n := under.Add(1)
			defer under.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			return hang(ctx)
		}
		var wg sync.WaitGroup
		start := time.Now()
		for n := range 100 {
			value := vaultValue(t, v, fmt.Sprintf("%s%d", appURL, n))
			wg.Go(func() {
				_, err := value(t.Context())
				mustFault(t, err, token.Unreachable, "in time")
				if took := time.Since(start); took != vaultReadTime {
					t.Errorf("a secret of the vault that hangs took %v, want %v", took, vaultReadTime)
				}
			})
		}
		synctest.Wait()
		s, err := vaultValue(t, v, "https://fabrikam.vault.azure.net/secrets/app")(t.Context())
		if took := time.Since(start); err != nil || s.Text != "good" || took != 0 {
			t.Errorf("the secret of another vault took %v: %v", took, err)
		}
		wg.Wait()
		if m := most.Load(); m != readsOfOneVault {
			t.Errorf("%d reads of one vault at a time, want %d", m, readsOfOneVault)
		}
	})
}

func TestAVaultForgetsWhatNobodyAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := fakeVault(func(context.Context) (Secret, *token.Fault) { return Secret{Text: "one"}, nil })
		used, left := vaultValue(t, v, appURL), vaultValue(t, v, appURL+"2")
		_, _ = left(t.Context())
		_, _ = used(t.Context())
		ref, _ := parseSecretURL(appURL)
		kept := v.entries[ref]
		for range 25 { // no new secret comes up, and none is used without being asked for
			_, _ = used(t.Context())
			time.Sleep(time.Hour)
		}
		_, _ = used(t.Context())
		if len(v.entries) != 1 || v.entries[ref] != kept {
			t.Errorf("%d secrets are kept, want the one in use", len(v.entries))
		}
	})
}
