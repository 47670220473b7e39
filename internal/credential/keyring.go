package credential

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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

// keyringBusy admits one call at a time: a keyring that hangs then holds one
// goroutine and not one for each fetch.
var keyringBusy = make(chan struct{}, 1)

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
// errors are errNoKey and *token.Fault.
func callKeyring(ctx context.Context, patience time.Duration, f func() error) error {
	if !sessionBusKnown() {
		return storeFault("There is no keyring: this user has no session bus (D-Bus).", keyFileRemedy)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	gaveUp := func() error {
		return &token.Fault{Kind: token.Unavailable,
			Sentence: "The keyring of the operating system did not answer within " + patience.String() + "; it may be locked.",
			Remedy:   "Unlock it. " + keyFileRemedy}
	}
	busy := keyringBusy
	select {
	case busy <- struct{}{}:
	case <-ctx.Done():
		return gaveUp()
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-busy }()
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
		return gaveUp()
	}
}

const keyFileRemedy = "On a machine without a keyring, set key_file: a file for the key, beside token_store."

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
