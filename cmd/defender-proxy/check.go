package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/config"
	"defender-proxy/proxy"
)

func (c *cli) check() *cobra.Command {
	var file, tenant, output string
	var online bool
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Validate a configuration, and with --online what it leads to",
		Long: `Validate a configuration: every fault at once, with its place, and what the
credentials of the tenants are read from. With --online, get each tenant's tokens,
read them, probe each region, and compare the permissions they hold with what
client groups are granted.

Exits with 1 when anything is wrong.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load(file)
			var faults config.Faults
			switch {
			case errors.As(err, &faults):
				return c.report(checkReport{File: file, Faults: lines(faults)}, output)
			case err != nil:
				return err
			}
			if tenant != "" {
				if _, err := tenantNamed(cfg, tenant); err != nil {
					return err
				}
			}
			p, err := c.alone(cfg, file)
			if err != nil {
				return err
			}
			r := checkReport{File: file, Warnings: slices.Concat(lines(cfg.Warnings), ended(cfg, time.Now()), folders(cfg), p.widened(tenant, time.Now()))}
			r.Impaired, r.Notices = p.checkCredentials(tenant)
			if online {
				ctx, cancel := context.WithTimeout(cmd.Context(), onlinePatience(len(p.tenants)))
				wait := p.start(ctx)
				p.askTokens(ctx, tenant)
				cancel()
				wait() // a credential notes what became of its proofs after callers have the token
				r.Tenants = p.checkTenants(tenant)
				r.Warnings = append(r.Warnings, p.ledBack()...)
			}
			return c.report(r, output)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&online, "online", false, "ask Entra ID and the regions too")
	cmd.Flags().StringVar(&tenant, "tenant", "", "only the tenant of this `name`")
	outputFlag(cmd, &output)
	return cmd
}

func lines(faults config.Faults) []string {
	var s []string
	for _, f := range faults {
		s = append(s, f.String())
	}
	return s
}

// ended tells of entries that do not hold any more, so that somebody takes them out.
func ended(cfg *config.Config, now time.Time) (all []string) {
	for _, g := range cfg.Clients {
		for name, list := range map[string][]config.Grant{"allow": g.Allow, "deny": g.Deny} {
			for _, e := range list {
				if !e.Until.IsZero() && !now.Before(e.Until) {
					all = append(all, fmt.Sprintf("client group %s: the entry of %s for %s has ended at %s and does not hold any more; take it out", g.Name, name, strings.Join(e.Operations, ", "), e.Until.Format(time.RFC3339)))
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// checkReport is what check has to say.
type checkReport struct {
	File     string   `json:"file"`
	OK       bool     `json:"ok"`
	Faults   []string `json:"faults,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Impaired is what keeps single tenants from getting tokens, Notices what will
	// before long.
	Impaired []tenantWords `json:"impaired,omitempty"`
	Notices  []tenantWords `json:"notices,omitempty"`
	Tenants  []tenantCheck `json:"tenants,omitempty"`
}

// tenantWords say something of one tenant.
type tenantWords struct {
	Tenant  string `json:"tenant"`
	Message string `json:"message"`
}

// tenantCheck is what /-/tenants tells, after the tokens were asked for.
type tenantCheck struct {
	admin.TenantReport
	// Problems are what should be mended, by the services that some client group is
	// granted an operation of.
	Problems []string `json:"problems,omitempty"`
}

// checkCredentials looks at what the credentials are read from, of all tenants
// or one.
func (p *parts) checkCredentials(only string) (impaired, notices []tenantWords) {
	known := make(map[string]bool)
	for _, i := range p.config.Impaired {
		if only == "" || i.Tenant == only {
			known[i.Tenant] = true
			words := tenantWords{i.Tenant, i.Fault.String()}
			if i.LeftOut {
				words.Message = "it is left out, because its file is faulty: " + words.Message
			}
			impaired = append(impaired, words)
		}
	}
	for _, t := range p.config.Tenants {
		if only != "" && t.Name != only || known[t.Name] {
			continue
		}
		notice, err := p.checkFiles(t)
		if err != nil {
			impaired = append(impaired, tenantWords{t.Name, err.Error()})
		}
		if notice != "" {
			notices = append(notices, tenantWords{t.Name, notice})
		}
	}
	return impaired, notices
}

// tenantsNamed gives all tenants, or the one of the name.
func (p *parts) tenantsNamed(only string) []proxy.Tenant {
	return slices.DeleteFunc(slices.Clone(p.tenants), func(t proxy.Tenant) bool { return only != "" && t.Name != only })
}

// askTokens asks for the tokens of all tenants, or one. A tenant that hangs keeps
// few of the others waiting.
func (p *parts) askTokens(ctx context.Context, only string) {
	p.measured(ctx)
	tenants := p.tenantsNamed(only)
	var asking sync.WaitGroup
	var next atomic.Int64
	for range min(len(tenants), warmers*max(1, p.config.Limits.TokenConcurrency)) {
		asking.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(tenants)); i = next.Add(1) - 1 {
				for _, s := range services(tenants[i]) {
					_, _ = tenants[i].Upstreams[s].Token.Bearer(ctx) // its state tells what became of it
				}
			}
		})
	}
	asking.Wait()
}

// checkTenants tells how the tokens of all tenants, or one, are.
func (p *parts) checkTenants(only string) []tenantCheck {
	tenants := p.tenantsNamed(only)
	checks := make([]tenantCheck, len(tenants))
	now := time.Now()
	for i, t := range tenants {
		row := slices.IndexFunc(p.view.Tenants, func(row admin.Tenant) bool { return row.Name == t.Name })
		checks[i] = tenantCheck{TenantReport: p.view.Report(p.view.Tenants[row], now)}
		for _, s := range checks[i].Services {
			for _, problem := range problems(s) {
				if s.Granted {
					checks[i].Problems = append(checks[i].Problems, string(s.Service)+": "+problem)
				}
			}
		}
	}
	return checks
}

// tokenProblems are what is wrong with a service but for permissions.
func tokenProblems(s admin.ServiceReport) []string {
	var all []string
	switch {
	case s.LeftOut != "":
		return nil
	case s.Token.Live:
	case s.LastError != nil:
		all = append(all, s.LastError.Sentence+" "+s.LastError.Remedy)
	default:
		all = append(all, "The token was asked for and has not come in time.")
	}
	if s.Region == "" {
		all = append(all, "No region answers; the command regions shows why.")
	}
	return all
}

// problems are all that is wrong with a service.
func problems(s admin.ServiceReport) []string {
	all := tokenProblems(s)
	for _, m := range s.Missing {
		all = append(all, fmt.Sprintf("The token lacks %s, which %s needs.", anyOf(m.AnyOf), m.Operations[0]))
	}
	return all
}

// wrong reports whether the report tells of anything that should be mended. A
// service that nobody is granted anything of may fail.
func (r checkReport) wrong() bool {
	return len(r.Faults) > 0 || len(r.Impaired) > 0 ||
		slices.ContainsFunc(r.Tenants, func(t tenantCheck) bool { return len(t.Problems) > 0 })
}

// report prints the report, and errs with errFound when anything is wrong.
func (c *cli) report(r checkReport, output string) error {
	r.OK = !r.wrong()
	var err error
	if output == "json" {
		err = writeJSON(c.stdout, r)
	} else {
		_, err = c.stdout.Write([]byte(r.text()))
	}
	if err == nil && !r.OK {
		return errFound
	}
	return err
}
