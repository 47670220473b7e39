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
	"strings"
	"sync"
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
where audit.file says, to standard output unless it says otherwise.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lv, err := zerolog.ParseLevel(level)
			if err != nil || level == "" {
				return &usageError{fmt.Errorf("--log-level %q is none of debug, info, warn, error", level)}
			}
			cfg, err := c.load(file)
			if err != nil {
				return err
			}
			log := c.logger(lv)
			for _, w := range cfg.Warnings {
				log.Warn().Msg(w.String())
			}
			return c.runProxy(cmd.Context(), cfg, c.env, log, c.stdout, nil)
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

// runProxy runs the proxy until ctx ends. running, if there is one, is called
// once every address is bound.
func (c *cli) runProxy(ctx context.Context, cfg *config.Config, env func(string) (string, bool), log zerolog.Logger, records io.Writer, running func(*parts, addresses)) error {
	p, err := assemble(cfg, env, log)
	if err != nil {
		return err
	}
	record, err := c.openAudit(cfg, records)
	if err != nil {
		return err
	}
	defer record.Close()
	metrics := admin.NewMetrics(buildVersion())
	handler, err := p.proxy(record, metrics)
	if err != nil {
		return err
	}
	servers, where, err := p.bind(ctx, handler, metrics)
	if err != nil {
		return err
	}

	// net/http's transport tells the standard logger of answers that nobody asked
	// for, and quotes them; they may hold what must not be in a log.
	stdlog.SetOutput(quietLog{log})
	defer stdlog.SetOutput(os.Stderr)

	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	wait := p.start(background)
	var warm sync.WaitGroup
	for _, t := range p.tenants {
		warm.Go(func() { p.warm(background, t) })
	}
	failed := make(chan error, len(servers))
	var serving sync.WaitGroup
	for _, s := range servers {
		log.Info().Str("address", s.listener.Addr().String()).Str("for", s.name).Msg("listening")
		serving.Go(func() {
			if err := s.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", s.name, err)
			}
		})
	}
	if running != nil {
		running(p, where)
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	}
	drain(servers, cfg.Limits.ShutdownTimeout, log)
	serving.Wait()
	stopBackground()
	warm.Wait()
	wait()
	return err
}

// warm asks for a tenant's first token before the first caller does. What goes
// wrong is told by the engine's log and by readiness.
func (p *parts) warm(ctx context.Context, t proxy.Tenant) {
	for _, s := range services(t) {
		_, _ = t.Upstreams[s].Token.Bearer(ctx)
		return
	}
}

// server is an http.Server with its listener.
type server struct {
	http.Server
	listener net.Listener
	name     string
}

// bind opens every address, or none: all that are taken are told at once.
func (p *parts) bind(ctx context.Context, handler *proxy.Proxy, metrics *admin.Metrics) (servers []*server, where addresses, err error) {
	var faults []error
	defer func() {
		if err != nil {
			for _, s := range servers {
				_ = s.listener.Close()
			}
		}
	}()
	open := func(name string, s listen.Settings, h http.Handler) net.Addr {
		l, err := listen.Open(ctx, s)
		if err != nil {
			faults = append(faults, err)
			return nil
		}
		servers = append(servers, &server{Server: p.httpServer(h), listener: l, name: name})
		return l.Addr()
	}
	for _, l := range p.config.Listeners {
		settings := listen.Settings{Address: l.Address}
		if l.TLS != nil {
			settings.CertFile, settings.KeyFile = l.TLS.CertFile, l.TLS.KeyFile
		}
		h, err := handler.Handler(proxy.Listener{
			Address: l.Address, Hosts: l.Hosts, Tenant: l.Tenant, Clients: l.Clients, PublicURL: l.PublicURL, TLS: l.TLS != nil,
		})
		if err != nil {
			return servers, where, err
		}
		where.listeners = append(where.listeners, open("callers", settings, h))
	}
	h, err := p.admin(metrics)
	if err != nil {
		return servers, where, err
	}
	where.admin = open("operator", listen.Settings{Address: p.config.Admin.Address}, h)
	return servers, where, errors.Join(faults...)
}

// httpServer bounds what a caller can hold open. Bodies and answers have no
// deadline of their own as a whole: proxy moves it on while they make progress.
func (p *parts) httpServer(h http.Handler) http.Server {
	cfg := p.config
	return http.Server{
		Handler:           h,
		ReadHeaderTimeout: cfg.Limits.ReadHeaderTimeout,
		// The longest wait for an answer to begin: one attempt that hangs to its
		// end, and one more.
		WriteTimeout:                 2*(cfg.Regions.ConnectTimeout+cfg.Regions.FirstByteTimeout) + bodyIdle, // moved on while a body comes
		IdleTimeout:                  cfg.Limits.IdleTimeout,
		MaxHeaderBytes:               int(cfg.Limits.HeaderBytes),
		DisableGeneralOptionsHandler: true, // OPTIONS * is a request like any other, to be refused and recorded
		ErrorLog:                     stdlog.New(quietLog{p.log}, "", 0),
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

// drain lets running requests finish, and says what it cut off.
func drain(servers []*server, patience time.Duration, log zerolog.Logger) {
	log.Info().Stringer("patience", patience).Msg("stopping")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			if err := s.Shutdown(ctx); err != nil {
				log.Warn().Str("for", s.name).Stringer("address", s.listener.Addr()).Msg("requests that were still running are cut off")
				_ = s.Close()
			}
		})
	}
	wg.Wait()
}
