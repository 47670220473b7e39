package credential

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/zalando/go-keyring"

	"defender-proxy/internal/token"
)

// keyringService is the name under which the keyring lists our keys.
const keyringService = "defender-proxy"

// How long the keyring may take: for the proxy, and while a person is there who
// can unlock it. The libraries below have no bound of their own and wait for ever
// on a dialog that nobody sees.
const (
	patienceForKeyring = 5 * time.Second
	patienceForPeople  = time.Minute
)

// errNoKey says that the keyring works and has no such entry.
var errNoKey = errors.New("the keyring holds no such key")

// keyringGate admits one call at a time. A call that has outlived its patience
// goes on in the background, for nothing can end it; others then fail at once,
// until it ends or it is time for another attempt.
type keyringGate struct {
	turn slot

	mu sync.Mutex
	// given is how many calls were given up and have not ended: each holds two
	// goroutines.
	given int
	// again is when the next attempt may be made; it may be past.
	again time.Time
}

const (
	keyringPause = time.Minute
	// mostGivenUp calls may hang. More attempts are made once one of them has
	// ended, or the process is started anew.
	mostGivenUp = 5
)

var keyringCalls = newKeyringGate()

func newKeyringGate() *keyringGate { return &keyringGate{turn: make(slot, 1)} }

// closed reports whether no call is to be made now.
func (g *keyringGate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.given >= mostGivenUp || time.Now().Before(g.again)
}

// giveUp leaves a call to itself. late says that its patience has ended, and not
// only the wish of its caller.
func (g *keyringGate) giveUp(done <-chan error, late bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.given++
	if late {
		g.again = time.Now().Add(keyringPause)
	}
	go func() {
		<-done
		g.mu.Lock()
		defer g.mu.Unlock()
		g.given--
		g.again = time.Time{}
	}()
}

func getKeyring(ctx context.Context, patience time.Duration, user string) (string, error) {
	// The value comes through a channel: a call that was given up may still end.
	value := make(chan string, 1)
	err := callKeyring(ctx, patience, func() error {
		v, err := keyring.Get(keyringService, user)
		value <- v
		return err
	})
	if err != nil {
		return "", err
	}
	return <-value, nil
}

func setKeyring(ctx context.Context, patience time.Duration, user, secret string) error {
	return callKeyring(ctx, patience, func() error { return keyring.Set(keyringService, user, secret) })
}

// callKeyring calls f, and gives up on it when ctx ends or patience has. Its
// errors are errNoKey and *token.Fault, of kind token.Stopped where ctx was
// cancelled.
func callKeyring(ctx context.Context, patience time.Duration, f func() error) error {
	if !sessionBusKnown() {
		return storeFault("There is no keyring: this user has no session bus (D-Bus).", keyFileRemedy)
	}
	wanted := ctx
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	gaveUp := func() error {
		if errors.Is(wanted.Err(), context.Canceled) {
			return &token.Fault{Kind: token.Stopped, Sentence: "The wait for the keyring of the operating system was interrupted.", Remedy: "Start it again."}
		}
		return &token.Fault{Kind: token.Unavailable,
			Sentence: "The keyring of the operating system did not answer within " + patience.String() + "; it may be locked.",
			Remedy:   "Unlock it. " + keyFileRemedy}
	}
	gate := keyringCalls
	if wanted.Err() != nil || !gate.turn.take(ctx) {
		return gaveUp()
	}
	defer gate.turn.leave()
	if gate.closed() {
		return gaveUp()
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			// go-keyring asserts the types of what the bus answers.
			if p := recover(); p != nil {
				done <- fmt.Errorf("its answer cannot be understood (%T)", p)
			}
		}()
		done <- f()
	}()
	select {
	case err := <-done:
		switch {
		case err == nil:
			return nil
		case errors.Is(err, keyring.ErrNotFound):
			return errNoKey
		}
		return storeFault("The keyring of the operating system cannot be used: "+quoteShort(err.Error())+".", "See that it is there and unlocked. "+keyFileRemedy)
	case <-ctx.Done():
		gate.giveUp(done, wanted.Err() == nil)
		return gaveUp()
	}
}

const keyFileRemedy = "On a machine without a keyring, set key_file: a file for the key, best on another disk than token_store."

// sessionBusKnown reports whether there is a bus to ask. Where there is none, the
// D-Bus library would start dbus-launch, and with it a bus of its own that stays.
// The places are those that the library looks at.
func sessionBusKnown() bool {
	switch runtime.GOOS {
	case "windows", "darwin":
		return true // their keyrings need no bus
	}
	if address := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); address != "" && address != "autolaunch:" {
		return true
	}
	folder := filepath.Join("/run/user", strconv.Itoa(os.Getuid()))
	for _, name := range []string{"bus", "dbus-session"} {
		if _, err := os.Stat(filepath.Join(folder, name)); err == nil {
			return true
		}
	}
	return false
}
