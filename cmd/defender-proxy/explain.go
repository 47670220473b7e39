package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"defender-proxy/internal/config"
	"defender-proxy/policy"
	"defender-proxy/proxy"
)

func (c *cli) explain() *cobra.Command {
	var file, output string
	var q proxy.Question
	var roles, scopes []string
	var body, at string
	var online bool
	cmd := &cobra.Command{
		Use:   "explain METHOD PATH",
		Short: "Tell what would become of a request, and why",
		Long: `Tell which operation a request asks for, whether a client group is granted it, and
which permission the token needs. Without a configuration the answer is that of
a fresh one: read and hunt are granted. The token's half is left open unless
--roles or --scopes say what to assume, or --online asks Entra ID.

A condition of a grant (when:) is asked of --body, a text or @FILE; entries with an
end (until:) are judged as of --at. Every entry that names the operation is listed.

Exits with 1 when the request would be refused.`,
		Example: `  defender-proxy explain GET /api/alerts
  defender-proxy explain POST /api/machines/1/isolate --config proxy.yaml --client soc --roles Machine.Isolate
  defender-proxy explain POST /api/machines/1/isolate --config proxy.yaml --body '{"IsolationType":"Full"}' --at 2027-01-01T00:00:00Z`,
		Args: exactArguments(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if online && len(roles)+len(scopes) > 0 {
				return &usageError{errors.New("--online asks Entra ID what the token permits; --roles and --scopes assume it: say one or the other")}
			}
			q.Method, q.Path = strings.ToUpper(args[0]), args[1]
			var err error
			if q.Body, err = bodyFlag(body); err != nil {
				return err
			}
			if q.At, err = momentFlag(at); err != nil {
				return err
			}
			if !online {
				q.Claims = &proxy.AssumedClaims{Roles: roles, Scopes: scopes, Unknown: len(roles)+len(scopes) == 0}
			}
			ask := func(ctx context.Context, p *parts) error { return c.answer(ctx, p, q, output) }
			if online {
				return c.online(cmd.Context(), file, ask)
			}
			cfg := fresh()
			if file != "" {
				if cfg, err = c.load(file); err != nil {
					return err
				}
			}
			p, err := c.alone(cfg, file)
			if err != nil {
				return err
			}
			return ask(cmd.Context(), p)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().Lookup("config").Usage = "the configuration `file`; a fresh one when left out"
	cmd.Flags().StringVar(&q.Client, "client", "", "the client group's `name`; the first one when left out")
	cmd.Flags().StringVar(&q.Tenant, "tenant", "", "the tenant's `name`; the only one when left out")
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "`permissions` of an application's token to assume")
	cmd.Flags().StringSliceVar(&scopes, "scopes", nil, "`permissions` of a user's token to assume")
	cmd.Flags().StringVar(&body, "body", "", "the `JSON` that the request would send, or @FILE")
	cmd.Flags().StringVar(&at, "at", "", "the `moment` to judge by, such as 2027-01-31T18:00:00Z; now when left out")
	cmd.Flags().BoolVar(&online, "online", false, "ask Entra ID for the token; needs --config")
	outputFlag(cmd, &output)
	return cmd
}

// bodyFlag reads the value of --body; nil where there is none.
func bodyFlag(text string) ([]byte, error) {
	file, is := strings.CutPrefix(text, "@")
	switch {
	case text == "":
		return nil, nil
	case !is:
		return []byte(text), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--body: %w", err)}
	}
	if data == nil {
		data = []byte{} // an empty body is known to be empty
	}
	return data, nil
}

// momentFlag reads the value of --at; the zero time where there is none.
func momentFlag(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, &usageError{fmt.Errorf("--at %s is not a moment with its zone, such as 2027-01-31T18:00:00Z", text)}
	}
	return at, nil
}

// nobody is the tenant of somebody who has configured none.
const nobody = "yours"

// fresh is the configuration of somebody who has written none: the defaults for
// one tenant.
func fresh() *config.Config {
	return &config.Config{
		Clients: []config.ClientGroup{{Name: "local", Allow: config.Granting("read", "hunt")}},
		Tenants: []config.Tenant{{Name: nobody, Cloud: "commercial", Regions: config.TenantRegions{Prefer: config.Auto}}},
		Regions: config.Regions{ConnectTimeout: 1, FirstByteTimeout: 1},
		Limits:  config.Limits{MaxInFlight: 1, MaxRequestBytes: 1},
	}
}

func (c *cli) answer(ctx context.Context, p *parts, q proxy.Question, output string) error {
	if q.Client == "" {
		q.Client = p.clients[0].Name
	}
	e, err := p.proxy.Explain(ctx, q)
	if err != nil {
		return &usageError{err}
	}
	if output == "json" {
		err = writeJSON(c.stdout, e)
	} else {
		err = explanationTable(c, e)
	}
	if err == nil && e.Code != "" {
		return errFound
	}
	return err
}

// stepText tells of an entry what came of it.
func stepText(s policy.Step) string {
	text := s.Entry
	if s.When != "" {
		text += " when " + s.When
	}
	switch {
	case s.Decided && s.Why != "":
		text += " (decides; " + s.Why + ")"
	case s.Decided:
		text += " (decides)"
	case s.Fits && s.Why != "":
		text += " (" + s.Why + ")"
	case !s.Fits:
		text += " (does not hold: " + s.Why + ")"
	}
	return text
}

func explanationTable(c *cli, e proxy.Explanation) error {
	verdict := "allowed"
	switch {
	case e.Code != "":
		verdict = "refused: " + string(e.Code)
	case e.When != "":
		verdict = "granted on a condition that looks at the body (--body says which)"
	case e.Permitted == nil:
		verdict = "granted; the token was not asked (--online asks it)"
	case e.Waits:
		verdict = "allowed, once somebody else approves it"
	}
	rows := [][]string{{"request", e.Method + " " + e.Path}}
	add := func(key, value string) {
		if value != "" {
			rows = append(rows, []string{key, value})
		}
	}
	if e.Sent != e.Path {
		add("sent as", e.Sent)
	}
	add("operation", e.Operation)
	add("class", string(e.Class))
	add("service", string(e.Service))
	add("goes out as", e.SentAs)
	add("client group", e.Client)
	if e.Tenant != nobody {
		add("tenant", e.Tenant)
	}
	add("entry", e.Rule)
	for _, step := range e.Rules {
		add("  "+step.List, stepText(step))
	}
	add("condition", e.When)
	if e.Waits {
		add("approval by", strings.Join(e.ApproveBy, " "))
	}
	add("reported", strings.Join(e.Reported, " "))
	if e.Operation != "" {
		add("needs", names(e.Needs))
	}
	if e.Permitted != nil {
		add("token holds", names(e.Holds))
	}
	add("verdict", verdict)
	return table(c.stdout, append(rows, []string{"because", e.Message}))
}
