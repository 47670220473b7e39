package credential

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestStoreReplacesOnlyATokenStore(t *testing.T) {
	for _, test := range []struct{ name, data string }{
		{"a configuration", "tenants: [] # named by mistake\n"},
		{"a key", newKeyLine() + "\n"},
		{"an empty file", ""},
		{"other JSON", `{"version":1,"sealed":"AAAA"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, o := fileStore(t)
			noError(t, os.WriteFile(o.File, []byte(test.data), 0o600))
			wantFault(t, s.Prepare(t.Context()), o.File+" is not a token store", "Correct token_store")
			wantFault(t, s.Save(storeLogin), o.File+" is not a token store", "Correct token_store")
			if got, err := os.ReadFile(o.File); err != nil || string(got) != test.data {
				t.Errorf("got %q, %v, want what was there", got, err)
			}
		})
	}
	t.Run("a damaged store may go", func(t *testing.T) {
		s, o := filled(t)
		noError(t, os.WriteFile(o.File, []byte(storeMark+`"version":1`), 0o644))
		noError(t, s.Prepare(t.Context()))
		noError(t, s.Save(storeLogin))
		noError(t, s.Check())
	})
	t.Run("a store of another tenant may go", func(t *testing.T) {
		_, o := filled(t)
		o.Name = "fabrikam"
		noError(t, OpenStore(o).Save(storeLogin))
		noError(t, OpenStore(o).Check())
	})
}

func TestWritesThatFailLeaveNothingBehind(t *testing.T) {
	dir := ownFolder(t)
	full := filepath.Join(dir, "full")
	noError(t, os.MkdirAll(filepath.Join(full, "x"), 0o700))
	wantFault(t, putFile(full, []byte("new")), "cannot be written")
	key := filepath.Join(dir, "key")
	noError(t, os.WriteFile(key, []byte("first\n"), 0o600))
	noError(t, createKeyFile(key, "second"))
	if got, err := os.ReadFile(key); err != nil || string(got) != "first\n" {
		t.Errorf("got key %q, %v, want the first one", got, err)
	}
	if got := inFolder(t, StoreOptions{File: key}); got != "full key" {
		t.Errorf("got %s in the folder, want no temporary file", got)
	}
}

// otherProcess is a Store as another process would have it: nothing is shared
// with it but the files.
func otherProcess(o StoreOptions) *Store { return &Store{o: o, lock: newStoreLock()} }

// Whoever comes first makes the key; nobody reads half of one.
func TestStoresWithOneNewKeyFile(t *testing.T) {
	for range 50 {
		_, o := fileStore(t)
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b", "c"} {
			o.File = filepath.Join(filepath.Dir(o.KeyFile), name)
			s := otherProcess(o)
			wg.Go(func() {
				if err := s.Save(storeLogin); err != nil {
					t.Error(err)
				}
				if err := s.Check(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// The new sign-in of one process survives what another one has under way.
func TestRotationLosesNoSignInOfAnotherProcess(t *testing.T) {
	s, o := filled(t)
	for i := range 100 {
		noError(t, s.Save(storeLogin))
		newer := Login{RefreshToken: "newer", SignedIn: storeLogin.SignedIn.Add(time.Hour)}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.rotate(storeLogin.RefreshToken, "rotated", again, time.Now()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := otherProcess(o).Save(newer); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if l, err := s.Load(); err != nil || l != newer {
			t.Fatalf("round %d: got %q, %v, want the newer sign-in", i, l.RefreshToken, err)
		}
	}
}

// What does not hold to the lock is at least found out.
func TestSaveTellsThatSomethingElseWasStored(t *testing.T) {
	s, o := filled(t)
	key, _, err := s.key(t.Context(), again)
	noError(t, err)
	other, err := s.seal(Login{RefreshToken: "another"}, key)
	noError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for ctx.Err() == nil {
			_ = putFile(o.File, other)
		}
	})
	defer writing.Wait()
	defer cancel()
	found := func() bool { return err != nil && strings.Contains(err.Error(), "does not hold what was just written") }
	for end := time.Now().Add(time.Minute); !found() && time.Now().Before(end); {
		err = s.Save(storeLogin)
	}
	wantFault(t, err, o.File+" does not hold what was just written")
}

func TestStoreBehindALinkKeepsTheLink(t *testing.T) {
	if !modesCount {
		return // links need a privilege on Windows
	}
	for _, test := range []struct {
		name string
		in   func(t *testing.T, file string) string
	}{
		{"of a full path", func(t *testing.T, file string) string {
			link := filepath.Join(ownFolder(t), "link")
			noError(t, os.Symlink(file, link))
			return link
		}},
		{"of a path from its folder", func(t *testing.T, file string) string {
			noError(t, os.Mkdir(filepath.Join(filepath.Dir(file), "links"), 0o700))
			link := filepath.Join(filepath.Dir(file), "links", "link")
			noError(t, os.Symlink(filepath.Join("..", filepath.Base(file)), link))
			return link
		}},
		{"to a link, in a linked folder", func(t *testing.T, file string) string {
			dir := ownFolder(t)
			noError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
			noError(t, os.Symlink("real", filepath.Join(dir, "linked")))
			noError(t, os.Symlink(file, filepath.Join(dir, "second")))
			noError(t, os.Symlink(filepath.Join("..", "second"), filepath.Join(dir, "real", "first")))
			return filepath.Join(dir, "linked", "first")
		}},
	} {
		t.Run("a link "+test.name, func(t *testing.T) {
			s, o := fileStore(t)
			linked := o
			linked.File = test.in(t, o.File)
			noError(t, OpenStore(linked).Save(storeLogin)) // its target is not there yet
			noError(t, OpenStore(linked).rotate(storeLogin.RefreshToken, "second", again, time.Now()))
			if info, err := os.Lstat(linked.File); err != nil || info.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link was replaced: %v, %v", info, err)
			}
			if l, err := s.Load(); err != nil || l.RefreshToken != "second" {
				t.Errorf("got %v, %v behind the link, want the new login", l, err)
			}
			// Both ways lead to one lock between processes.
			if got, want := inFolder(t, o), ".contoso.login.lock contoso.key contoso.login"; !strings.HasPrefix(got, want) {
				t.Errorf("got %s in the folder, want %s", got, want)
			}
		})
	}
}

func TestKeyFileBehindALinkIsMadeWhereItLeads(t *testing.T) {
	if !modesCount {
		return
	}
	_, o := fileStore(t)
	target := filepath.Join(ownFolder(t), "key")
	noError(t, os.Symlink(target, o.KeyFile))
	noError(t, OpenStore(o).Prepare(t.Context()))
	noError(t, OpenStore(o).Save(storeLogin))
	if info, err := os.Lstat(target); err != nil || !info.Mode().IsRegular() {
		t.Errorf("got %v, %v, want a key there", info, err)
	}
}

func TestStoreBehindALinkThatOthersMayReplaceIsRefused(t *testing.T) {
	if !modesCount {
		return
	}
	_, o := filled(t)
	dir := ownFolder(t)
	link := filepath.Join(dir, "link")
	noError(t, os.Symlink(o.File, link))
	o.File = link
	noError(t, OpenStore(o).Check())
	for _, mode := range []os.FileMode{0o777, 0o770, 0o777 | os.ModeSticky} {
		noError(t, os.Chmod(dir, mode))
		wantFault(t, OpenStore(o).Check(), "Other users of this machine can write to the folder "+dir)
		wantFault(t, OpenStore(o).Save(storeLogin), "Other users of this machine can write to the folder "+dir)
		wantFault(t, OpenStore(o).Prepare(t.Context()), "Other users of this machine can write to the folder "+dir)
	}
}

// Kubernetes mounts a secret in a folder of mode 1777, and with fsGroup the group
// may read it. A key is made only where nobody else could be first.
func TestKeyFileAsKubernetesMountsIt(t *testing.T) {
	if !modesCount {
		return
	}
	_, o := fileStore(t)
	mount := ownFolder(t)
	noError(t, os.Mkdir(filepath.Join(mount, "..2026_11_02"), 0o755))
	noError(t, os.WriteFile(filepath.Join(mount, "..2026_11_02", "key"), []byte(newKeyLine()), 0o440))
	noError(t, os.Symlink("..2026_11_02", filepath.Join(mount, "..data")))
	noError(t, os.Symlink(filepath.Join("..data", "key"), filepath.Join(mount, "key")))
	noError(t, os.Chmod(mount, 0o777|os.ModeSticky))
	o.KeyFile = filepath.Join(mount, "key")
	noError(t, OpenStore(o).Save(storeLogin))
	noError(t, OpenStore(o).Check())
	o.KeyFile = filepath.Join(mount, "another")
	wantFault(t, OpenStore(o).Save(storeLogin), "Other users of this machine can write to the folder "+mount+" of the key file")
}
