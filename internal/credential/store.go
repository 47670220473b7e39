package credential

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"defender-proxy/internal/tenant"
	"defender-proxy/internal/token"
)

// StoreOptions say where a user's sign-in is kept and whose it is.
type StoreOptions struct {
	// File holds the encrypted refresh token. Its folder has to exist.
	File string
	// KeyFile holds the key; empty means the keyring of the operating system.
	KeyFile string
	// Tenant, ClientID and Cloud are bound into the encryption: a store that is
	// copied to another tenant, application or cloud does not open.
	Tenant   tenant.ID
	ClientID string
	Cloud    string
}

// Store keeps one user's refresh token, encrypted with AES-256-GCM under a key
// that is not in the same place. Whoever has both can read it; whoever has the
// file alone cannot read or change it, but could put an older copy back.
//
// Its methods may be called concurrently, also by several Stores of one file
// within the process, which wait for each other. Between processes a file is
// replaced as a whole: a reader sees the old or the new one.
type Store struct {
	o    StoreOptions
	lock *storeLock // shared by all Stores of the file

	mu      sync.Mutex
	ringKey []byte // the keyring's key, once it has opened the file
}

// Format prints the file's name for every verb: the key is in here too.
func (s *Store) Format(f fmt.State, _ rune) { fmt.Fprint(f, "token store "+s.o.File) }

// Login is what signing in brought. Its refresh token is a secret, which no way
// of printing shows.
type Login struct {
	RefreshToken string
	// Username is the user's sign-in name, empty where Entra ID told none.
	Username string
	// SignedIn is when the person signed in, and Rotated when the refresh token
	// was last replaced; zero where it never was.
	SignedIn time.Time
	Rotated  time.Time
}

const hiddenToken = "[redacted]"

// String names the user and hides the token.
func (l Login) String() string {
	return fmt.Sprintf("login of %s (%s)", l.Username, hiddenToken)
}

// Format prints String for every verb.
func (l Login) Format(f fmt.State, _ rune) { fmt.Fprint(f, l.String()) }

// MarshalJSON gives all but the token.
func (l Login) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		RefreshToken string    `json:"refresh_token"`
		Username     string    `json:"username,omitempty"`
		SignedIn     time.Time `json:"signed_in,omitzero"`
		Rotated      time.Time `json:"rotated,omitzero"`
	}{hiddenToken, l.Username, l.SignedIn, l.Rotated})
}

// storeLock is held to change what a file holds.
type storeLock struct {
	sync.Mutex
	// file is held for the moment in which the file is read or replaced: Windows
	// does not replace a file that somebody is reading.
	file sync.RWMutex
}

// storeLocks has the lock of each store file of the process, by absolute path. A
// reload makes new Stores, while fetches of the old ones still end.
var storeLocks sync.Map // string → *storeLock

// OpenStore makes a Store. It touches neither file nor keyring, and checks
// nothing.
func OpenStore(o StoreOptions) *Store {
	path, err := filepath.Abs(o.File)
	if err != nil {
		path = o.File
	}
	lock, _ := storeLocks.LoadOrStore(path, new(storeLock))
	return &Store{o: o, lock: lock.(*storeLock)}
}

// errNotSignedIn says that there is no file yet.
var errNotSignedIn = errors.New("nobody has signed in")

// again is what remedies say where the caller knows no better.
const again = "defender-proxy login TENANT"

// Check tells whether Load would succeed now, and if not why.
func (s *Store) Check() error {
	_, err := s.Load()
	return err
}

// Load reads what is stored. Its errors are *token.Fault: nobody has signed in
// yet, the file or the key cannot be read or are open to others, or the file was
// changed or is another's. It changes nothing.
func (s *Store) Load() (Login, error) {
	l, err := s.load(context.Background(), again)
	if errors.Is(err, errNotSignedIn) {
		err = notSignedIn(string(s.o.Tenant), again)
	}
	return l, err
}

func notSignedIn(tenant, login string) *token.Fault {
	return storeFault("Nobody has signed in for tenant "+tenant+".", "Sign in: "+login)
}

// load is Load with errNotSignedIn where there is no file. login is the command
// that remedies name.
func (s *Store) load(ctx context.Context, login string) (Login, error) {
	if err := s.valid(); err != nil {
		return Login{}, err
	}
	sealed, err := s.readSealed(login)
	if err != nil {
		return Login{}, err
	}
	key, cached, err := s.key(ctx, login)
	if err != nil {
		return Login{}, err
	}
	l, err := s.open(sealed, key, login)
	if err != nil && cached {
		// Another process has signed in and found no key in the keyring.
		s.remember(nil)
		if key, _, err = s.key(ctx, login); err != nil {
			return Login{}, err
		}
		l, err = s.open(sealed, key, login)
	}
	if err != nil {
		return Login{}, err
	}
	if s.o.KeyFile == "" {
		s.remember(key)
	}
	return l, nil
}

// Prepare makes the key if there is none and finds out whether the file could
// be written, so that a person does not sign in for nothing. The keyring gets a
// minute, in which somebody can unlock it. Its errors are those of Save.
func (s *Store) Prepare(ctx context.Context) error {
	if err := s.valid(); err != nil {
		return err
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	if _, err := s.makeKey(ctx, patienceForPeople); err != nil {
		return err
	}
	return tryWrite(s.o.File)
}

// Save replaces what is stored, and makes the key if there is none. Its errors
// are *token.Fault; after one the file is as it was.
func (s *Store) Save(l Login) error {
	if err := s.valid(); err != nil {
		return err
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	key, err := s.makeKey(context.Background(), patienceForKeyring)
	if err != nil {
		return err
	}
	if err := s.write(l, key); err != nil {
		return err
	}
	if s.o.KeyFile == "" {
		s.remember(key)
	}
	return nil
}

// rotate puts a new refresh token in the place of the used one. Where another
// one is stored by now, that stays: it came from a newer sign-in or a
// concurrent fetch, and Entra ID does not revoke the older tokens of one sign-in
// (learn.microsoft.com/entra/identity-platform/refresh-tokens, read 2026-11). A
// store that is gone stays gone: somebody has signed out.
func (s *Store) rotate(used, fresh, username string, now time.Time) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	ctx := context.Background()
	l, err := s.load(ctx, again)
	switch {
	case err != nil:
		return err
	case l.RefreshToken != used || fresh == used:
		return nil
	}
	l.RefreshToken, l.Rotated = fresh, now
	if l.Username == "" {
		l.Username = username
	}
	key, _, err := s.key(ctx, again)
	if err != nil {
		return err
	}
	return s.write(l, key)
}

func (s *Store) write(l Login, key []byte) error {
	sealed, err := s.seal(l, key)
	if err != nil {
		return err
	}
	s.lock.file.Lock()
	defer s.lock.file.Unlock()
	return replaceFile(s.o.File, sealed)
}

func (s *Store) remember(key []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ringKey = key
}

func (s *Store) valid() error {
	var missing []string
	for name, value := range map[string]string{"file": s.o.File, "tenant": string(s.o.Tenant), "client_id": s.o.ClientID} {
		if value == "" {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0:
		return storeFault("The token store has no "+strings.Join(missing, ", ")+".", "Correct the user's credential in the configuration.")
	case filepath.Clean(s.o.File) == filepath.Clean(s.o.KeyFile):
		return storeFault("The token store and its key are the same file "+s.o.File+".", "Give the key a file of its own, best on another disk, or leave key_file out to use the keyring.")
	}
	return nil
}

func storeFault(sentence, remedy string) *token.Fault {
	return &token.Fault{Kind: token.Misconfigured, Sentence: sentence, Remedy: remedy}
}
