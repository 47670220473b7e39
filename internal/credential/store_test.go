package credential

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/token"
)

const (
	// With letters, whose case may differ.
	storeTenant = "1a1a1a1a-bcde-4f1f-8111-1111abcdef11"
	storeClient = "2b2b2b2b-cdef-4a2a-9222-2222fedcba22"
)

var storeLogin = Login{
	RefreshToken: "0.AXoA-canary-refresh-token-<&>",
	Username:     "ana@contoso.example",
	SignedIn:     time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC),
}

// ownFolder is a folder that is closed to others, whatever the umask.
func ownFolder(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir()) // a link on macOS
	noError(t, err)
	noError(t, os.Chmod(dir, 0o700))
	return dir
}

// fileStore is a Store with a key file, in a folder of its own.
func fileStore(t testing.TB) (*Store, StoreOptions) {
	t.Helper()
	dir := ownFolder(t)
	o := StoreOptions{
		Name: "contoso",
		File: filepath.Join(dir, "contoso.login"), KeyFile: filepath.Join(dir, "contoso.key"),
		Tenant: storeTenant, ClientID: storeClient, Cloud: "commercial",
	}
	return OpenStore(o), o
}

// filled is a fileStore that holds storeLogin.
func filled(t testing.TB) (*Store, StoreOptions) {
	t.Helper()
	s, o := fileStore(t)
	noError(t, s.Save(storeLogin))
	return s, o
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantFault wants a *token.Fault of kind Misconfigured with the words.
func wantFault(t testing.TB, err error, words ...string) {
	t.Helper()
	f, ok := errors.AsType[*token.Fault](err)
	if !ok {
		t.Fatalf("got %T %v, want a *token.Fault", err, err)
	}
	if f.Kind != token.Misconfigured {
		t.Errorf("got kind %v, want misconfigured: %v", f.Kind, f)
	}
	if f.Sentence == "" || f.Remedy == "" {
		t.Errorf("got sentence %q and remedy %q, want both", f.Sentence, f.Remedy)
	}
	for _, w := range words {
		if !strings.Contains(f.Error(), w) {
			t.Errorf("got %q, want it to hold %q", f.Error(), w)
		}
	}
}

// replaceNames puts the paths of a store into what a test wants.
func replaceNames(want string, o StoreOptions) string {
	return strings.NewReplacer("{file}", o.File, "{key}", o.KeyFile, "{folder}", filepath.Dir(o.File)).Replace(want)
}

func TestStoreGivesBackWhatWasSaved(t *testing.T) {
	_, o := filled(t)
	got, err := OpenStore(o).Load()
	noError(t, err)
	if got != storeLogin {
		t.Errorf("got %#v with token %q, want %#v", got, got.RefreshToken, storeLogin)
	}
	noError(t, OpenStore(o).Check())
	for _, file := range []string{o.File, o.KeyFile} {
		data, err := os.ReadFile(file)
		noError(t, err)
		if bytes.Contains(data, []byte("canary")) || bytes.Contains(data, []byte("ana@")) {
			t.Errorf("%s holds what was to be encrypted: %q", file, data)
		}
		info, err := os.Stat(file)
		noError(t, err)
		if got := info.Mode().Perm(); modesCount && got != 0o600 {
			t.Errorf("%s has mode %04o, want 0600", file, got)
		}
	}
}

func TestStoreOpenedTouchesNothing(t *testing.T) {
	s, o := fileStore(t)
	wantFault(t, s.Check(), "Nobody has signed in for tenant "+storeTenant, "defender-proxy login")
	entries, err := os.ReadDir(filepath.Dir(o.File))
	noError(t, err)
	if len(entries) != 0 {
		t.Errorf("got %v in the folder, want nothing", entries)
	}
}

func TestStoreRefuses(t *testing.T) {
	if !modesCount {
		t.Log("modes are not looked at here")
	}
	write := func(t *testing.T, path, data string) {
		t.Helper()
		noError(t, os.WriteFile(path, []byte(data), 0o600))
	}
	for _, test := range []struct {
		name  string
		spoil func(*testing.T, *StoreOptions)
		want  []string
		unix  bool
	}{
		{"a store that others can read", func(t *testing.T, o *StoreOptions) { noError(t, os.Chmod(o.File, 0o644)) }, []string{"{file}", "mode 0644", "chmod 600"}, true},
		{"a store that the group can read", func(t *testing.T, o *StoreOptions) { noError(t, os.Chmod(o.File, 0o640)) }, []string{"{file}", "mode 0640"}, true},
		{"a key file that others can read", func(t *testing.T, o *StoreOptions) { noError(t, os.Chmod(o.KeyFile, 0o604)) }, []string{"{key}", "mode 0604"}, true},
		{"a folder in which everybody can write", func(t *testing.T, o *StoreOptions) { noError(t, os.Chmod(filepath.Dir(o.File), 0o777)) }, []string{"Other users", "mode 0777", "chmod go-w {folder}"}, true},
		{"a folder in which the group can write", func(t *testing.T, o *StoreOptions) { noError(t, os.Chmod(filepath.Dir(o.File), 0o770)) }, []string{"Other users", "mode 0770"}, true},
		{"a folder in which everybody can make files", func(t *testing.T, o *StoreOptions) {
			noError(t, os.Chmod(filepath.Dir(o.File), 0o777|os.ModeSticky))
		}, []string{"Other users", "mode 0777"}, true},
		{"a key in a folder in which everybody can write", func(t *testing.T, o *StoreOptions) {
			moved := filepath.Join(filepath.Dir(o.File), "keys", "key")
			noError(t, os.Mkdir(filepath.Dir(moved), 0o700))
			noError(t, os.Rename(o.KeyFile, moved))
			noError(t, os.Chmod(filepath.Dir(moved), 0o777))
			o.KeyFile = moved
		}, []string{"Other users", "of the key file"}, true},
		{"a key file that the group can write", func(t *testing.T, o *StoreOptions) { noError(t, os.Chmod(o.KeyFile, 0o660)) }, []string{"{key}", "mode 0660"}, true},
		{"a link that leads around", func(t *testing.T, o *StoreOptions) {
			noError(t, os.Remove(o.File))
			noError(t, os.Symlink(o.File, o.File))
		}, []string{"{file} is behind too many links"}, true},
		{"an empty store", func(t *testing.T, o *StoreOptions) { write(t, o.File, "") }, []string{"{file} is empty"}, false},
		{"a folder in place of the store", func(t *testing.T, o *StoreOptions) {
			noError(t, os.Remove(o.File))
			noError(t, os.Mkdir(o.File, 0o700))
		}, []string{"{file} is not a regular file"}, false},
		{"a store that is far too long", func(t *testing.T, o *StoreOptions) { write(t, o.File, strings.Repeat(" ", maxStore+1)) }, []string{"{file} has more than"}, false},
		{"a store that is something else", func(t *testing.T, o *StoreOptions) { write(t, o.File, "hello") }, []string{"{file} is not a token store", "Correct token_store", "remove it and sign in again"}, false},
		{"null for a store", func(t *testing.T, o *StoreOptions) { write(t, o.File, "null\n") }, []string{"{file} is not a token store"}, false},
		{"a store that was cut", func(t *testing.T, o *StoreOptions) { write(t, o.File, storeMark) }, []string{"{file} is damaged", "Sign in again"}, false},
		{"a store of a later version", func(t *testing.T, o *StoreOptions) { write(t, o.File, storeMark+`"version":2}`) }, []string{"{file} has version 2"}, false},
		{"a missing key file", func(t *testing.T, o *StoreOptions) { noError(t, os.Remove(o.KeyFile)) }, []string{"{key}", "{file}", "does not exist"}, false},
		{"a key file that is too short", func(t *testing.T, o *StoreOptions) {
			write(t, o.KeyFile, base64.StdEncoding.EncodeToString(make([]byte, 31))+"\n")
		}, []string{"{key} does not hold a key"}, false},
		{"a key file that is too long", func(t *testing.T, o *StoreOptions) {
			write(t, o.KeyFile, base64.StdEncoding.EncodeToString(make([]byte, 33))+"\n")
		}, []string{"{key} does not hold a key"}, false},
		{"a key file with two lines", func(t *testing.T, o *StoreOptions) { write(t, o.KeyFile, newKeyLine()+"\n\n") }, []string{"{key} does not hold a key"}, false},
		{"an empty key file", func(t *testing.T, o *StoreOptions) { write(t, o.KeyFile, "") }, []string{"{key} is empty"}, false},
		{"another key", func(t *testing.T, o *StoreOptions) { write(t, o.KeyFile, newKeyLine()+"\n") }, []string{"{file} cannot be decrypted"}, false},
		{"the store of another tenant", func(t *testing.T, o *StoreOptions) { o.Tenant = "33333333-3333-3333-3333-333333333333" }, []string{"{file}", `tenant "` + storeTenant + `"`}, false},
		{"the store of another application", func(t *testing.T, o *StoreOptions) { o.ClientID = "44444444-4444-4444-4444-444444444444" }, []string{"{file}", `application "` + storeClient + `"`}, false},
		{"the store of another user of the application", func(t *testing.T, o *StoreOptions) { o.Name = "contoso-admin" }, []string{"{file}", `the tenant called "contoso"`}, false},
		{"the store of another cloud", func(t *testing.T, o *StoreOptions) { o.Cloud = "dod" }, []string{"{file}", `cloud "commercial"`}, false},
		{"store and key in one file", func(t *testing.T, o *StoreOptions) { o.KeyFile = o.File }, []string{"same file {file}"}, false},
		{"no tenant", func(t *testing.T, o *StoreOptions) { o.Tenant = "" }, []string{"no tenant"}, false},
		{"no name", func(t *testing.T, o *StoreOptions) { o.Name = "" }, []string{"no name"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.unix && !modesCount {
				return
			}
			_, o := filled(t)
			test.spoil(t, &o)
			before, _ := os.ReadFile(o.File)
			s := OpenStore(o)
			l, err := s.Load()
			if l != (Login{}) {
				t.Errorf("got a login with the error, want none")
			}
			var want []string
			for _, w := range test.want {
				want = append(want, replaceNames(w, o))
			}
			wantFault(t, err, want...)
			wantFault(t, s.Check(), want...)
			if after, _ := os.ReadFile(o.File); !bytes.Equal(before, after) {
				t.Errorf("the store was changed by reading it")
			}
		})
	}
}

func TestStoreSavesNothingThatItCouldNotRead(t *testing.T) {
	for _, test := range []struct {
		name string
		l    Login
		want string
	}{
		{"no refresh token", Login{Username: "ana"}, "no refresh token"},
		{"a refresh token that is too long", Login{RefreshToken: strings.Repeat("x", maxRefreshToken+1)}, "too long"},
		{"a name that is too long", Login{RefreshToken: "x", Username: strings.Repeat("x", maxUsername+1)}, "too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := filled(t)
			wantFault(t, s.Save(test.l), test.want)
			if l, err := s.Load(); err != nil || l != storeLogin {
				t.Errorf("got %v, %v, want what was stored before", l, err)
			}
		})
	}
	t.Run("what becomes too long by its encoding", func(t *testing.T) {
		s, _ := filled(t)
		wantFault(t, s.Save(Login{RefreshToken: strings.Repeat("\x01", maxRefreshToken)}), "too long")
		wantFault(t, s.rotate(storeLogin.RefreshToken, strings.Repeat("\x01", maxRefreshToken), again, time.Now()), "too long")
		if l, err := s.Load(); err != nil || l != storeLogin {
			t.Errorf("got %v, %v, want what was stored before", l, err)
		}
	})
	t.Run("the longest that Entra ID may give is kept", func(t *testing.T) {
		s, _ := fileStore(t)
		noError(t, s.Save(Login{RefreshToken: strings.Repeat("x", maxRefreshToken), Username: strings.Repeat("x", maxUsername)}))
		noError(t, s.Check())
	})
}

func TestStoreInAFolderThatIsNotThere(t *testing.T) {
	_, o := fileStore(t)
	o.File = filepath.Join(filepath.Dir(o.File), "none", "store")
	s := OpenStore(o)
	wantFault(t, s.Save(storeLogin), filepath.Dir(o.File), "Make the folder")
	wantFault(t, s.Prepare(t.Context()), filepath.Dir(o.File), "Make the folder")
}

// A name may have 255 bytes: one that is longer cannot be read, and one that is
// nearly so cannot have a temporary file beside it.
func TestStoreThatTheSystemRefuses(t *testing.T) {
	_, o := filled(t)
	for _, test := range []struct {
		name    string
		letters int
		do      func(*Store) error
		want    string
	}{
		{"to read", 300, func(s *Store) error { return s.Check() }, "cannot be read: "},
		{"to write", 246, func(s *Store) error { return s.Save(storeLogin) }, "cannot be written: "},
		{"to write one day", 246, func(s *Store) error { return s.Prepare(t.Context()) }, "cannot be written: "},
		{"to lock", 254, func(s *Store) error { return s.Save(storeLogin) }, "cannot be locked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !modesCount {
				return // Windows has other bounds
			}
			o := o
			o.File = filepath.Join(filepath.Dir(o.File), strings.Repeat("x", test.letters))
			wantFault(t, test.do(OpenStore(o)), "The token store "+o.File, test.want, ": file name too long.")
		})
	}
}

// inFolder lists the files beside the store.
func inFolder(t *testing.T, o StoreOptions) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(o.File))
	noError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestPrepareMakesTheKeyAndNoStore(t *testing.T) {
	s, o := fileStore(t)
	noError(t, s.Prepare(t.Context()))
	key, err := os.ReadFile(o.KeyFile)
	noError(t, err)
	if got, want := inFolder(t, o), ".contoso.login.lock contoso.key"; got != want {
		t.Errorf("got %s in the folder, want %s", got, want)
	}
	noError(t, s.Prepare(t.Context()))
	noError(t, s.Save(storeLogin))
	if again, _ := os.ReadFile(o.KeyFile); !bytes.Equal(key, again) {
		t.Error("the key was made anew")
	}
}

// A process that was killed between writing and renaming leaves its temporary
// file.
func TestStoreAfterAKilledWriter(t *testing.T) {
	s, o := filled(t)
	dir := filepath.Dir(o.File)
	old := filepath.Join(dir, tempPrefix(o.File)+"1234")
	young := filepath.Join(dir, tempPrefix(o.File)+"5678")
	other := filepath.Join(dir, "contoso.login.bak")
	for _, f := range []string{old, young, other} {
		noError(t, os.WriteFile(f, []byte(`{"version":1,"clo`), 0o600))
	}
	for _, f := range []string{old, other} {
		noError(t, os.Chtimes(f, time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)))
	}
	l, err := s.Load()
	noError(t, err)
	if l != storeLogin {
		t.Errorf("got %v, want what was stored before", l)
	}
	noError(t, s.Save(storeLogin))
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old temporary file is still there: %v", err)
	}
	for _, f := range []string{young, other} {
		if _, err := os.Stat(f); err != nil {
			t.Errorf("%s is gone, and may be somebody's: %v", f, err)
		}
	}
}
