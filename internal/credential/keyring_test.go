package credential

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	line, err := keyring.Get("defender-proxy", storeTenant+" "+storeClient)
	noError(t, err)
	if key, ok := parseKey(line); !ok {
		t.Errorf("got a key of %d bytes, want 32", len(key))
	}
	if l, err := OpenStore(o).Load(); err != nil || l != storeLogin {
		t.Errorf("got %v, %v, want what was saved", l, err)
	}
	entries, err := os.ReadDir(filepath.Dir(o.File))
	noError(t, err)
	if len(entries) != 1 {
		t.Errorf("got %v in the folder, want the store alone", entries)
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
		noError(t, s.rotate(storeLogin.RefreshToken, "second", "", time.Now()))
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

func TestKeyringThatHangsIsGivenUp(t *testing.T) {
	withBus(t)
	synctest.Test(t, func(t *testing.T) {
		// The channel is of the bubble, so that waiting for it lets time pass.
		before := keyringBusy
		keyringBusy = make(chan struct{}, 1)
		defer func() { keyringBusy = before }()
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
		// While it hangs, others wait and give up too, without a goroutine each.
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				err := callKeyring(t.Context(), patienceForKeyring, func() error { t.Error("a second call was made"); return nil })
				if err == nil {
					t.Error("got no error behind a keyring that hangs")
				}
			})
		}
		wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun = time.Now()
		if err := callKeyring(ctx, patienceForKeyring, func() error { return nil }); err == nil || time.Since(begun) != 0 {
			t.Errorf("got %v after %v, want an error at once", err, time.Since(begun))
		}
		close(release)
		synctest.Wait()
		if err := callKeyring(t.Context(), patienceForKeyring, func() error { return nil }); err != nil {
			t.Errorf("got %v once it answers again, want none", err)
		}
	})
}

func TestKeyringThatPanicsIsAFault(t *testing.T) {
	withBus(t)
	wantFault(t, callKeyring(t.Context(), patienceForKeyring, func() error { panic("what a bus") }), "cannot be understood")
	noError(t, callKeyring(t.Context(), patienceForKeyring, func() error { return nil }))
}
