package credential

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"defender-proxy/internal/token"
)

// wantKind wants a *token.Fault of the kind after just that time.
func wantKind(t *testing.T, what string, err error, kind token.Kind, took, want time.Duration) {
	t.Helper()
	f, ok := errors.AsType[*token.Fault](err)
	if !ok || f.Kind != kind || took != want {
		t.Errorf("%s: got %T %v after %v, want a fault of kind %v after %v", what, err, err, took, kind, want)
	}
}

func TestStoreIsChangedByOneProcessAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := filled(t)
		unlock, err := tryLock(filepath.Join(filepath.Dir(o.File), ".contoso.login.lock"))
		if err != nil || unlock == nil {
			t.Fatalf("got no lock: %v", err)
		}
		newer := Login{RefreshToken: "newer"}
		for what, f := range map[string]func() error{
			"Save":    func() error { return s.Save(newer) },
			"rotate":  func() error { return s.rotate(storeLogin.RefreshToken, "second", again, time.Now()) },
			"Prepare": func() error { return s.Prepare(t.Context()) },
		} {
			begun := time.Now()
			err := f()
			wantKind(t, what, err, token.Unavailable, time.Since(begun), patienceForStore)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun := time.Now()
		err = s.Prepare(ctx)
		wantKind(t, "an interrupted Prepare", err, token.Stopped, time.Since(begun), time.Second)
		// Reading needs no lock.
		if l, err := s.Load(); err != nil || l != storeLogin {
			t.Errorf("got %v, %v, want what was stored", l, err)
		}
		time.AfterFunc(10*time.Second, unlock)
		noError(t, s.Save(newer))
		if l, err := s.Load(); err != nil || l != newer {
			t.Errorf("got %v, %v, want the newer login", l, err)
		}
	})
}

// A disk that hangs holds one reader; the others leave when they have to.
func TestStoreWhoseDiskHangsLetsItsCallersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := filled(t)
		release := make(chan struct{})
		within1s, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := within(within1s, s, func() (int, error) { <-release; return 0, nil })
		wantKind(t, "the reader that hangs", err, token.Unavailable, time.Since(begun), time.Second)
		u, err := User(UserOptions{Flow: FlowDeviceCode, Store: OpenStore(o)})
		noError(t, err)
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			begun := time.Now()
			_, err := u.Proofs(ctx, userAsk)
			wantKind(t, "Proofs", err, token.Unavailable, time.Since(begun), 200*time.Millisecond)
			cancel()
		}
		begun = time.Now()
		err = s.rotate(storeLogin.RefreshToken, "second", again, time.Now())
		wantKind(t, "rotate", err, token.Unavailable, time.Since(begun), patienceForStore)
		begun = time.Now()
		err = s.Check()
		wantKind(t, "Check", err, token.Unavailable, time.Since(begun), patienceForStore)
		close(release)
		synctest.Wait()
		noError(t, s.Check())
	})
}
