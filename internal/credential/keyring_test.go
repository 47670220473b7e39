package credential

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zalando/go-keyring"

	"defender-proxy/internal/token"
)

// withBus lets the code believe that there is a session bus; what is asked then
// is the library's mock.
func withBus(t *testing.T) {
	t.Helper()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
}

func ringStore(t *testing.T) (*Store, StoreOptions) {
	t.Helper()
	_, o := fileStore(t)
	o.KeyFile = ""
	return OpenStore(o), o
}

func TestStoreWithTheKeyInTheKeyring(t *testing.T) {
	withBus(t)
	keyring.MockInit()
	s, o := ringStore(t)
	noError(t, s.Save(storeLogin))
	line, err := keyring.Get("defender-proxy", storeTenant+" "+storeClient+" contoso")
	noError(t, err)
	if key, ok := parseKey(line); !ok {
		t.Errorf("got a key of %d bytes, want 32", len(key))
	}
	if l, err := OpenStore(o).Load(); err != nil || l != storeLogin {
		t.Errorf("got %v, %v, want what was saved", l, err)
	}
	if got, want := inFolder(t, o), ".contoso.login.lock contoso.login"; got != want {
		t.Errorf("got %s in the folder, want %s", got, want)
	}

	t.Run("the key stays for the next sign-in", func(t *testing.T) {
		noError(t, OpenStore(o).Save(storeLogin))
		if again, _ := keyring.Get(keyringService, s.keyringUser()); again != line {
			t.Error("the key was made anew")
		}
	})
	t.Run("a key that was replaced by another process is found", func(t *testing.T) {
		noError(t, s.Check()) // remembers the key
		noError(t, keyring.Delete(keyringService, s.keyringUser()))
		noError(t, OpenStore(o).Save(storeLogin)) // makes another one
		if l, err := s.Load(); err != nil || l != storeLogin {
			t.Errorf("got %v, %v, want what was saved", l, err)
		}
	})
	t.Run("a running proxy goes on when the keyring is locked", func(t *testing.T) {
		keyring.MockInitWithError(errors.New("locked"))
		noError(t, s.Check())
		noError(t, s.rotate(storeLogin.RefreshToken, "second", again, time.Now()))
		if l, err := s.Load(); err != nil || l.RefreshToken != "second" {
			t.Errorf("got %v, %v, want the second token", l, err)
		}
		_, err := OpenStore(o).Load()
		wantFault(t, err, "keyring", `"locked"`, "key_file")
	})
	t.Run("an entry that is no key", func(t *testing.T) {
		keyring.MockInit()
		noError(t, keyring.Set(keyringService, s.keyringUser(), "canary"))
		_, err := OpenStore(o).Load()
		wantFault(t, err, "not a key", "Remove that entry")
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("got %q, want nothing of the entry", err)
		}
	})
	t.Run("a keyring without the key", func(t *testing.T) {
		keyring.MockInit()
		_, err := OpenStore(o).Load()
		wantFault(t, err, "The keyring holds no key", "Sign in again")
	})
}

func TestWithoutASessionBusNoKeyringIsAsked(t *testing.T) {
	if !sessionBusKnownDependsOnEnvironment() {
		return
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	if sessionBusKnown() {
		return // this user has a bus at its usual place
	}
	keyring.MockInit()
	s, _ := ringStore(t)
	wantFault(t, s.Save(storeLogin), "no keyring", "set key_file")
	wantFault(t, s.Prepare(t.Context()), "no keyring", "set key_file")
}

func sessionBusKnownDependsOnEnvironment() bool { return modesCount && os.PathSeparator == '/' }

// ownGate gives the bubble a gate of its own, so that waiting for it lets time
// pass.
func ownGate(t *testing.T) {
	before := keyringCalls
	keyringCalls = newKeyringGate()
	t.Cleanup(func() { keyringCalls = before })
}

func TestKeyringThatHangsIsGivenUp(t *testing.T) {
	withBus(t)
	synctest.Test(t, func(t *testing.T) {
		ownGate(t)
		release := make(chan struct{})
		begun := time.Now()
		err := callKeyring(t.Context(), patienceForKeyring, func() error { <-release; return nil })
		f, ok := errors.AsType[*token.Fault](err)
		if !ok || f.Kind != token.Unavailable || !strings.Contains(f.Error(), "did not answer within 5s") || !strings.Contains(f.Remedy, "key_file") {
			t.Errorf("got %v, want an unavailable keyring", err)
		}
		if took := time.Since(begun); took != patienceForKeyring {
			t.Errorf("it took %v, want 5s", took)
		}
		// While it hangs, others fail at once, without a goroutine each.
		begun = time.Now()
		for range 50 {
			err := callKeyring(t.Context(), patienceForKeyring, func() error { t.Error("a second call was made"); return nil })
			if f, ok := errors.AsType[*token.Fault](err); !ok || f.Kind != token.Unavailable {
				t.Errorf("got %v behind a keyring that hangs, want an unavailable keyring", err)
			}
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("they took %v, want no time", took)
		}
		close(release)
		synctest.Wait()
		if err := callKeyring(t.Context(), patienceForKeyring, func() error { return nil }); err != nil {
			t.Errorf("got %v once it answers again, want none", err)
		}
	})
}

func TestKeyringIsAskedAgainAfterAMinute(t *testing.T) {
	withBus(t)
	synctest.Test(t, func(t *testing.T) {
		ownGate(t)
		release := make(chan struct{})
		hang := func() error { <-release; return nil }
		if callKeyring(t.Context(), patienceForKeyring, hang) == nil {
			t.Fatal("got no error of a keyring that hangs")
		}
		time.Sleep(keyringPause)
		begun := time.Now()
		for range 1000 {
			if err := callKeyring(t.Context(), patienceForKeyring, func() error { return nil }); err != nil {
				t.Fatalf("got %v a minute later, want a new attempt", err)
			}
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("they took %v, want no time", took)
		}
		// It may hang a few times more, and not for ever.
		var attempts atomic.Int32
		attempts.Add(1)
		for range 20 {
			_ = callKeyring(t.Context(), patienceForKeyring, func() error { attempts.Add(1); return hang() })
			time.Sleep(keyringPause)
		}
		if got := attempts.Load(); got != mostGivenUp {
			t.Errorf("got %d attempts that hang, want %d", got, mostGivenUp)
		}
		close(release)
		synctest.Wait()
		if err := callKeyring(t.Context(), patienceForKeyring, func() error { return nil }); err != nil {
			t.Errorf("got %v once they have ended, want none", err)
		}
	})
}

func TestKeyringThatIsInterruptedSaysSo(t *testing.T) {
	withBus(t)
	synctest.Test(t, func(t *testing.T) {
		ownGate(t)
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun := time.Now()
		err := callKeyring(ctx, patienceForPeople, func() error { <-release; return nil })
		if f, ok := errors.AsType[*token.Fault](err); !ok || f.Kind != token.Stopped || time.Since(begun) != time.Second {
			t.Errorf("got %v after %v, want an interrupted wait after 1s", err, time.Since(begun))
		}
		// It has not outlived its patience: others may ask.
		if err := callKeyring(t.Context(), patienceForKeyring, func() error { return nil }); err != nil {
			t.Errorf("got %v, want none", err)
		}
		err = callKeyring(ctx, patienceForKeyring, func() error { t.Error("a call was made"); return nil })
		if f, ok := errors.AsType[*token.Fault](err); !ok || f.Kind != token.Stopped {
			t.Errorf("got %v for a context that has ended, want an interrupted wait", err)
		}
		close(release)
	})
}

func TestKeyringThatPanicsIsAFault(t *testing.T) {
	withBus(t)
	wantFault(t, callKeyring(t.Context(), patienceForKeyring, func() error { panic("what a bus") }), "cannot be understood")
	noError(t, callKeyring(t.Context(), patienceForKeyring, func() error { return nil }))
}
