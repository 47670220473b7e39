package simulator

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// arcVersions are the api-versions of the agent of Azure Arc. Its endpoint has
// the path of a virtual machine's.
var arcVersions = []string{"2019-11-01", "2020-06-01", "2021-02-01"}

// arcAgent hands out tokens to whoever can read the files it writes
// (learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication).
type arcAgent struct {
	dir string

	mu   sync.Mutex
	keys bounded[string] // file name → key, each for one use
}

// maxArcKeys bounds the keys that wait for their use, and with them the files.
const maxArcKeys = 100

func newArcAgent(dir string) *arcAgent {
	return &arcAgent{dir: dir, keys: newBounded[string](maxArcKeys)}
}

// challenge writes a key to a new file and names it.
func (a *arcAgent) challenge() (file string, err error) {
	if err := os.MkdirAll(a.dir, 0o755); err != nil {
		return "", fmt.Errorf("simulator: make the directory of Azure Arc's keys: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.keys.rows) >= maxArcKeys && len(a.keys.order) > 0 {
		a.drop(a.keys.order[0])
	}
	file, key := filepath.Join(a.dir, uuid.NewString()+".key"), opaque("", 48)
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		return "", fmt.Errorf("simulator: write a key of Azure Arc: %w", err)
	}
	a.keys.add(file, key)
	return file, nil
}

// drop forgets a key and its file. The caller holds mu.
func (a *arcAgent) drop(file string) {
	os.Remove(file)
	delete(a.keys.rows, file)
	if len(a.keys.order) > 0 && a.keys.order[0] == file {
		a.keys.order = a.keys.order[1:]
	}
}

// use takes a key that somebody read from its file.
func (a *arcAgent) use(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for file, k := range a.keys.rows {
		if subtle.ConstantTimeCompare([]byte(k), []byte(key)) == 1 {
			a.drop(file)
			return true
		}
	}
	return false
}

// close removes the files that are left.
func (a *arcAgent) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for file := range a.keys.rows {
		a.drop(file)
	}
}

// arcToken is the agent's endpoint. It echoes the identity it used, by which a
// client knows that the agent understood the request for a user-assigned one.
func (s *Simulator) arcToken(w http.ResponseWriter, r *http.Request, rec *Request, q url.Values) *identityRefusal {
	agent := s.identity.arc
	if agent == nil {
		return &identityRefusal{http.StatusNotFound, "not_found", "There is no agent of Azure Arc here: Config.ArcKeyDir is empty."}
	}
	if r.Header.Get("Metadata") != "true" {
		return &identityRefusal{http.StatusBadRequest, "bad_request_102", "Required metadata header not specified"}
	}
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic ")
	if !ok || !agent.use(strings.TrimSpace(key)) {
		file, err := agent.challenge()
		if err != nil {
			return &identityRefusal{http.StatusInternalServerError, "unknown", err.Error()}
		}
		w.Header().Set("WWW-Authenticate", "Basic realm="+file)
		return &identityRefusal{http.StatusUnauthorized, "unauthorized_client", "Missing Basic Authorization header"}
	}
	who, token, refusal := s.identityToken(rec, q)
	if refusal != nil {
		return refusal
	}
	left := strconv.FormatInt(int64(token.expires.Sub(s.now())/time.Second), 10)
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token.access, "client_id": who.ClientID, "object_id": who.ObjectID, "token_type": "Bearer", "resource": q.Get("resource"),
		"expires_in": left, "expires_on": strconv.FormatInt(token.expires.Unix(), 10), "not_before": strconv.FormatInt(token.notBefore.Unix(), 10),
	})
	return nil
}
