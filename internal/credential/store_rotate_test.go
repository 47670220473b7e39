package credential

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

func TestRotateKeepsTheNewestLogin(t *testing.T) {
	now := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	s, _ := filled(t)
	noError(t, s.rotate(storeLogin.RefreshToken, "second", again, now))
	l, err := s.Load()
	noError(t, err)
	if l.RefreshToken != "second" || l.Rotated != now || l.SignedIn != storeLogin.SignedIn || l.Username != storeLogin.Username {
		t.Errorf("got token %q of %+v, want the second one", l.RefreshToken, storedLogin(l))
	}
	noError(t, s.rotate(storeLogin.RefreshToken, "late", again, now)) // a concurrent fetch with the first
	if l, err = s.Load(); err != nil || l.RefreshToken != "second" {
		t.Errorf("got %q, %v, want the second one still", l.RefreshToken, err)
	}
}

func TestRotateDoesNotBringBackARemovedStore(t *testing.T) {
	s, o := filled(t)
	noError(t, os.Remove(o.File))
	if err := s.rotate(storeLogin.RefreshToken, "second", again, time.Now()); !errors.Is(err, errNotSignedIn) {
		t.Errorf("got %v, want errNotSignedIn", err)
	}
	if _, err := os.Stat(o.File); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store is back: %v", err)
	}
}

// A thousand answers come at once, while a person signs in anew: from then on
// the file holds that sign-in, and at every moment it opens.
func TestThousandRotationsOfOneStore(t *testing.T) {
	s, o := filled(t)
	stop, reading := make(chan struct{}), sync.WaitGroup{}
	reading.Go(func() {
		for {
			if _, err := OpenStore(o).Load(); err != nil {
				t.Errorf("a reader got %v", err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	newer := Login{RefreshToken: "newer", Username: "ana@contoso.example", SignedIn: storeLogin.SignedIn.Add(time.Hour)}
	var writing sync.WaitGroup
	for i := range 1000 {
		writing.Go(func() {
			if err := OpenStore(o).rotate(storeLogin.RefreshToken, fmt.Sprint("rotated ", i), again, time.Now()); err != nil {
				t.Errorf("rotation %d: %v", i, err)
			}
		})
		if i == 500 {
			writing.Go(func() {
				if err := OpenStore(o).Save(newer); err != nil {
					t.Error(err)
				}
			})
		}
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	l, err := s.Load()
	noError(t, err)
	if l != newer {
		t.Errorf("got %q, want the newer sign-in", l.RefreshToken)
	}
}

// A chain of rotations loses no link, whoever makes them.
func TestRotationsInARow(t *testing.T) {
	_, o := filled(t)
	used := storeLogin.RefreshToken
	for i := range 100 {
		fresh := fmt.Sprint("link ", i)
		noError(t, OpenStore(o).rotate(used, fresh, again, time.Now()))
		used = fresh
	}
	l, err := OpenStore(o).Load()
	noError(t, err)
	if l.RefreshToken != used {
		t.Errorf("got %q, want %q", l.RefreshToken, used)
	}
	if got, want := inFolder(t, o), ".contoso.login.lock contoso.key contoso.login"; got != want {
		t.Errorf("got %s in the folder, want %s", got, want)
	}
}
