package credential

import (
	"context"
	"strings"
	"sync"
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

func TestAVaultsSecretIsKeptAndRenewedByItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, down, reads := "one", false, 0
		v := fakeVault(func(context.Context) (Secret, *token.Fault) {
			reads++
			if down {
				return Secret{}, &token.Fault{Kind: token.Unavailable, Sentence: "The vault fails.", Remedy: "Wait."}
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
		time.Sleep(30 * time.Second)
		want("within a minute of the failure", "three", 6)
		time.Sleep(31 * time.Second)
		want("a minute after the failure", "three", 7)
		time.Sleep(24*time.Hour - 17*time.Minute)
		want("before the day is over", "three", 8)
		time.Sleep(5 * time.Minute)
		_, err := c.Proofs(t.Context(), testAsk)
		mustFault(t, err, token.Unavailable, "The vault fails.")
		down, text = false, "four"
		want("when it is back", "four", 10)
		if n := c.Health().Notice; n != "" {
			t.Errorf("the notice stays: %q", n)
		}
	})
}

func TestAVaultsSecretIsNotUsedPastItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads, down := 0, false
		v := fakeVault(func(context.Context) (Secret, *token.Fault) {
			if reads++; down {
				return Secret{}, &token.Fault{Kind: token.Unreachable, Sentence: "The vault is away.", Remedy: "Wait."}
			}
			return Secret{Text: "one", Expires: time.Now().Add(time.Minute).Truncate(0)}, nil
		})
		value := vaultValue(t, v, appURL)
		if _, err := value(t.Context()); err != nil {
			t.Fatal(err)
		}
		down = true
		time.Sleep(time.Minute)
		_, err := value(t.Context())
		mustFault(t, err, token.Unreachable, "The vault is away.")
		if reads != 2 {
			t.Errorf("%d reads, want a second one when the first secret had ended", reads)
		}
	})
}

func TestAWaiterForTheVaultLeavesOnHisOwnContextAndEndsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		v := fakeVault(func(ctx context.Context) (Secret, *token.Fault) {
			reads++
			select {
			case <-time.After(20 * time.Second):
				return Secret{Text: "one"}, nil
			case <-ctx.Done():
				return Secret{}, vaultTimeout(secretRef{host: "contoso.vault.azure.net"})
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
		wg.Go(func() { // reads first, and leaves first
			_, took, err := ask(5 * time.Second)
			mustFault(t, err, token.Unreachable, "did not answer in time")
			if took != 5*time.Second {
				t.Errorf("the reader left after %v, want 5s", took)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			_, took, err := ask(2 * time.Second)
			mustFault(t, err, token.Unreachable, "did not answer in time")
			if took != 2*time.Second {
				t.Errorf("the waiter left after %v, want 2s", took)
			}
		})
		for range 10 {
			wg.Go(func() {
				if s, took, err := ask(time.Minute); err != nil || s.Text != "one" || took != 25*time.Second {
					t.Errorf("a patient waiter got %v after %v, want the secret after 25s", err, took)
				}
			})
		}
		wg.Wait()
		if reads != 2 {
			t.Errorf("%d reads, want two: of the one that left and of the next", reads)
		}
	})
}

func TestAFailureOfTheVaultIsSharedByThoseWhoWaitedForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		v := fakeVault(func(context.Context) (Secret, *token.Fault) {
			reads++
			time.Sleep(3 * time.Second)
			return Secret{}, &token.Fault{Kind: token.Unavailable, Sentence: "The vault fails.", Remedy: "Wait."}
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
	synctest.Test(t, func(t *testing.T) {
		slow := false
		v := fakeVault(func(ctx context.Context) (Secret, *token.Fault) {
			if slow {
				<-ctx.Done()
				return Secret{}, vaultTimeout(secretRef{host: "contoso.vault.azure.net"})
			}
			return Secret{Text: "one"}, nil
		})
		value := vaultValue(t, v, appURL)
		_, _ = value(t.Context())
		slow = true
		time.Sleep(time.Hour)
		start := time.Now()
		s, err := value(t.Context())
		if err != nil || s.Text != "one" || time.Since(start) != vaultPatience {
			t.Errorf("got %v after %v, want the old secret after %v", err, time.Since(start), vaultPatience)
		}
	})
}

func TestAVaultForgetsWhatNobodyAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := fakeVault(func(context.Context) (Secret, *token.Fault) { return Secret{Text: "one"}, nil })
		_, _ = vaultValue(t, v, appURL)(t.Context())
		time.Sleep(25 * time.Hour)
		_, _ = vaultValue(t, v, appURL+"2")(t.Context())
		if n := len(v.entries); n != 1 {
			t.Errorf("%d secrets are kept, want one", n)
		}
	})
}
