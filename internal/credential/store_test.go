package credential

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"defender-proxy/internal/token"
)

const (
	storeTenant = "11111111-1111-1111-1111-111111111111"
	storeClient = "22222222-2222-2222-2222-222222222222"
)

var storeLogin = Login{
	RefreshToken: "0.AXoA-canary-refresh-token-<&>",
	Username:     "ana@contoso.example",
	SignedIn:     time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC),
}

// fileStore is a Store with a key file, in a folder of its own.
func fileStore(t testing.TB) (*Store, StoreOptions) {
	t.Helper()
	dir := t.TempDir()
	o := StoreOptions{
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
		{"a folder in which everybody can write", func(t *testing.T, o *StoreOptions) { noError(t, os.Chmod(filepath.Dir(o.File), 0o777)) }, []string{"Every user", "chmod o-w"}, true},
		{"an empty store", func(t *testing.T, o *StoreOptions) { write(t, o.File, "") }, []string{"{file} is empty"}, false},
		{"a folder in place of the store", func(t *testing.T, o *StoreOptions) {
			noError(t, os.Remove(o.File))
			noError(t, os.Mkdir(o.File, 0o700))
		}, []string{"{file} is not a regular file"}, false},
		{"a store that is far too long", func(t *testing.T, o *StoreOptions) { write(t, o.File, strings.Repeat(" ", maxStore+1)) }, []string{"{file} has more than"}, false},
		{"a store that is something else", func(t *testing.T, o *StoreOptions) { write(t, o.File, "hello") }, []string{"{file} is damaged", "Sign in again"}, false},
		{"null for a store", func(t *testing.T, o *StoreOptions) { write(t, o.File, "null\n") }, []string{"{file} is damaged"}, false},
		{"a store of a later version", func(t *testing.T, o *StoreOptions) { write(t, o.File, `{"version":2}`) }, []string{"{file} has version 2"}, false},
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
		{"the store of another cloud", func(t *testing.T, o *StoreOptions) { o.Cloud = "dod" }, []string{"{file}", `cloud "commercial"`}, false},
		{"store and key in one file", func(t *testing.T, o *StoreOptions) { o.KeyFile = o.File }, []string{"same file {file}"}, false},
		{"no tenant", func(t *testing.T, o *StoreOptions) { o.Tenant = "" }, []string{"no tenant"}, false},
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
				want = append(want, strings.NewReplacer("{file}", o.File, "{key}", o.KeyFile).Replace(w))
			}
			wantFault(t, err, want...)
			wantFault(t, s.Check(), want...)
			if after, _ := os.ReadFile(o.File); !bytes.Equal(before, after) {
				t.Errorf("the store was changed by reading it")
			}
		})
	}
}

// The header says whose the store is; the encryption holds it to that.
func TestStoreWithAnotherTenantWrittenIntoItDoesNotOpen(t *testing.T) {
	_, o := filled(t)
	data, err := os.ReadFile(o.File)
	noError(t, err)
	const other = "33333333-3333-3333-3333-333333333333"
	noError(t, os.WriteFile(o.File, bytes.Replace(data, []byte(storeTenant), []byte(other), 1), 0o600))
	o.Tenant = other
	_, err = OpenStore(o).Load()
	wantFault(t, err, "cannot be decrypted")
}

func TestStoreWithAnyByteChangedIsRefused(t *testing.T) {
	s, o := filled(t)
	data, err := os.ReadFile(o.File)
	noError(t, err)
	check := func(what string, changed []byte) {
		t.Helper()
		noError(t, os.WriteFile(o.File, changed, 0o600))
		l, err := s.Load()
		if err == nil || l != (Login{}) {
			t.Fatalf("%s: got %v and error %v, want a fault", what, l, err)
		}
		wantFault(t, err)
	}
	for i := range data {
		for _, mask := range []byte{1, 0x20, 0x80, 0xff} {
			changed := bytes.Clone(data)
			changed[i] ^= mask
			check(fmt.Sprintf("byte %d xor %#x", i, mask), changed)
		}
		check(fmt.Sprintf("without byte %d", i), append(bytes.Clone(data[:i]), data[i+1:]...))
		check(fmt.Sprintf("cut at %d", i), data[:i])
		check(fmt.Sprintf("space before %d", i), append(append(bytes.Clone(data[:i]), ' '), data[i:]...))
	}
	noError(t, os.WriteFile(o.File, data, 0o600))
	noError(t, s.Check())
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
	s, _ := fileStore(t)
	longest := Login{RefreshToken: strings.Repeat("\x01", maxRefreshToken), Username: strings.Repeat("\x01", maxUsername)}
	err := s.Save(longest)
	if err == nil {
		_, err = s.Load()
	}
	if err != nil && !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
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
		{"to write", 250, func(s *Store) error { return s.Save(storeLogin) }, "cannot be written: "},
		{"to write one day", 250, func(s *Store) error { return s.Prepare(t.Context()) }, "cannot be written: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !modesCount {
				return // Windows has other bounds
			}
			o := o
			o.File = filepath.Join(filepath.Dir(o.File), strings.Repeat("x", test.letters))
			wantFault(t, test.do(OpenStore(o)), "The token store "+o.File, test.want+"file name too long.")
		})
	}
}

func TestPrepareMakesTheKeyAndNoStore(t *testing.T) {
	s, o := fileStore(t)
	noError(t, s.Prepare(t.Context()))
	key, err := os.ReadFile(o.KeyFile)
	noError(t, err)
	entries, err := os.ReadDir(filepath.Dir(o.File))
	noError(t, err)
	if len(entries) != 1 {
		t.Errorf("got %v in the folder, want the key alone", entries)
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

func TestStoreBehindALinkKeepsTheLink(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // links need a privilege there
	}
	s, o := filled(t)
	link := filepath.Join(t.TempDir(), "link")
	noError(t, os.Symlink(o.File, link))
	o.File = link
	linked := OpenStore(o)
	changed := storeLogin
	changed.RefreshToken = "another"
	noError(t, linked.Save(changed))
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	if l, err := s.Load(); err != nil || l.RefreshToken != "another" {
		t.Errorf("got %v, %v behind the link, want the new login", l, err)
	}
}
