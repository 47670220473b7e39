package credential

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// byCode signs in with a browser on this machine: authorization code with PKCE,
// and a redirect to a listener on loopback
// (learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow).
//
// The redirect URI is http://localhost with the listener's port, which Entra ID
// documents for applications that use the system's browser; it ignores the port
// when it compares (learn.microsoft.com/entra/identity-platform/reply-url, read
// 2026-11).
func (s *signIn) byCode(ctx context.Context) (*oauth2.Token, error) {
	listeners, port, err := listenForBrowser()
	if err != nil {
		return nil, storeFault("No port can be opened on 127.0.0.1 for the browser's answer: "+storeReason(err)+".", "Use the flow device_code.")
	}
	s.config.RedirectURL = "http://localhost:" + port
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	s.quieting = append(s.quieting, verifier)

	land := &landing{port: port, state: state, answer: make(chan arrival, 1)}
	server := landingServer(land)
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() { _ = server.Serve(l) })
	}
	defer serving.Wait()
	defer func() {
		// The browser gets its page, and nobody holds the end up for long.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}()

	options := []oauth2.AuthCodeOption{
		oauth2.S256ChallengeOption(verifier),
		oauth2.SetAuthURLParam("response_mode", "query"),
		oauth2.SetAuthURLParam("prompt", "select_account"),
	}
	if s.Username != "" {
		options = append(options, oauth2.SetAuthURLParam("login_hint", s.Username))
	}
	prompt := LoginPrompt{URL: s.config.AuthCodeURL(state, options...), Expires: time.Now().Add(codePatience)}
	if end, ok := ctx.Deadline(); ok {
		prompt.Expires = end
	}
	s.Show(prompt)

	var got arrival
	select {
	case got = <-land.answer:
	case <-ctx.Done():
		s.strayed = land.strayed()
		return nil, ctx.Err()
	}
	if got.denial != nil {
		return nil, got.denial
	}
	s.quieting = append(s.quieting, got.code)
	return s.redeem(ctx, func(proof ...oauth2.AuthCodeOption) (*oauth2.Token, error) {
		proof = append(proof, oauth2.VerifierOption(verifier), oauth2.SetAuthURLParam("scope", scopeOf(s.config)))
		return s.config.Exchange(ctx, got.code, proof...)
	})
}

func landingServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    64 << 10, // the code alone has some KiB
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

// listenForBrowser opens one port on both loopback addresses. A browser may take
// either for localhost, and on the one that is left open another user of the
// machine could receive the code. A machine without IPv6 has one address.
func listenForBrowser() (listeners []net.Listener, port string, err error) {
	for range 10 {
		v4, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, "", err
		}
		port := strconv.Itoa(v4.Addr().(*net.TCPAddr).Port)
		v6, taken := net.Listen("tcp6", "[::1]:"+port)
		if taken == nil {
			return []net.Listener{v4, v6}, port, nil
		}
		probe, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			return []net.Listener{v4}, port, nil
		}
		probe.Close()
		v4.Close()
	}
	return nil, "", errors.New("each one that is free there is taken on [::1]")
}

func scopeOf(c oauth2.Config) string {
	scope := ""
	for _, one := range c.Scopes {
		scope += " " + one
	}
	return scope[1:]
}

// arrival is what the browser brought: a code, or Entra's error.
type arrival struct {
	code   string
	denial *denial
}

// landing answers the one redirect of the browser, and nothing else: a GET of /
// under a name of this listener, with the state of this sign-in. Everything that
// is not that leaves the sign-in waiting, so that no page of a stranger can end
// it.
type landing struct {
	port, state string
	answer      chan arrival

	mu    sync.Mutex
	done  bool
	stray bool
}

func (l *landing) strayed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stray
}

// ServeHTTP implements http.Handler.
func (l *landing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The Host guards against DNS rebinding: a page of another origin whose name
	// leads here carries its own.
	if r.Host != "localhost:"+l.port && r.Host != "127.0.0.1:"+l.port && r.Host != "[::1]:"+l.port {
		page(w, http.StatusMisdirectedRequest, "This address is not for you.")
		return
	}
	// Entra ID adds the slash to a redirect URI without a path.
	if r.URL.Path != "/" || r.URL.RawQuery == "" {
		page(w, http.StatusNotFound, "There is nothing here.")
		return
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		page(w, http.StatusMethodNotAllowed, "This address takes the browser's redirect only.")
		return
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(query["state"]) != 1 || len(query["code"]) > 1 || len(query["error"]) > 1 ||
		subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(l.state)) != 1 {
		l.mu.Lock()
		l.stray = true
		l.mu.Unlock()
		page(w, http.StatusBadRequest, "This answer belongs to another sign-in. Open the page that the terminal shows.")
		return
	}
	got := arrival{code: query.Get("code")}
	if code := query.Get("error"); code != "" || got.code == "" {
		got = arrival{denial: &denial{code: code, description: query.Get("error_description"), status: http.StatusBadRequest}}
	}
	l.mu.Lock()
	first := !l.done
	l.done = true
	l.mu.Unlock()
	switch {
	case !first:
		page(w, http.StatusGone, "This sign-in has had its answer already.")
	case got.denial != nil:
		page(w, http.StatusOK, "The sign-in did not succeed. The terminal tells why. You can close this page.")
		l.answer <- got
	default:
		page(w, http.StatusOK, "The answer has arrived. The terminal tells how the sign-in ended. You can close this page.")
		l.answer <- got
	}
}

// page writes a page that holds nothing of the request.
func page(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer") // the page's own address holds the code
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Connection", "close")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>defender-proxy</title></head><body><p>%s</p></body></html>\n", html.EscapeString(text))
}
