package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/config"
)

// All who wait for their turn share one reload, whatever they wait for.
func TestReloadsThatWaitAreOne(t *testing.T) {
	text := "tenants:\n" + tenantText("contoso", 0, secretText)
	s, log := newService(t, text)
	cfg, loads := parsed(t, text), 0
	s.load = func() (*config.Config, error) { loads++; return cfg, nil }
	s.turn <- struct{}{} // one is under way
	const askers = 20
	var waiting sync.WaitGroup
	done := make([]*admin.Reloaded, askers)
	for i := range askers {
		waiting.Go(func() {
			var err error
			if done[i], err = s.reload(t.Context(), fmt.Sprint("asker ", i)); err != nil {
				t.Error(err)
			}
		})
	}
	// Somebody who leaves takes nothing from the others.
	left, leave := context.WithCancel(context.Background())
	leave()
	_, _ = s.reload(left, "one who left")
	for joined := 0; joined < askers; {
		s.mu.Lock()
		if s.asked != nil {
			joined = strings.Count(strings.Join(s.asked.because, ","), "asker")
		}
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	<-s.turn
	waiting.Wait()
	if loads != 1 {
		t.Errorf("%d reloads for %d askers", loads, askers)
	}
	for i, d := range done {
		if d == nil || d != done[0] {
			t.Errorf("asker %d was told %+v, asker 0 %+v", i, d, done[0])
		}
	}
	for i := range askers {
		if !strings.Contains(log.String(), fmt.Sprint("asker ", i)) {
			t.Errorf("the log does not tell of asker %d", i)
		}
	}
	if _, err := s.reload(t.Context(), "a later one"); err != nil || loads != 2 {
		t.Errorf("%d reloads, %v", loads, err)
	}
}

// The files as a reload found them are acted on: no poll brings them again.
func TestAPollDoesNotRepeatAReload(t *testing.T) {
	text := "tenants:\n" + tenantText("contoso", 0, secretText)
	s, _ := newService(t, text)
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	loads := 0
	s.load = func() (*config.Config, error) { loads++; return config.Load(file, nothing) }
	reload := func() {
		t.Helper()
		if _, err := s.reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
	}
	polls := func(want int) {
		t.Helper()
		for range 4 {
			s.poll()
		}
		if loads != want {
			t.Errorf("%d readings, want %d", loads, want)
		}
	}
	reload()
	polls(1)
	write(text + tenantText("fabrikam", 1, secretText))
	reload()
	polls(2)
	write(text)
	polls(3)

	// A faulty one that was asked for is not told again by a poll.
	write("tenants: [")
	if _, err := s.reload(t.Context(), "test"); err == nil {
		t.Error("a faulty one is in force")
	}
	s.sulking = -100
	polls(4)
}

// A reload that finds nothing new puts no snapshot in the place of the one in
// force; one that finds only a secret's file new keeps the other tenants' sources
// as they are.
func TestAReloadThatFindsNothingNewChangesNothing(t *testing.T) {
	dir := t.TempDir()
	secret := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "client_id: " + labApp + ", client_secret: {file: '" + path + "'}"
	}
	text := "tenants:\n" + tenantText("contoso", 0, secret("contoso", "one")) + tenantText("fabrikam", 1, secret("fabrikam", "one"))
	s, _ := newService(t, text)
	more := ""
	s.load = func() (*config.Config, error) {
		return config.Parse(filepath.Join(dir, "proxy.yaml"), []byte(text+more), nothing)
	}
	reload := func() *parts {
		t.Helper()
		if _, err := s.reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		return s.now.Load()
	}
	first := reload()
	more = "# a remark\n"
	if reload() != first {
		t.Error("there is another snapshot, of the same configuration")
	}
	secret("fabrikam", "two")
	second := reload()
	if second == first || second.proofs["contoso"] != first.proofs["contoso"] || second.proofs["fabrikam"] == first.proofs["fabrikam"] {
		t.Error("that a secret's file changed is not seen, or of another tenant")
	}
	more = "policy: {claims: report}\n"
	if third := reload(); third == second || third.config.Policy.Claims != config.ClaimsReport {
		t.Error("the change is not in force")
	}
}

// A file system that hangs does not keep the process from ending.
func TestAReloadThatHangsDoesNotKeepTheProxyFromEnding(t *testing.T) {
	cfg := parsed(t, `listeners: [{address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
clouds:
  - name: lab
    authority: http://127.0.0.1:1
    endpoints: {mde: {eu: "http://127.0.0.1:1"}}
    audiences: {mde: "https://mde.lab.example"}
tenant_defaults: {cloud: lab}
tenants:
`+tenantText("contoso", 0, secretText))
	hup, hangs, goOn, up := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{}), make(chan struct{})
	var log strings.Builder
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- runProxy(ctx, running{
			config: cfg, read: time.Now(), env: nothing, log: zerolog.New(zerolog.SyncWriter(&log)), records: &strings.Builder{}, stderr: &strings.Builder{}, hup: hup,
			load: func() (*config.Config, error) { close(hangs); <-goOn; return cfg, nil },
			up:   func(*parts, addresses) { close(up) },
		})
	}()
	<-up
	hup <- os.Interrupt
	<-hangs
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("it does not end")
	}
	if !strings.Contains(log.String(), "has not ended") {
		t.Errorf("it is not said:\n%s", log.String())
	}
	close(goOn)
}

// A snapshot whose requests have been waited for is not entered any more.
func TestNoRequestBeginsWithASnapshotThatIsRetired(t *testing.T) {
	s, _ := newService(t, "tenants:\n"+tenantText("contoso", 0, secretText))
	var retired sync.Map
	stop := make(chan struct{})
	var entering sync.WaitGroup
	for range 4 {
		entering.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p := s.enter()
				if _, gone := retired.Load(p); gone {
					t.Error("it is entered")
				}
				p.serving.Add(-1)
			}
		})
	}
	for range 20_000 {
		old := s.now.Load()
		s.now.Store(&parts{})
		for old.serving.Load() > 0 {
			time.Sleep(0)
		}
		retired.Store(old, true)
	}
	close(stop)
	entering.Wait()
	s.now.Store(&parts{core: s.core})
}
