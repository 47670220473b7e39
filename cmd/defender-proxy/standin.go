package main

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"defender-proxy/internal/config"
	"defender-proxy/internal/standin"
	"defender-proxy/regions"
)

func (c *cli) standIn() *cobra.Command {
	var file, cloud, address, dir, output string
	cmd := &cobra.Command{
		Use:   "stand-in",
		Short: "Say how tools with fixed hosts reach the proxy, and make a certificate for it",
		Long: `Half of the tools that call Defender cannot be given a URL: they know Microsoft's
names and no others. They reach the proxy where those names lead to it and its
listener has a certificate that they trust.

stand-in prints what that takes: lines for the hosts file, how each kind of tool
is told to trust the certificate, and the listener to configure. Everything but
lines to paste begins with #.

The names are those of Microsoft's under hosts of the listeners of --config; where
there are none, all that tools for the cloud know. With --dir it makes an authority
and a certificate for exactly those names, or renews the certificate; files that it
did not make are left alone. Both are for a network of your own: nobody else's
machine trusts them.`,
		Example: "  defender-proxy stand-in --address 10.1.2.3 --dir /etc/defender-proxy/stand-in",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.standInFor(file, cloud)
			if err != nil {
				return err
			}
			if address != "" {
				ip, err := netip.ParseAddr(address)
				if err != nil || ip.IsUnspecified() || ip.Zone() != "" || ip.IsMulticast() {
					return &usageError{fmt.Errorf("--address %q is not the address of a machine such as 10.1.2.3", address)}
				}
				s.Address = ip.Unmap().String()
				clear(s.at)
			}
			s.Listener.Address = net.JoinHostPort(s.Address, s.port)
			if dir != "" {
				if dir, err = filepath.Abs(dir); err != nil {
					return err
				}
				made, err := standin.Renew(dir, s.Names, time.Now())
				if err != nil {
					return fmt.Errorf("make a certificate in %s: %w", dir, err)
				}
				s.Made, s.Listener.TLS = &made, tlsFiles{made.Cert, made.Key}
			}
			for _, name := range s.Names {
				s.Hosts = append(s.Hosts, cmp.Or(s.at[name], s.Address)+" "+name)
			}
			if output == "json" {
				return writeJSON(c.stdout, s)
			}
			_, err = c.stdout.Write([]byte(s.words()))
			return err
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the configuration `file`, for the names of its listeners")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	cmd.Flags().StringVar(&cloud, "cloud", "", "the `cloud` whose names are meant: "+strings.Join(builtIn(), ", ")+" (default the tenants', else commercial)")
	_ = cmd.RegisterFlagCompletionFunc("cloud", cobra.FixedCompletions(builtIn(), cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().StringVar(&address, "address", "", "the `address` that the names are to lead to (default the listener's, else 127.0.0.1)")
	cmd.Flags().StringVar(&dir, "dir", "", "make or renew the certificates in this `folder`")
	outputFlag(cmd, &output)
	return cmd
}

// standIn is what it takes for the proxy to stand in for names of Microsoft's.
type standIn struct {
	Address  string          `json:"address"` // that the names are to lead to
	Names    []string        `json:"names"`
	Hosts    []string        `json:"hosts"` // lines of a hosts file
	Listener standInListener `json:"listener"`
	Made     *standin.Made   `json:"made,omitempty"`

	port string
	have []string          // the addresses of the listeners whose names these are
	at   map[string]string // where they lead, by name, if not all to Address
}

// standInListener is the listener to configure, in the keys of the configuration.
type standInListener struct {
	Address string   `json:"address"`
	Hosts   []string `json:"hosts"`
	TLS     tlsFiles `json:"tls"`
	Clients []string `json:"clients"`
}

type tlsFiles struct {
	CertFile string `json:"cert_file"`
	KeyFile  string `json:"key_file"`
}

// standInFor begins with what a configuration says; file may be empty.
func (c *cli) standInFor(file, cloud string) (*standIn, error) {
	if cloud != "" && regions.MicrosoftHosts(cloud) == nil {
		return nil, &usageError{fmt.Errorf("--cloud %q is none of %s", cloud, strings.Join(builtIn(), ", "))}
	}
	s := &standIn{Address: "127.0.0.1", port: "443"}
	s.Listener.TLS = tlsFiles{"stand-in.pem", "stand-in.key"}
	s.Listener.Clients = []string{"local"}
	clouds := []string{cloud}
	if file != "" {
		// The certificates that it names may be those that are to be made.
		cfg, err := config.LoadUncertified(file, c.env)
		if err != nil {
			return nil, err
		}
		s.configured(cfg)
		if cloud == "" {
			clouds = nil
			for _, t := range cfg.Tenants {
				clouds = append(clouds, t.Cloud)
			}
		}
	}
	for _, name := range clouds {
		s.all(name)
	}
	if len(s.Names) == 0 {
		s.all("commercial")
	}
	s.Listener.Hosts = s.Names
	return s, nil
}

// configured takes the names of Microsoft's that listeners answer for, the addresses
// of these, and the groups that each of them admits: one listener for all names must
// let nobody in that one of them keeps out. Without such a listener all groups are
// there to choose from.
func (s *standIn) configured(cfg *config.Config) {
	var groups []string
	for _, g := range cfg.Clients {
		groups = append(groups, g.Name)
	}
	s.at = make(map[string]string)
	for _, l := range cfg.Listeners {
		at, bound := addressOf(l.Address)
		matches := false
		for _, host := range l.Hosts {
			if _, ok := regions.MicrosoftHost(host); !ok {
				continue
			}
			matches = true
			if name, _, err := net.SplitHostPort(host); err == nil {
				host = name
			}
			if host = strings.ToLower(host); slices.Contains(s.Names, host) {
				continue
			}
			s.Names = append(s.Names, host)
			if bound && !at.Addr().IsUnspecified() {
				s.at[host] = at.Addr().String()
			}
		}
		if !matches {
			continue
		}
		if s.have = append(s.have, l.Address); len(s.have) == 1 && bound {
			s.port = fmt.Sprint(at.Port())
			s.Address = cmp.Or(s.at[s.Names[0]], s.Address)
		}
		if l.Clients != nil {
			groups = slices.DeleteFunc(groups, func(g string) bool { return !slices.Contains(l.Clients, g) })
		}
	}
	s.Listener.Clients = groups
}

// all adds the names of a cloud, unless listeners have named theirs.
func (s *standIn) all(cloud string) {
	for _, h := range regions.MicrosoftHosts(cloud) {
		if s.have == nil && !slices.Contains(s.Names, h.Name) {
			s.Names = append(s.Names, h.Name)
		}
	}
}

// builtIn names the clouds whose names are known.
func builtIn() []string {
	var all []string
	for _, c := range regions.Clouds() {
		all = append(all, c.Name)
	}
	return all
}
