package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"defender-proxy/internal/config"
	"defender-proxy/internal/redact"
	"defender-proxy/internal/simulator"
	"defender-proxy/policy"
)

func (c *cli) demo() *cobra.Command {
	var s simulator.Config
	var address, admin string
	var allow []string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the proxy against a simulator; no account needed",
		Long: `Run the proxy and a simulator of Microsoft's side in one process, with a made-up
tenant, until it is interrupted. The proxy is the real one; only Microsoft is not.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.runDemo(cmd.Context(), s, address, admin, allow)
		},
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1:8080", "where the proxy listens, on loopback")
	cmd.Flags().StringVar(&admin, "admin", "127.0.0.1:8081", "where the operator's pages are")
	cmd.Flags().StringSliceVar(&allow, "allow", []string{"read", "hunt"}, "what callers are granted, such as read,hunt,respond")
	simulatorFlags(cmd, &s)
	return cmd
}

func (c *cli) runDemo(ctx context.Context, s simulator.Config, address, admin string, allow []string) error {
	tenant, err := permitted(simulator.DefaultTenant(), allow)
	if err != nil {
		return err
	}
	s.Tenants = []simulator.Tenant{tenant}
	sim, err := simulator.New(s)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "defender-proxy-demo-")
	if err != nil {
		_ = sim.Close()
		return fmt.Errorf("make a folder for the simulator's certificate authority: %w", err)
	}
	defer os.RemoveAll(dir)
	ca := filepath.Join(dir, "ca.pem")
	env := func(name string) (string, bool) {
		if name == demoSecret {
			return simulator.DefaultSecret, true
		}
		return c.env(name)
	}
	cfg, err := func() (*config.Config, error) {
		if err := os.WriteFile(ca, sim.CA(), 0o600); err != nil {
			return nil, err
		}
		return config.Parse("demo", []byte(simulatorConfig(sim, address, admin, ca, allow)), env)
	}()
	if err != nil {
		_ = sim.Close()
		return err
	}

	simulating, stopSimulating := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() {
		if err := sim.Run(simulating); err != nil {
			fmt.Fprintf(c.stderr, "defender-proxy: the simulator stopped: %v\n", err)
		}
	})
	defer background.Wait()
	defer stopSimulating()

	log := zerolog.New(zerolog.ConsoleWriter{Out: redact.Writer(c.stderr), NoColor: true, TimeFormat: time.TimeOnly}).Level(zerolog.WarnLevel).With().Timestamp().Logger()
	err = runProxy(ctx, running{config: cfg, env: env, log: log, records: &storyWriter{w: c.stdout}, stderr: c.stderr, up: func(p *parts, where addresses) {
		waiting, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		p.measured(waiting)
		c.welcome(p, sim, where, allow)
	}})
	if err == nil {
		fmt.Fprintln(c.stdout, "\nThe demo has ended.")
	}
	return portHint(err, "--address 127.0.0.1:PORT and --admin 127.0.0.1:PORT; port 0 takes a free one")
}

// permitted gives the simulated application the permissions of what --allow
// grants beyond read and hunt, so that it can be tried.
func permitted(t simulator.Tenant, allow []string) (simulator.Tenant, error) {
	catalog, err := policy.NewCatalog(nil)
	if err != nil {
		return t, err
	}
	grants, err := catalog.Grants(policy.Entries(allow...), policy.Entries("read", "hunt"))
	if err != nil {
		return t, &usageError{fmt.Errorf("--allow: %w", err)}
	}
	for _, op := range catalog.Operations() {
		for _, p := range op.Application {
			held := t.Apps[0].Permissions[string(op.Service)]
			if grants.Rule(op, policy.Situation{}).Allow && !slices.Contains(held, string(p)) {
				t.Apps[0].Permissions[string(op.Service)] = append(held, string(p))
			}
		}
	}
	return t, nil
}

// welcome says what is running and what to try.
func (c *cli) welcome(p *parts, sim *simulator.Simulator, where addresses, allow []string) {
	base := "http://" + where.listeners[0].String()
	nearest := "not measured yet"
	t := p.tenants[0]
	if e, _ := t.Upstreams["mde"].Regions.Current(); e.URL != nil {
		for _, st := range p.monitor.Snapshot() {
			if st.Service == "mde" && st.Region == e.Region {
				nearest = fmt.Sprintf("%s (%s)", e.Region, short(st.Latency))
			}
		}
	}
	fmt.Fprintf(c.stdout, `defender-proxy demo: the proxy, and a simulator in Microsoft's place

  proxy       %-24s tenant %s; granted: %s
  operator    http://%-17s health, regions, metrics
  simulator   %-24s faults and delays, while it runs
  regions     %s; nearest: %s

Paste into another shell:

  curl %s/api/alerts
  curl -X POST %s/api/machines/%s/isolate -d '{"Comment":"test"}'
  curl '%s/api/machines?$filter=healthStatus%%20eq%%20%%27Active%%27&$top=3'
  u=%s/api/alerts; while [ -n "$u" ]; do echo "$u"; u=$(curl -s "$u" | sed -n 's/.*"@odata.nextLink":"\([^"]*\)".*/\1/p'); done
  curl %s/

Ctrl-C ends it. What callers ask for appears below.

`, base, t.Name, strings.Join(allow, ", "), where.admin.String(), sim.ControlURL(), strings.Join(sim.Regions(), " "), nearest,
		base, base, sim.MachineID(), base, base, base)
}

// storyWriter turns audit records, one Write call each, into lines for people.
type storyWriter struct{ w io.Writer }

func (s *storyWriter) Write(line []byte) (int, error) {
	var r struct {
		Event, Method, Path, Operation, Code, Region, Client string
		Status                                               int
		Duration                                             float64 `json:"duration_ms"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return 0, errors.New("an audit record is not JSON")
	}
	if r.Event != "request" {
		return len(line), nil
	}
	outcome := "from " + r.Region
	if r.Code != "" {
		outcome = "refused: " + r.Code
	} else if r.Region == "" {
		outcome = "by the proxy itself"
	}
	_, err := fmt.Fprintf(s.w, "%s  %s %s → %d %s, %.0f ms  (%s)\n", time.Now().Format(time.TimeOnly), r.Method, r.Path, r.Status, outcome, r.Duration, cmp.Or(r.Operation, "no operation"))
	return len(line), err
}
