package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/rs/zerolog"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/approval"
	"defender-proxy/internal/audit"
	"defender-proxy/internal/config"
	"defender-proxy/internal/credential"
	"defender-proxy/internal/egress"
	"defender-proxy/internal/token"
	"defender-proxy/internal/usage"
	"defender-proxy/proxy"
	"defender-proxy/regions"
)

// core is what outlasts a reload: tokens, what is known of regions, pages and APIs
// that are gone, secrets of vaults, warm connections, counts, calls that wait for approval, and the
// key of download links where the configuration has none.
type core struct {
	// file is the configuration's, for remedies; empty where there is none.
	file      string
	env       func(string) (string, bool)
	log       zerolog.Logger
	transport *egress.Transport
	own       *own
	tokens    *token.Engine
	monitor   *regions.Monitor
	pages     *regions.Pages
	bridges   *proxy.Bridges
	vault     *credential.Vault
	audit     *audit.Log
	metrics   *admin.Metrics
	usage     *usage.Counter
	approvals *approval.Store
	sealing   []byte
}

// Observe counts a request, for the metrics and for the report of what is used.
func (c *core) Observe(r *audit.Record) {
	c.metrics.Observe(r)
	c.usage.Observe(r)
}

// newCore makes the core for a configuration. Nothing is bound or fetched, and
// nothing read but ca_file.
func newCore(cfg *config.Config, file string, env func(string) (string, bool), log zerolog.Logger, record *audit.Log) (*core, error) {
	c := &core{
		file: file, env: env, log: log, pages: regions.NewPages(), bridges: new(proxy.Bridges), audit: record, metrics: admin.NewMetrics(buildVersion()),
		usage: usage.New(), approvals: approval.New(), sealing: make([]byte, 32),
	}
	_, _ = rand.Read(c.sealing) // it never fails
	c.own = ownOf(cfg)
	var err error
	if c.transport, err = outbound(cfg, c.own.list, c.loops); err != nil {
		return nil, err
	}
	c.tokens = token.New(token.Options{Transport: c.transport, Log: log, Concurrency: cfg.Limits.TokenConcurrency})
	c.vault = credential.NewVault(credential.VaultOptions{Transport: c.transport, Env: env})
	c.monitor = regions.NewMonitor(regions.Settings{
		ProbeInterval:   cfg.Regions.ProbeInterval,
		ProbeTimeout:    cfg.Regions.ConnectTimeout,
		SwitchMargin:    cfg.Regions.SwitchMargin,
		SwitchMarginMin: cfg.Regions.SwitchMarginMin,
		OnChange: func(c regions.Change) {
			log.Info().Str("event", string(c.Event)).Str("service", string(c.Service)).Str("region", string(c.Region)).
				Str("from", string(c.From)).Str("reason", c.Reason).Msg("region")
		},
	}, c.transport)
	return c, nil
}

// alone builds a configuration for a command that serves nobody.
func (c *cli) alone(cfg *config.Config, file string) (*parts, error) {
	core, err := newCore(cfg, file, c.env, zerolog.Nop(), audit.New(io.Discard))
	if err != nil {
		return nil, err
	}
	return core.assemble(cfg, nil, nil)
}

// recordTo opens the places that audit names. Records that leave the machine over
// HTTP take the way out that all calls take.
func (c *core) recordTo(cfg *config.Config, stdout, stderr io.Writer) (err error) {
	a := cfg.Audit
	s := audit.Settings{
		File: a.File, MaxBytes: a.MaxBytes, Keep: a.Keep, Chain: a.Chain, Syslog: a.Syslog, OTLP: a.OTLP,
		Transport: c.transport, Version: buildVersion(), Log: c.log,
	}
	if s.TLS, err = trust(cfg.Egress.CAFile); err != nil {
		return err
	}
	c.audit, err = audit.Open(s, stdout, stderr)
	return err
}

// trust gives what connections trust that are none of the transport's: the
// system's authorities, and those of egress.ca_file.
func trust(caFile string) (*tls.Config, error) {
	if caFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read egress.ca_file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // then ca_file has to hold all there is to trust
	}
	roots.AppendCertsFromPEM(pem) // the transport has seen that they are some
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// start runs what works in the background, the tokens, the probes, the renewal of
// connections and the places of records beside the file, until ctx ends. It returns when the probes have begun, so that
// the first requests wait for them. The function it returns waits for the end.
func (c *core) start(ctx context.Context) (wait func()) {
	var wg sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{
		"tokens": c.tokens.Run, "regions": c.monitor.Run,
		"egress": func(ctx context.Context) error { return c.transport.Run(ctx, c.monitor.Warm) },
		"audit":  c.audit.Run,
	} {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				c.log.Error().Err(err).Str("part", name).Msg("stopped")
			}
		})
	}
	select {
	case <-c.monitor.Started():
	case <-ctx.Done():
	}
	return func() {
		wg.Wait()
		c.transport.CloseIdleConnections()
	}
}
