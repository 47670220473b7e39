package simulator

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// ringSize is how many requests the simulator remembers.
const ringSize = 1000

// Request is one request that arrived at a listener, whatever became of it.
// Credentials in it are replaced by the start of their SHA-256.
type Request struct {
	Number   uint64    `json:"number"` // 1 for the first since the start
	Time     time.Time `json:"time"`
	Listener string    `json:"listener"` // entra, blob, api, vault or identity
	Region   string    `json:"region,omitempty"`
	Method   string    `json:"method"`
	Host     string    `json:"host"`
	// Target is the request target byte for byte, but for the signature of a
	// download link.
	Target string `json:"target"`
	// Header has the names in net/http's canonical letter case.
	Header http.Header `json:"header"`
	// BodyBytes and BodySHA256 tell what was read of the body by the time the
	// request ended.
	BodyBytes  int64  `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256,omitempty"`
	// Conn numbers the connections of one listener.
	Conn uint64 `json:"conn"`
	// Status is the answer's, 0 while there is none or when a fault cut it off.
	Status int `json:"status"`
	// Tenant, App and Operation are known once a token was accepted.
	Tenant    string `json:"tenant,omitempty"`
	App       string `json:"app,omitempty"`
	Operation string `json:"operation,omitempty"`
	// Grant, Claims and Proof are those of a token request: grant_type, the
	// parameter claims, and how the application proved itself (none, secret,
	// certificate, federated).
	Grant  string `json:"grant,omitempty"`
	Claims string `json:"claims,omitempty"`
	Proof  string `json:"proof,omitempty"`
	// Token is what is known of the token that a request to a region or to the
	// key vault presented, nil for none.
	Token *PresentedToken `json:"token,omitempty"`
	// Refused tells why the token was refused, empty if it was not.
	Refused Refusal `json:"refused,omitempty"`
}

// maxField bounds what a record keeps of one field of a form.
const maxField = 4096

func clip(s string) string { return s[:min(len(s), maxField)] }

// fingerprint stands for a secret in a record: equal secrets have equal ones.
func fingerprint(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:8])
}

var (
	signatureParam = regexp.MustCompile(`(?i)([?&]sig=)([^&]*)`)
	jwtShape       = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)
)

// redactHeader copies a header without what grants anything.
func redactHeader(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		for _, v := range values {
			switch lower := strings.ToLower(name); {
			case lower == "authorization", lower == "proxy-authorization", lower == "cookie",
				strings.Contains(lower, "secret"), strings.Contains(lower, "key"), lower == "x-identity-header":
				v = fingerprint(v)
			default:
				v = jwtShape.ReplaceAllStringFunc(v, fingerprint)
			}
			out[name] = append(out[name], v)
		}
	}
	return out
}

// ring remembers the last requests.
type ring struct {
	mu    sync.Mutex
	total uint64
	last  []*Request // oldest first, at most ringSize
}

func newRing() *ring { return &ring{} }

// add notes the arrival of a request. The record is filled in later through
// update.
func (g *ring) add(r *http.Request, listener, region string, now time.Time) *Request {
	rec := &Request{
		Time: now, Listener: listener, Region: region, Method: r.Method, Host: r.Host,
		Target: r.RequestURI, Header: redactHeader(r.Header),
	}
	if listener == "blob" {
		rec.Target = signatureParam.ReplaceAllStringFunc(rec.Target, func(m string) string {
			at := strings.IndexByte(m, '=') + 1
			return m[:at] + fingerprint(m[at:])
		})
	}
	if c := connOf(r); c != nil {
		rec.Conn = c.id
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total++
	rec.Number = g.total
	if len(g.last) == ringSize {
		copy(g.last, g.last[1:])
		g.last = g.last[:ringSize-1]
	}
	g.last = append(g.last, rec)
	return rec
}

func (g *ring) update(rec *Request, change func(*Request)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(rec)
}

// list copies the records, oldest first.
func (g *ring) list() []Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Request, len(g.last))
	for i, r := range g.last {
		out[i] = *r
	}
	return out
}

func (g *ring) clear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = nil
}

// Requests returns the last 1,000 requests that arrived at Entra ID, the
// regions and the blob storage, oldest first.
func (s *Simulator) Requests() []Request { return s.ring.list() }

// ResetRequests forgets them.
func (s *Simulator) ResetRequests() { s.ring.clear() }

// hashedBody counts and hashes what is read of a body.
type hashedBody struct {
	io.ReadCloser
	sum hash.Hash
	n   int64
}

func (b *hashedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	b.sum.Write(p[:n])
	return n, err
}

// statusWriter notes the status of an answer. It keeps the way to Hijack and
// Flush open through Unwrap.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if code >= 200 && w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// maxBody bounds the body of a request; library files are 20 MB at most.
const maxBody = 64 << 20

// recorded wraps a listener's handler so that each request is in the ring from
// its arrival on.
func (s *Simulator) recorded(listener, region string, h func(http.ResponseWriter, *http.Request, *Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		rec := s.ring.add(r, listener, region, s.now())
		body := &hashedBody{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), sum: sha256.New()}
		r.Body = body
		sw := &statusWriter{ResponseWriter: w}
		defer func() {
			// net/http would only close the connection: a fault of the
			// simulator's own must not look like one that was asked for.
			if bug := recover(); bug == http.ErrAbortHandler {
				defer panic(bug)
			} else if bug != nil {
				s.cfg.Log.Error().Interface("panic", bug).Str("listener", listener).Msg("simulator: a handler failed")
				if sw.status == 0 {
					writeProblem(sw, problemf(http.StatusInternalServerError, "InternalServerError", "The simulator failed."))
				}
			}
			s.ring.update(rec, func(q *Request) {
				q.Status = sw.status
				q.BodyBytes = body.n
				if body.n > 0 {
					q.BodySHA256 = hex.EncodeToString(body.sum.Sum(nil))
				}
			})
			s.cfg.Log.Debug().Str("listener", listener).Str("region", region).Str("method", r.Method).
				Str("path", r.URL.Path).Int("status", sw.status).Dur("took", time.Since(begun)).Msg("simulator: request")
		}()
		h(sw, r, rec)
	})
}
