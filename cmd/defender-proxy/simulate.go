package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"defender-proxy/internal/simulator"
)

// simulatorFlags adds what demo and simulate share.
func simulatorFlags(cmd *cobra.Command, s *simulator.Config) {
	cmd.Flags().Uint64Var(&s.Seed, "seed", 1, "decides the fleet and the misbehaviour")
	cmd.Flags().IntVar(&s.Machines, "machines", 0, "machines in the fleet (240)")
	cmd.Flags().IntVar(&s.Alerts, "alerts", 0, "alerts in the fleet (400)")
	cmd.Flags().IntVar(&s.PageSize, "page-size", 0, "rows of a page when a request has no $top (100)")
	cmd.Flags().BoolVar(&s.Quotas, "quotas", false, "enforce the documented quotas")
	cmd.Flags().Float64Var(&s.Misbehave, "misbehave", 0, "share of answers that go wrong, 0 to 1")
}

func (c *cli) simulate() *cobra.Command {
	var s simulator.Config
	var ca, file string
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Run only the simulator of Entra ID, Defender and Graph",
		Long: `Run a simulator of Microsoft's side on loopback: Entra ID, seven regions of
Defender, XDR and Graph, and blob storage, over TLS with a certificate authority
of its own. It prints what a configuration needs to reach it. Its control port
sets faults and delays while it runs.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sim, err := simulator.New(s)
			if err != nil {
				return portHint(err, "--base-port")
			}
			named := orElse(ca, "simulator-ca.pem") // in a configuration, by whose folder a relative path goes
			switch {
			case file != "" && ca == "":
				ca = filepath.Join(filepath.Dir(file), named)
			case file != "":
				if named, err = filepath.Abs(ca); err != nil {
					_ = sim.Close()
					return err
				}
			}
			if ca != "" {
				if err := os.WriteFile(ca, sim.CA(), 0o644); err != nil {
					_ = sim.Close()
					return fmt.Errorf("write the simulator's certificate authority: %w", err)
				}
			}
			written := simulatorConfig(sim, "127.0.0.1:8080", "127.0.0.1:8081", named, nil)
			if file != "" {
				if err := os.WriteFile(file, []byte(written), 0o644); err != nil {
					_ = sim.Close()
					return fmt.Errorf("write the configuration: %w", err)
				}
			}
			fmt.Fprintf(c.stdout, "simulator: control port %s, Entra ID %s, seed %d\n", sim.ControlURL(), sim.Authority(), s.Seed)
			for _, r := range sim.Regions() {
				fmt.Fprintf(c.stdout, "  %-4s %s\n", r, sim.Endpoint(r))
			}
			if file == "" {
				fmt.Fprintf(c.stdout, "\nA configuration for it (%s=%s in the environment; --config-file writes it, and the certificate authority beside it):\n\n%s",
					demoSecret, simulator.DefaultSecret, written)
			} else {
				fmt.Fprintf(c.stdout, "\nNow: %s=%s defender-proxy serve --config %s\n", demoSecret, simulator.DefaultSecret, file)
			}
			return sim.Run(cmd.Context())
		},
	}
	cmd.Flags().IntVar(&s.BasePort, "base-port", 0, "the first of twelve ports; free ones when left out")
	cmd.Flags().StringVar(&ca, "ca-file", "", "write the certificate authority to this `file`, for egress.ca_file (beside --config-file when left out)")
	cmd.Flags().StringVar(&file, "config-file", "", "write a configuration for it to this `file`")
	simulatorFlags(cmd, &s)
	return cmd
}

// portHint adds to an address that is taken how to choose another.
func portHint(err error, flags string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; choose another with %s", err, flags)
	}
	return err
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// demoSecret is the environment variable of the simulator's client secret.
const demoSecret = "SIMULATOR_SECRET"

// simulatorConfig is a configuration for a simulator's default tenant.
func simulatorConfig(sim *simulator.Simulator, address, admin, ca string, allow []string) string {
	var b strings.Builder
	tenant := simulator.DefaultTenant()
	if allow == nil {
		allow = []string{"read", "hunt"}
	}
	fmt.Fprintf(&b, `listeners:
  - address: %s
admin: {address: "%s"}
clients:
  - name: local
    from: [127.0.0.0/8, "::1/128"]
    allow: [%s]
tenants:
  - name: %s
    id: %s
    cloud: simulator
    credential:
      client_id: %s
      client_secret: {env: %s}
egress: {ca_file: %q}
clouds:
  - name: simulator
    authority: %s
    endpoints:
`, address, admin, strings.Join(allow, ", "), tenant.Name, tenant.ID, tenant.Apps[0].ClientID, demoSecret, ca, sim.Authority())
	for _, s := range []string{"mde", "xdr", "graph"} {
		fmt.Fprintf(&b, "      %s:\n", s)
		for _, r := range sim.Regions() {
			fmt.Fprintf(&b, "        %s: %s\n", r, sim.Endpoint(r))
		}
	}
	fmt.Fprintf(&b, `    audiences:
      mde: https://api.securitycenter.microsoft.com
      xdr: https://api.security.microsoft.com
      graph: https://graph.microsoft.com
    blob_hosts: ["%s"]
`, strings.TrimPrefix(sim.BlobURL(), "https://"))
	return b.String()
}
