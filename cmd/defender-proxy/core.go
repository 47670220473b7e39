package main

import (
	"context"
	"io"
	"sync"

	"github.com/rs/zerolog"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/audit"
	"defender-proxy/internal/config"
	"defender-proxy/internal/credential"
	"defender-proxy/internal/egress"
	"defender-proxy/internal/token"
	"defender-proxy/regions"
)

// core is what outlasts a reload: tokens, what is known of regions and pages,
// secrets of vaults, warm connections, counts.
type core struct {
	// file is the configuration's, for remedies; empty where there is none.
	file      string
	env       func(string) (string, bool)
	log       zerolog.Logger
	transport *egress.Transport
	tokens    *token.Engine
	monitor   *regions.Monitor
	pages     *regions.Pages
	vault     *credential.Vault
	audit     *audit.Log
	metrics   *admin.Metrics
}

// newCore makes the core for a configuration. Nothing is bound or fetched, and
// nothing read but ca_file.
func newCore(cfg *config.Config, file string, env func(string) (string, bool), log zerolog.Logger, record *audit.Log) (*core, error) {
	c := &core{file: file, env: env, log: log, pages: regions.NewPages(), audit: record, metrics: admin.NewMetrics(buildVersion())}
	var err error
	if c.transport, err = outbound(cfg); err != nil {
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

// start runs what works in the background, the tokens, the probes and the renewal
// of connections, until ctx ends. It returns when the probes have begun, so that
// the first requests wait for them. The function it returns waits for the end.
func (c *core) start(ctx context.Context) (wait func()) {
	var wg sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{
		"tokens": c.tokens.Run, "regions": c.monitor.Run,
		"egress": func(ctx context.Context) error { return c.transport.Run(ctx, c.monitor.Warm) },
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
