//go:build unix

package credential

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

type fakeInfo struct {
	fs.FileInfo
	sys any
}

func (f fakeInfo) Sys() any { return f.sys }

func TestFilesOfOneselfAndOfRootAreTrusted(t *testing.T) {
	own := uint32(os.Geteuid())
	for _, test := range []struct {
		name string
		sys  any
		want bool
	}{
		{"one's own", &syscall.Stat_t{Uid: own}, true},
		{"root's", &syscall.Stat_t{Uid: 0}, true},
		{"another user's", &syscall.Stat_t{Uid: own + 1}, false},
		{"nobody's", nil, false},
	} {
		if got := trusted(fakeInfo{sys: test.sys}); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// A pipe in the place of a file has nobody at the other end.
func TestPipesInThePlaceOfFilesDoNotHang(t *testing.T) {
	for _, test := range []struct {
		name string
		file func(StoreOptions) string
	}{
		{"store", func(o StoreOptions) string { return o.File }},
		{"key", func(o StoreOptions) string { return o.KeyFile }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, o := filled(t)
			file := test.file(o)
			noError(t, os.Remove(file))
			noError(t, syscall.Mkfifo(file, 0o600))
			wantFault(t, s.Check(), file+" is not a regular file")
			wantFault(t, s.Prepare(t.Context()), file+" is not a regular file")
			wantFault(t, s.Save(storeLogin), file+" is not a regular file")
		})
	}
}

// Only root can make files of other users.
func TestFilesOfOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	const stranger = 65534
	give := func(t *testing.T, path string) { noError(t, os.Lchown(path, stranger, stranger)) }
	for _, test := range []struct {
		name string
		give func(*testing.T, *StoreOptions)
		want string
	}{
		{"the store", func(t *testing.T, o *StoreOptions) { give(t, o.File) }, "The token store {file} belongs to another user"},
		{"the key", func(t *testing.T, o *StoreOptions) { give(t, o.KeyFile) }, "The key file {key} belongs to another user"},
		{"the folder", func(t *testing.T, o *StoreOptions) { give(t, filepath.Dir(o.File)) }, "of the token store belongs to another user"},
		{"the link to the store", func(t *testing.T, o *StoreOptions) {
			link := filepath.Join(filepath.Dir(o.File), "link")
			noError(t, os.Symlink(o.File, link))
			give(t, link)
			o.File = link
		}, "The link {file} to the token store belongs to another user"},
		{"a key in a folder for all", func(t *testing.T, o *StoreOptions) {
			o.KeyFile = filepath.Join(ownFolder(t), "key")
			noError(t, os.WriteFile(o.KeyFile, []byte(newKeyLine()), 0o600))
			noError(t, os.Chmod(filepath.Dir(o.KeyFile), 0o777|os.ModeSticky))
			give(t, o.KeyFile)
		}, "The key file {key} belongs to another user"},
		{"a key in a folder for all, of another user", func(t *testing.T, o *StoreOptions) {
			moved := filepath.Join(ownFolder(t), "key")
			noError(t, os.Rename(o.KeyFile, moved))
			noError(t, os.Chmod(filepath.Dir(moved), 0o777|os.ModeSticky))
			give(t, filepath.Dir(moved))
			o.KeyFile = moved
		}, "of the key file belongs to another user"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, o := filled(t)
			before, err := os.ReadFile(o.File)
			noError(t, err)
			test.give(t, &o)
			want := replaceNames(test.want, o)
			wantFault(t, OpenStore(o).Check(), want)
			wantFault(t, OpenStore(o).Prepare(t.Context()), want)
			wantFault(t, OpenStore(o).Save(Login{RefreshToken: "new"}), want)
			wantFault(t, OpenStore(o).rotate(storeLogin.RefreshToken, "new", again, time.Now()), want)
			if after, err := os.ReadFile(o.File); err != nil || string(after) != string(before) {
				t.Errorf("the store was changed: %v", err)
			}
		})
	}
}
