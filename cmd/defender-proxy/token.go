package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"defender-proxy/internal/token"
	"defender-proxy/policy"
)

func (c *cli) token() *cobra.Command {
	var file, tenant, service, output string
	var reveal bool
	cmd := &cobra.Command{
		Use:   "token --config FILE [--tenant NAME] [--service mde|xdr|graph]",
		Short: "Get a token from Entra ID and show its claims",
		Long: `Get a token from Entra ID for a tenant and a service, and show what it says. The
token itself is printed only with --reveal, alone and to standard output: whoever
has it can do what it permits until it expires.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(policy.Services(), policy.Service(service)) {
				return &usageError{fmt.Errorf("--service %s is none of %v", service, policy.Services())}
			}
			return c.online(cmd.Context(), file, func(ctx context.Context, p *parts) error {
				t, err := p.pick(tenant)
				if err != nil {
					return err
				}
				u := t.Upstreams[policy.Service(service)]
				if u == nil {
					return fmt.Errorf("tenant %s has no endpoint for %s in its cloud and regions", t.Name, service)
				}
				b, err := u.Token.Bearer(ctx)
				if err != nil {
					return err
				}
				if reveal {
					_, err := fmt.Fprintln(c.stdout, strings.TrimPrefix(b.Authorization(), "Bearer "))
					return err
				}
				return c.showToken(t.Name, u.Audience, b, output)
			})
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&tenant, "tenant", "", "the tenant's `name`; the only one when left out")
	cmd.Flags().StringVar(&service, "service", string(policy.ServiceMDE), "mde, xdr or graph")
	cmd.Flags().BoolVar(&reveal, "reveal", false, "print the token itself, and nothing else")
	outputFlag(cmd, &output)
	return cmd
}

func (c *cli) showToken(tenant, audience string, b *token.Bearer, output string) error {
	claims := b.Claims()
	left := time.Until(b.Expires()).Round(time.Second)
	if output == "json" {
		return writeJSON(c.stdout, map[string]any{
			"tenant": tenant, "audience": audience, "tid": claims.Tenant, "appid": claims.AppID, "roles": claims.Roles,
			"scp": claims.Scopes, "uti": claims.UTI, "expires_in": int(left.Seconds()),
		})
	}
	return table(c.stdout, [][]string{
		{"tenant", tenant}, {"tid", string(claims.Tenant)}, {"audience", audience}, {"application", claims.AppID},
		{"roles", orNone(claims.Roles)}, {"scp", orNone(claims.Scopes)}, {"uti", claims.UTI}, {"expires in", left.String()},
	})
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, " ")
}
