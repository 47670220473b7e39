package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"defender-proxy/internal/config"
	"defender-proxy/policy"
	"defender-proxy/proxy"
)

func (c *cli) check() *cobra.Command {
	var file, tenant, output string
	var online bool
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Validate a configuration, and with --online what it leads to",
		Long: `Validate a configuration: every fault at once, with its place. With --online, get
each tenant's tokens, read them, probe each region, and compare the permissions
they hold with what client groups are granted.

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
			r := checkReport{File: file, Warnings: lines(cfg.Warnings)}
			for _, i := range cfg.Impaired {
				r.Faults = append(r.Faults, i.Fault.String())
			}
			if online {
				err := c.online(cmd.Context(), file, func(ctx context.Context, p *parts) error {
					tenants := p.tenants
					if tenant != "" {
						t, err := p.pick(tenant)
						if err != nil {
							return err
						}
						tenants = []proxy.Tenant{t}
					}
					p.measured(ctx)
					for _, t := range tenants {
						r.Tenants = append(r.Tenants, p.checkTenant(ctx, t))
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return c.report(r, output)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&online, "online", false, "ask Entra ID and the regions too")
	cmd.Flags().StringVar(&tenant, "tenant", "", "with --online, only the tenant of this `name`")
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

// checkReport is what check has to say.
type checkReport struct {
	File     string        `json:"file"`
	OK       bool          `json:"ok"`
	Faults   []string      `json:"faults,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	Tenants  []tenantCheck `json:"tenants,omitempty"`
}

type tenantCheck struct {
	Name     string         `json:"name"`
	Services []serviceCheck `json:"services"`
}

type serviceCheck struct {
	Service   policy.Service      `json:"service"`
	Audience  string              `json:"audience"`
	Needed    bool                `json:"needed"` // some client group is granted an operation of it
	Problem   string              `json:"problem,omitempty"`
	LeftOut   string              `json:"left_out,omitempty"` // why the tenant cannot use it, by its cloud or regions
	Holds     []policy.Permission `json:"holds"`
	ExpiresIn int                 `json:"expires_in,omitempty"` // seconds
	Region    string              `json:"region,omitempty"`
	Missing   []missing           `json:"missing,omitempty"`
}

// missing is a permission that granted operations need and the token lacks.
type missing struct {
	AnyOf      []policy.Permission `json:"any_of"`
	Operations []string            `json:"operations"`
	// ReadOnly says that the operations only read although no smaller permission
	// is documented.
	ReadOnly bool     `json:"read_only,omitempty"`
	Clients  []string `json:"clients"`
	Grant    string   `json:"grant"`
}

// checkTenant asks for the tokens of a tenant and compares.
func (p *parts) checkTenant(ctx context.Context, t proxy.Tenant) tenantCheck {
	out := tenantCheck{Name: t.Name}
	for _, s := range services(t) {
		u := t.Upstreams[s]
		row := serviceCheck{Service: s, Audience: u.Audience, Needed: len(p.granted(t, s)) > 0}
		if e, _ := u.Regions.Current(); u.Regions.Answering() {
			row.Region = string(e.Region)
		} else {
			row.Problem = "no region answers; the command regions shows why. "
		}
		b, err := u.Token.Bearer(ctx)
		if err != nil {
			row.Problem += strings.TrimPrefix(err.Error(), "token: ")
			out.Services = append(out.Services, row)
			continue
		}
		permits := p.catalog.Permits(b.Claims().Roles, b.Claims().Scopes)
		row.Holds = permits.Held()
		row.ExpiresIn = int(time.Until(b.Expires()).Seconds())
		row.Missing = p.missing(t, s, permits)
		out.Services = append(out.Services, row)
	}
	for _, s := range policy.Services() {
		if err := t.Unreachable[s]; err != nil {
			out.Services = append(out.Services, serviceCheck{
				Service: s, Needed: len(p.granted(t, s)) > 0, LeftOut: strings.TrimPrefix(err.Error(), "regions: "),
			})
		}
	}
	return out
}

// granted lists which client groups are granted each operation of a service in
// a tenant.
func (p *parts) granted(t proxy.Tenant, s policy.Service) map[*policy.Operation][]string {
	m := make(map[*policy.Operation][]string)
	for _, c := range p.clients {
		if c.Tenants != nil && !slices.Contains(c.Tenants, t.Name) {
			continue
		}
		for _, op := range p.catalog.Operations() {
			if op.Service == s && c.Grants.Rule(op).Allow {
				m[op] = append(m[op], c.Name)
			}
		}
	}
	return m
}

// missing gathers what is granted and not permitted, by the permissions of
// which one is wanted.
func (p *parts) missing(t proxy.Tenant, s policy.Service, permits *policy.Permits) []missing {
	granted := p.granted(t, s)
	byNeed := make(map[string]*missing)
	var order []string
	for _, op := range p.catalog.Operations() { // in the catalog's order
		groups, ok := granted[op]
		if !ok || permits.Allows(op) {
			continue
		}
		needs := permits.Needs(op)
		key := names(needs)
		m := byNeed[key]
		if m == nil {
			kind := "application"
			if permits.Delegated() {
				kind = "delegated"
			}
			m = &missing{AnyOf: needs, ReadOnly: true, Grant: proxy.GrantAdvice(s, t.ClientID, kind)}
			byNeed[key] = m
			order = append(order, key)
		}
		m.ReadOnly = m.ReadOnly && !op.Class.Writes() && !slices.ContainsFunc(needs, reads)
		m.Operations = append(m.Operations, op.ID)
		for _, g := range groups {
			if !slices.Contains(m.Clients, g) {
				m.Clients = append(m.Clients, g)
			}
		}
	}
	var out []missing
	for _, key := range order {
		out = append(out, *byNeed[key])
	}
	return out
}

// reads reports whether a permission's name says that it only reads.
func reads(p policy.Permission) bool { return strings.Contains(string(p), ".Read.") }

// wrong reports whether the report tells of anything that should be mended. A
// service that nobody is granted anything of may fail.
func (r checkReport) wrong() bool {
	bad := len(r.Faults) > 0
	for _, t := range r.Tenants {
		for _, s := range t.Services {
			bad = bad || s.Needed && (s.Problem != "" || len(s.Missing) > 0)
		}
	}
	return bad
}

// report prints the report, and errs with errFound when anything is wrong.
func (c *cli) report(r checkReport, output string) error {
	r.OK = !r.wrong()
	var err error
	if output == "json" {
		err = writeJSON(c.stdout, r)
	} else {
		err = r.print(c)
	}
	if err == nil && !r.OK {
		return errFound
	}
	return err
}

func (r checkReport) print(c *cli) error {
	for _, f := range r.Faults {
		fmt.Fprintln(c.stdout, f)
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(c.stdout, "warning:", w)
	}
	if len(r.Faults) == 0 {
		fmt.Fprintf(c.stdout, "%s: the configuration is valid\n", r.File)
	}
	for _, t := range r.Tenants {
		fmt.Fprintf(c.stdout, "\ntenant %s\n", t.Name)
		for _, s := range t.Services {
			fmt.Fprintf(c.stdout, "  %s  %s\n", s.Service, s.Audience)
			switch {
			case s.LeftOut != "":
				fmt.Fprintf(c.stdout, "    left out: %s\n", s.LeftOut)
				continue
			case s.Problem != "" && !s.Needed:
				fmt.Fprintf(c.stdout, "    not used: nothing of it is granted (%s)\n", s.Problem)
				continue
			case s.Problem != "":
				fmt.Fprintf(c.stdout, "    WRONG: %s\n", s.Problem)
			}
			if s.ExpiresIn > 0 {
				fmt.Fprintf(c.stdout, "    token    for %s, holds %s\n", time.Duration(s.ExpiresIn)*time.Second, names(s.Holds))
			}
			if s.Region != "" {
				fmt.Fprintf(c.stdout, "    region   %s\n", s.Region)
			}
			for _, m := range s.Missing {
				fmt.Fprintf(c.stdout, "    MISSING  %s\n             for %s, granted to %s\n", strings.Join(strings.Fields(names(m.AnyOf)), " or "), strings.Join(m.Operations, ", "), strings.Join(m.Clients, ", "))
				if m.ReadOnly {
					fmt.Fprintln(c.stdout, "             It permits more than reading; Microsoft documents no smaller one. Consider to deny the operation instead.")
				}
			}
			if len(s.Missing) > 0 {
				fmt.Fprintf(c.stdout, "    %s\n    Or deny these operations, so that nobody tries them.\n", s.Missing[0].Grant)
			}
		}
	}
	return nil
}
