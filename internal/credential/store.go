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
	// Name is the tenant's configured name. Two users of one application have two
	// names there, and neither gets the other's rights.
	Name string
	// Name, Tenant, ClientID and Cloud are bound into the encryption: a store that
	// is put in another one's place does not open.
	Tenant   tenant.ID
	ClientID string
	Cloud    string
}

// Store keeps one user's refresh token, encrypted with AES-256-GCM under a key
// that is not in the same place. Whoever has both can read it; whoever has the
// file alone cannot read or change it, but could put an older copy back.
//
// Its methods may be called concurrently, by several Stores of one file and by
// several processes too. Who changes it holds a lock beside the file, which stays
// there, empty; who reads it sees the old or the new one as a whole.
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

// same reports whether it is the very same login.
func (l Login) same(other Login) bool {
	return l.RefreshToken == other.RefreshToken && l.Username == other.Username &&
		l.SignedIn.Equal(other.SignedIn) && l.Rotated.Equal(other.Rotated)
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

// OpenStore makes a Store. It touches neither file nor keyring, and checks
// nothing.
func OpenStore(o StoreOptions) *Store {
	path, err := filepath.Abs(o.File)
	if err != nil {
		path = o.File
	}
	lock, _ := storeLocks.LoadOrStore(path, newStoreLock())
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
	ctx, cancel := context.WithTimeout(context.Background(), patienceForStore)
	defer cancel()
	l, err := s.load(ctx, again)
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
	sealed, err := within(ctx, s, func() (sealedStore, error) { return s.readSealed(login) })
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
// minute, in which somebody can unlock it. Its errors are those of Save, and one
// of kind token.Stopped when ctx is cancelled.
func (s *Store) Prepare(ctx context.Context) error {
	if err := s.valid(); err != nil {
		return err
	}
	if s.o.KeyFile == "" {
		// Before the lock is taken: a proxy that runs may need that meanwhile.
		if _, err := s.keyFromRing(ctx, patienceForPeople); err != nil && !errors.Is(err, errNoKey) {
			return err
		}
	}
	return s.change(ctx, func() error {
		if _, err := s.makeKey(ctx, patienceForPeople); err != nil {
			return err
		}
		return tryWrite(s.o.File)
	})
}

// Save replaces what is stored, makes the key if there is none, and reads back
// what it has written. It replaces no file that is not a token store. Its errors
// are *token.Fault; after one the file is as it was, unless the fault says that
// something else was found in it.
func (s *Store) Save(l Login) error {
	if err := s.valid(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patienceForStore)
	defer cancel()
	return s.change(ctx, func() error {
		key, err := s.makeKey(ctx, patienceForKeyring)
		if err != nil {
			return err
		}
		if err := s.write(ctx, l, key); err != nil {
			return err
		}
		if s.o.KeyFile == "" {
			s.remember(key)
		}
		stored, err := s.load(ctx, again)
		if err == nil && !stored.same(l) || errors.Is(err, errNotSignedIn) {
			err = storeFault("The token store "+s.o.File+" does not hold what was just written to it: something else writes there too.", "Stop what that is, and sign in again.")
		}
		return err
	})
}

// rotate puts a new refresh token in the place of the used one. Where another
// one is stored by now, that stays: it came from a newer sign-in or a
// concurrent fetch, and Entra ID does not revoke the older tokens of one sign-in
// (learn.microsoft.com/entra/identity-platform/refresh-tokens, read 2026-11). A
// store that is gone stays gone: somebody has signed out.
func (s *Store) rotate(used, fresh, login string, now time.Time) error {
	ctx, cancel := context.WithTimeout(context.Background(), patienceForStore)
	defer cancel()
	return s.change(ctx, func() error {
		l, err := s.load(ctx, login)
		if err != nil || l.RefreshToken != used || fresh == used {
			return err
		}
		l.RefreshToken, l.Rotated = fresh, now
		key, _, err := s.key(ctx, login)
		if err != nil {
			return err
		}
		return s.write(ctx, l, key)
	})
}

func (s *Store) write(ctx context.Context, l Login, key []byte) error {
	sealed, err := s.seal(l, key)
	if err != nil {
		return err
	}
	if !s.lock.file.take(ctx) {
		return s.waited(ctx)
	}
	defer s.lock.file.leave()
	return replaceFile(s.o.File, sealed)
}

func (s *Store) remember(key []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ringKey = key
}

func (s *Store) valid() error {
	var missing []string
	for _, one := range [][2]string{{"file", s.o.File}, {"name", s.o.Name}, {"tenant", string(s.o.Tenant)}, {"client_id", s.o.ClientID}} {
		if one[1] == "" {
			missing = append(missing, one[0])
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
