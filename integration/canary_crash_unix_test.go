//go:build unix

package integration

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// The process hangs, or so it seems, and somebody sends it a SIGQUIT to see what it
// is doing. Go writes down what every goroutine does, those that hold a request with
// its token and a caller's credentials too, and ends. In what it writes, as in what a
// panic that nobody recovers would write, no secret is to be seen.
func TestACrashShowsNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{level: "debug", config: func(c object) { inRegions(c, "eu") }})
	token := strings.TrimSpace(string(w.run(t, "token", "--config", w.file, "--reveal")))
	header, _, _ := strings.Cut(token, ".")
	if err := w.sim.SetRegion("eu", simulator.Fault{Kind: simulator.FaultHang, Match: "/api/"}); err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { begun <- struct{}{} }()
			r, err := http.NewRequest(http.MethodPost, w.url+"/api/advancedqueries/run?x=canary-query", strings.NewReader(`{"Query":"canary-body"}`))
			if err != nil {
				return
			}
			r.Header.Set("Authorization", "Bearer canary-authorization")
			r.Header.Set("Cookie", "s=canary-cookie")
			if resp, err := caller.Do(r); err == nil { // the crash ends the connection
				resp.Body.Close()
			}
		}()
	}
	w.eventually("the requests hang at the region", func() error {
		if n := len(w.arrivals(http.MethodPost, "/api/advancedqueries/run")); n < 4 {
			return fmt.Errorf("%d do", n)
		}
		return nil
	})
	w.expected, w.faulty = 2, []string{"panic", "fatal error"} // names of functions
	if err := w.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.ended:
	case <-time.After(patience):
		t.Fatal("it does not end after SIGQUIT")
	}
	for range 4 {
		<-begun
	}
	log := w.stderr.String()
	for _, secret := range []string{header, "eyJ", simulator.DefaultSecret, "canary-"} {
		if strings.Contains(log, secret) {
			t.Errorf("the crash shows %q", secret)
		}
	}
	for _, must := range []string{"SIGQUIT", "goroutine ", "defender-proxy/proxy.(*Proxy).forward"} {
		if !strings.Contains(log, must) {
			t.Errorf("there is no %q: the process did not say what it was doing", must)
		}
	}
}
