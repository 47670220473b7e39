package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/config"
	"defender-proxy/internal/listen"
	"defender-proxy/proxy"
)

func (c *cli) serve() *cobra.Command {
	var file, level string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the proxy",
		Long: `Run the proxy with a configuration, until it is interrupted or gets SIGTERM; then
running requests may finish. The log goes to standard error, audit records go
where audit.file says, to standard output unless it says otherwise.

The configuration is read again when one of its files has changed, on SIGHUP, and
on POST /-/reload of the operator's listener. A faulty one is told in the log, and
the one before it serves on; a tenant is taken out only when the whole is valid. At
the start alone, a tenant whose own file in tenants_dir is faulty is left out.

SIGHUP and POST /-/reload also open audit.file anew when it was moved away.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lv, err := zerolog.ParseLevel(level)
			if err != nil || level == "" {
				return &usageError{fmt.Errorf("--log-level %q is none of debug, info, warn, error", level)}
			}
			// From here on, so that a SIGHUP during the start is carried out after it.
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			begun := time.Now()
			cfg, err := c.load(file)
			if err != nil {
				return err
			}
			return runProxy(cmd.Context(), running{
				config: cfg, read: begun, file: file, env: c.env, log: c.logger(lv), records: c.stdout, stderr: c.stderr,
				load: func() (*config.Config, error) { return config.Load(file, c.env) }, hup: hup,
			})
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// addresses are where a running proxy is to be found, in the order of the
// configuration.
type addresses struct {
	listeners []net.Addr
	admin     net.Addr
}

// running says what to run.
type running struct {
	config *config.Config
	read   time.Time // when its reading began
	file   string
	env    func(string) (string, bool)
	log    zerolog.Logger
	// records and stderr are where audit.file may lead beside a file.
	records, stderr io.Writer
	// load reads the configuration anew, when hup or a change of its files says so;
	// nil for one that cannot be read again.
	load func() (*config.Config, error)
	hup  <-chan os.Signal
	// up, if there is one, is called once every address is bound.
	up func(*parts, addresses)
}

// runProxy runs the proxy until ctx ends.
func runProxy(ctx context.Context, r running) error {
	core, err := newCore(r.config, r.file, r.env, r.log, nil)
	if err != nil {
		return err
	}
	if err := core.recordTo(r.config, r.records, r.stderr); err != nil {
		return err
	}
	defer func() {
		if err := core.audit.Close(); err != nil {
			r.log.Error().Err(err).Msg("the last audit records may be missing")
		}
	}()
	p, err := core.assemble(r.config, proofsOf(r.config), nil)
	if err != nil {
		return err
	}
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	s := &service{core: core, ctx: background, started: initialOf(r.config), load: r.load, read: r.config, turn: make(chan struct{}, 1)}
	s.now.Store(p)
	s.metrics.ConfigRead(true, r.read)
	servers, where, err := s.bind(ctx)
	if err != nil {
		return err
	}
	s.own.bound(servers)

	// net/http's transport tells the standard logger of answers that nobody asked
	// for, and quotes them; they may hold what must not be in a log.
	stdlog.SetOutput(quietLog{s.log})
	defer stdlog.SetOutput(os.Stderr)

	wait := s.start(background)
	s.turn <- struct{}{} // the first look at the files comes before any reload
	failed := make(chan error, len(servers))
	var serving sync.WaitGroup
	for _, server := range servers {
		s.log.Info().Str("address", server.listener.Addr().String()).Str("for", server.name).Msg("listening")
		serving.Go(func() {
			if err := server.Serve(server.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", server.name, err)
			}
		})
	}
	s.complain(nil, r.config)
	s.warm(p)
	var following sync.WaitGroup
	if s.load != nil {
		following.Go(func() {
			s.watchFiles(r.config, r.read)
			<-s.turn
			ticker := time.NewTicker(watchEvery)
			defer ticker.Stop()
			s.follow(ticker.C, r.hup)
		})
	} else {
		<-s.turn
	}
	if r.up != nil {
		r.up(p, where)
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	}
	core.approvals.Stop() // calls that wait for a second person get their 202 now
	drain(servers, r.config.Limits.ShutdownTimeout, s.log)
	serving.Wait()
	stopBackground()
	ended := make(chan struct{})
	go func() {
		following.Wait()
		s.turn <- struct{}{} // a reload that was cut off ends first, and none begins
		s.warming.Wait()
		wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(lastWait):
		s.log.Warn().Stringer("patience", lastWait).Msg("what runs in the background has not ended, perhaps because a file of the configuration cannot be read to its end; it is cut off")
	}
	return err
}

// lastWait bounds the wait for what runs in the background. Its requests are cut
// off, so that only a file system that hangs takes longer.
const lastWait = 5 * time.Second

// server is an http.Server with its listener.
type server struct {
	http.Server
	listener net.Listener
	name     string
	running  atomic.Int64 // requests that have not left their records, whatever became of their connections
}

// counted counts the requests that a handler serves.
func (s *server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.Add(1)
		defer s.running.Add(-1)
		h.ServeHTTP(w, r)
	})
}

// bind opens every address, or none: all that are taken are told at once.
func (s *service) bind(ctx context.Context) (servers []*server, where addresses, err error) {
	var faults []error
	defer func() {
		if err != nil {
			for _, open := range servers {
				_ = open.listener.Close()
			}
		}
	}()
	cfg := s.started
	open := func(name string, settings listen.Settings, h http.Handler) net.Addr {
		l, err := listen.Open(ctx, settings)
		if err != nil {
			faults = append(faults, err)
			return nil
		}
		opened := &server{listener: l, name: name}
		opened.Server = s.httpServer(opened.counted(h))
		servers = append(servers, opened)
		return l.Addr()
	}
	for i, l := range cfg.Listeners {
		settings := s.settings(l.Address, l.Socket)
		settings.Balancers, settings.Refused = l.Balancers, s.unserved(l.Address)
		if l.TLS != nil {
			settings.CertFile, settings.KeyFile, settings.ClientCAFile = l.TLS.CertFile, l.TLS.KeyFile, l.TLS.ClientCAFile
			settings.Renewed = s.renewed(l.Address)
		}
		where.listeners = append(where.listeners, open("callers", settings, s.handler(i)))
	}
	sources := admin.Sources{
		View:    func() *admin.View { return s.now.Load().view },
		Begun:   s.begun.Load,
		Monitor: s.monitor, Metrics: s.metrics, Names: listen.NewNames(nil, false, ""), Address: cfg.Admin.Address,
		Audit: s.audit, Approvals: s.approvals, Usage: s.usage,
	}
	if s.load != nil {
		sources.Reload = func(ctx context.Context) (*admin.Reloaded, error) { return s.reload(ctx, "POST /-/reload") }
	}
	h, err := admin.New(sources)
	if err != nil {
		return servers, where, err
	}
	where.admin = open("operator", s.settings(cfg.Admin.Address, cfg.Admin.Socket), named(h))
	if names := listen.Unclaimed(); len(names) > 0 {
		s.log.Warn().Strs("names", names).Msg("systemd passed sockets that no listener takes with systemd:NAME; who connects to them waits in vain")
	}
	return servers, where, errors.Join(faults...)
}

// named has the operator's pages say whose they are, as all other answers of the
// proxy's own do: a proxy that calls them by mistake, because a name of Microsoft's
// leads there, shall know it.
func named(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proxy-Status", "defender-proxy")
		h.ServeHTTP(w, r)
	})
}

// settings are what all listeners have in common.
func (s *service) settings(address string, socket config.Socket) listen.Settings {
	return listen.Settings{
		Address: address, Socket: listen.Socket{Mode: socket.Mode, Owner: socket.Owner, Group: socket.Group},
		HeaderBytes: int(s.started.Limits.HeaderBytes), HeaderTimeout: s.started.Limits.ReadHeaderTimeout,
	}
}

// unserved logs a connection that was closed before it had a request, and so has no
// record.
func (s *service) unserved(address string) func(error, int) {
	return func(err error, more int) {
		e := s.log.Warn().Err(err).Str("address", address)
		if more > 0 {
			e.Int("more", more)
		}
		e.Msg("a listener closed a connection that had no request")
	}
}

// renewed logs what became of certificates whose files have changed.
func (s *service) renewed(address string) func(error) {
	return func(err error) {
		if err != nil {
			s.log.Error().Err(err).Str("address", address).Msg("the certificates of a listener have changed and cannot be used; those from before serve on")
			return
		}
		s.log.Info().Str("address", address).Msg("the certificates of a listener have changed and are in use")
	}
}

// httpServer bounds what a caller can hold open. Bodies and answers have no
// deadline of their own as a whole: proxy moves it on while they make progress.
func (s *service) httpServer(h http.Handler) http.Server {
	cfg := s.started
	longest := proxy.Limits{
		ConnectTimeout: cfg.Regions.ConnectTimeout, FirstByteTimeout: cfg.Regions.FirstByteTimeout,
		MaxWait: time.Minute, // the most that quota.max_wait can become by a reload
	}
	return http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            cfg.Limits.ReadHeaderTimeout,
		WriteTimeout:                 longest.Patience() + bodyIdle, // moved on while a body comes
		IdleTimeout:                  cfg.Limits.IdleTimeout,
		MaxHeaderBytes:               int(cfg.Limits.HeaderBytes),
		DisableGeneralOptionsHandler: true, // OPTIONS * is a request like any other, to be refused and recorded
		ConnContext:                  listen.ConnContext,
		ConnState:                    listen.ConnState,
		ErrorLog:                     stdlog.New(quietLog{s.log}, "", 0),
	}
}

// quietLog takes what net/http has to say about connections. Most of it quotes
// what the other side sent, so only its having been said is logged, and of TLS
// handshakes, which come before anything is sent, why they failed.
type quietLog struct{ log zerolog.Logger }

func (l quietLog) Write(b []byte) (int, error) {
	e := l.log.Debug()
	const most = 300
	if text := string(b[:min(len(b), most)]); strings.HasPrefix(text, "http: TLS handshake error") {
		e.Str("detail", strings.TrimSpace(text))
	}
	e.Msg("net/http complains about a connection")
	return len(b), nil
}

// firstRequest is how long a caller that has just connected may take to send its
// first request when the proxy stops.
const firstRequest = time.Second

// lastRecords is how long requests that were cut off may take to leave their audit
// records.
const lastRecords = 2 * time.Second

// drain lets running requests finish, and says what it cut off. When it returns,
// all of them have left their records, or it has said how many have not.
func drain(servers []*server, patience time.Duration, log zerolog.Logger) {
	log.Info().Stringer("patience", patience).Msg("stopping")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			listen.Quiesce(s.listener, min(patience, firstRequest))
			// Its other errors are those of closing a listener that is closed already.
			if err := s.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
				log.Warn().Str("for", s.name).Stringer("address", s.listener.Addr()).Msg("requests that were still running are cut off")
				_ = s.Close()
			}
		})
	}
	wg.Wait()
	var left int64
	for end := time.Now().Add(lastRecords); ; time.Sleep(time.Millisecond) {
		left = 0
		for _, s := range servers {
			left += s.running.Load()
		}
		if left == 0 || time.Now().After(end) {
			break
		}
	}
	if left > 0 {
		log.Error().Int64("requests", left).Stringer("patience", lastRecords).Msg("requests that were cut off have not ended; their audit records may be missing")
	}
}
