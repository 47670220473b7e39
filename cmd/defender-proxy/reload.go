package main

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/config"
	"defender-proxy/internal/token"
)

// service is a proxy that runs: what lasts, the snapshot in force, and the way to
// the next one.
type service struct {
	*core
	// ctx is the one of everything in the background.
	ctx     context.Context
	started initial
	// load reads the configuration anew; nil where there is none to read.
	load    func() (*config.Config, error)
	now     atomic.Pointer[parts]
	warming sync.WaitGroup
	// begun says that a run of warm has ended by itself: every tenant's first token
	// has come or failed.
	begun atomic.Bool

	// mu guards asked, the reload that has not begun yet and that all who ask for one
	// share; nil where there is none.
	mu    sync.Mutex
	asked *attempt

	// turn is held by the reload that is under way; a channel, so that whoever waits
	// for it can leave. It guards what follows.
	turn  chan struct{}
	watch watcher
	// read is the configuration that was put into force last, as it stands in its
	// files.
	read *config.Config
	// cool ends the last run of warm.
	cool context.CancelFunc
	// refused are the faults of the last attempt, empty after a success; sulking
	// counts the polls since.
	refused string
	sulking int
}

// enter takes the snapshot in force for a request; leave it with serving.Add(-1).
// One that is retired just then is not taken, for its requests may have been
// waited for already.
func (s *service) enter() *parts {
	for {
		p := s.now.Load()
		p.serving.Add(1)
		if s.now.Load() == p {
			return p
		}
		p.serving.Add(-1)
	}
}

// handler serves the listener at a place of the configuration that the process
// was started with: each request to its end with the snapshot it began with.
func (s *service) handler(i int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := s.enter()
		defer p.serving.Add(-1)
		p.handlers[i].ServeHTTP(w, r)
	})
}

// replace puts a new snapshot in the place of the one in force, or leaves that as
// it is, also where nothing has changed. The turn is held. quietly does not repeat
// faults that were told.
func (s *service) replace(because string, quietly bool) (*admin.Reloaded, error) {
	begun := time.Now()
	old := s.now.Load()
	var next *parts
	var keys []string
	cfg, err := s.load()
	if err == nil {
		var held *config.Config
		held, keys = s.started.hold(cfg, old.config)
		sealed, unread := s.sealingOf(held)
		if proofs := proofsOf(cfg); reflect.DeepEqual(cfg, s.read) && maps.Equal(proofs, old.proofs) && unread == nil && sealed == old.sealed {
			next = old
		} else if next, err = s.assemble(held, proofs, old); err != nil {
			s.monitor.Keep(old.pools)
		}
	}
	s.sulking = 0
	if err != nil {
		faulty := asFaulty(err)
		s.metrics.ConfigRead(false, begun)
		if !quietly || faulty.Error() != s.refused {
			s.log.Error().Str("because", because).Strs("faults", faulty.Faults).Msg("the configuration is faulty; the one that was in force serves on")
		}
		s.refused = faulty.Error()
		return nil, faulty
	}
	s.refused = ""
	if next != old {
		if old.answered() {
			s.begun.Store(true)
		}
		// A request that began before finishes with what it was granted then, even a
		// write whose body is still on its way.
		// A call that is held for a second person is not: it is answered, and judged
		// by the next configuration when it is repeated.
		close(old.retired)
		s.now.Store(next)
		s.read = cfg
		s.retire(old, next)
		s.warm(next)
	}
	s.watchFiles(cfg, begun)
	s.metrics.ConfigRead(true, begun)
	done := changes(old.config, next.config)
	done.NeedsRestart = keys
	s.tell(because, old, next, done)
	return done, nil
}

// retirement bounds how long requests of a snapshot are waited for before tokens
// that no later one uses are forgotten.
const retirement = time.Second

// retire forgets what only the old snapshot used. Requests that began with it and
// still wait for their first token would go without, so they get a moment; those
// that have one finish with it.
func (s *service) retire(old, next *parts) {
	kept := make(map[*token.Source]bool, len(next.sources))
	for _, source := range next.sources {
		kept[source] = true
	}
	if slices.ContainsFunc(old.sources, func(source *token.Source) bool { return !kept[source] }) {
		for end := time.Now().Add(retirement); old.serving.Load() > 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	next.keep()
}

// asFaulty gives what is wrong with a configuration as the operator's pages tell
// it.
func asFaulty(err error) *admin.FaultyError {
	var faults config.Faults
	if errors.As(err, &faults) && len(faults) > 0 {
		return &admin.FaultyError{Faults: lines(faults)}
	}
	return &admin.FaultyError{Faults: []string{err.Error()}}
}

// changes compares the tenants of two configurations.
func changes(old, next *config.Config) *admin.Reloaded {
	before := make(map[string]config.Tenant, len(old.Tenants))
	for _, t := range old.Tenants {
		before[t.Name] = t
	}
	moved := make(map[[2]string]bool) // whether the cloud of a tenant is another one, by their names
	done := &admin.Reloaded{Tenants: len(next.Tenants), Added: []string{}, Changed: []string{}, Removed: []string{}, Warnings: lines(next.Warnings)}
	for _, t := range next.Tenants {
		o, known := before[t.Name]
		delete(before, t.Name)
		clouds := [2]string{o.Cloud, t.Cloud}
		if _, compared := moved[clouds]; known && !compared {
			was, _ := old.Cloud(o.Cloud)
			is, _ := next.Cloud(t.Cloud)
			moved[clouds] = !reflect.DeepEqual(was, is)
		}
		switch {
		case !known:
			done.Added = append(done.Added, t.Name)
		case moved[clouds] || !reflect.DeepEqual(o, t):
			done.Changed = append(done.Changed, t.Name)
		}
	}
	for _, t := range old.Tenants { // in their order
		if _, gone := before[t.Name]; gone {
			done.Removed = append(done.Removed, t.Name)
		}
	}
	for _, i := range next.Impaired {
		done.Impaired = append(done.Impaired, "tenant "+i.Tenant+": "+i.Fault.String())
	}
	return done
}

// tell logs a reload, and what it brought that the operator has to see to.
func (s *service) tell(because string, old, next *parts, done *admin.Reloaded) {
	event := s.log.Info()
	if len(done.NeedsRestart) > 0 {
		event = s.log.Warn().Strs("needs_restart", done.NeedsRestart)
	}
	for _, list := range []struct {
		key   string
		names []string
	}{{"added", done.Added}, {"changed", done.Changed}, {"removed", done.Removed}} {
		event.Int(list.key, len(list.names))
		if n := len(list.names); n > 0 {
			const most = 20
			event.Strs(list.key+"_tenants", list.names[:min(n, most)])
		}
	}
	event.Str("because", because).Int("tenants", done.Tenants).Msg("the configuration was read again and is in force")
	s.complain(old.config, next.config)
}

// complain logs what is wrong with single tenants, and what is unwise, unless an
// earlier configuration had it too.
func (s *service) complain(old, next *config.Config) {
	told := make(map[string]bool)
	if old != nil {
		for _, w := range old.Warnings {
			told[w.String()] = true
		}
		for _, i := range old.Impaired {
			told[i.Tenant+" "+i.Fault.String()] = true
		}
	}
	for _, w := range next.Warnings {
		if !told[w.String()] {
			s.log.Warn().Msg(w.String())
		}
	}
	for _, i := range next.Impaired {
		if !told[i.Tenant+" "+i.Fault.String()] {
			s.log.Error().Str("tenant", i.Tenant).Str("place", placeOf(i.Fault)).Str("key", i.Fault.Key).Msg(i.Fault.Message)
		}
	}
}

// placeOf is where a fault stands: file:line:column.
func placeOf(f config.Fault) string {
	f.Key = ""
	return strings.TrimSuffix(f.String(), ": "+f.Message)
}

// watchFiles sets the files whose change brings the next reload. cfg is the
// configuration as it stands in them, read at the time since.
func (s *service) watchFiles(cfg *config.Config, since time.Time) {
	files := cfg.Files()
	if len(files) > maxWatched && len(s.watch.files) <= maxWatched {
		s.log.Warn().Int("files", len(files)).Int("watched", maxWatched).Msg("not all files of the configuration are watched; SIGHUP or POST /-/reload reads the others")
	}
	s.watch.watch(files, since)
}

// again is the number of polls after which a faulty configuration is read again
// although nothing that is watched has changed: it may have named a file that
// was not there and is now.
const again = 10

// poll looks whether files have changed, and reloads then.
func (s *service) poll() {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-s.ctx.Done():
		return
	}
	changed, restless := s.watch.poll()
	const most = 5
	if len(restless) > 0 {
		s.log.Warn().Strs("files", restless[:min(len(restless), most)]).Msg("files of the configuration change at each look; they are read as they are now")
	}
	switch {
	case len(changed) > 0:
		s.watch.act()
		because := "change of " + strings.Join(changed[:min(len(changed), most)], ", ")
		_, _ = s.replace(because, true)
	case s.refused != "":
		if s.sulking++; s.sulking >= again {
			_, _ = s.replace("another attempt", true)
		}
	}
}

// follow reloads whenever a signal comes or a poll finds a change, until the
// service's context ends. A signal that comes during a reload is carried out
// after it.
func (s *service) follow(ticks <-chan time.Time, hup <-chan os.Signal) {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-hup:
			_, _ = s.reload(s.ctx, "SIGHUP")
		case <-ticks:
			s.poll()
		}
	}
}
