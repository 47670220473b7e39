//go:build keyring

package credential

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/zalando/go-keyring"
)

// These tests ask the keyring of this system. On Linux that needs a session bus
// with a Secret Service: make keyring starts both.

func TestKeyringOfTheSystemKeepsTheKey(t *testing.T) {
	o := StoreOptions{
		File: filepath.Join(ownFolder(t), "contoso.login"), Name: "contoso", Tenant: storeTenant,
		ClientID: "a-test-of-defender-proxy", Cloud: "commercial",
	}
	s := OpenStore(o)
	t.Cleanup(func() {
		_ = keyring.Delete(keyringService, s.keyringUser())
		// The library keeps its connection, and a goroutine with it.
		if runtime.GOOS == "linux" {
			if bus, err := dbus.SessionBus(); err == nil {
				bus.Close()
			}
		}
	})
	noError(t, s.Prepare(t.Context()))
	noError(t, s.Save(storeLogin))
	for range 3 {
		if l, err := OpenStore(o).Load(); err != nil || l != storeLogin {
			t.Fatalf("got %v, %v, want what was saved", l, err)
		}
	}
	line, err := keyring.Get(keyringService, s.keyringUser())
	noError(t, err)
	if _, ok := parseKey(line); !ok {
		t.Error("what the keyring holds is no key")
	}
	data, err := os.ReadFile(o.File)
	noError(t, err)
	noError(t, keyring.Delete(keyringService, s.keyringUser()))
	_, err = OpenStore(o).Load()
	wantFault(t, err, "The keyring holds no key")
	if after, _ := os.ReadFile(o.File); string(after) != string(data) {
		t.Error("the store was changed by reading it")
	}
	// The next sign-in makes another key.
	noError(t, OpenStore(o).Save(storeLogin))
	noError(t, OpenStore(o).Check())
	noError(t, s.Check()) // and the old Store finds it
}
