package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"defender-proxy/internal/audit"
	"defender-proxy/internal/config"
	"defender-proxy/internal/credential"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

func (c *cli) login() *cobra.Command {
	var file, flow string
	cmd := &cobra.Command{
		Use:   "login TENANT --config FILE [--flow device_code|authorization_code]",
		Short: "Sign a user in, for a tenant whose credential is a user",
		Long: `Sign a user in to Entra ID, for a tenant whose credential is a user. It shows a
page to open and, with the flow device_code, a code to type there on any device;
with authorization_code the page has to be opened on this machine.

The refresh token goes to the tenant's token_store, encrypted, and never to the
screen. Run it as the user that runs the proxy. A proxy that is running uses the
new sign-in from its next request for a token on.`,
		Args: exactArguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.load(file)
			if err != nil {
				return err
			}
			t, err := userTenant(cfg, args[0])
			if err != nil {
				return err
			}
			o, err := c.loginOptions(cfg, file, t, flow)
			if err != nil {
				return err
			}
			return c.signIn(cmd.Context(), t, o, userStore(t))
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.tenantNames(file), cobra.ShellCompDirectiveNoFileComp
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&flow, "flow", "", "device_code or authorization_code; the configured one when left out")
	_ = cmd.RegisterFlagCompletionFunc("flow", cobra.FixedCompletions([]string{config.FlowDeviceCode, config.FlowAuthorizationCode}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// userTenant finds a tenant in which somebody can sign in.
func userTenant(cfg *config.Config, name string) (config.Tenant, error) {
	var users []string
	for _, t := range cfg.Tenants {
		user := t.Credential.User
		interactive := user != nil && user.Flow != config.FlowPassword
		switch {
		case t.Name == name && user == nil:
			return t, &usageError{fmt.Errorf("tenant %s needs no login: its credential is an application's", name)}
		case t.Name == name && !interactive:
			return t, &usageError{fmt.Errorf("tenant %s needs no login: its user has the flow password, and the proxy signs in itself", name)}
		case t.Name == name:
			return t, nil
		case interactive:
			users = append(users, t.Name)
		}
	}
	if len(users) == 0 {
		return config.Tenant{}, &usageError{fmt.Errorf("no tenant is called %s, and the credential of none is a user who signs in", name)}
	}
	return config.Tenant{}, &usageError{fmt.Errorf("no tenant is called %s; a user can sign in for %s", name, strings.Join(users, ", "))}
}

// userStore is where the refresh token of a tenant's user is kept.
func userStore(t config.Tenant) *credential.Store {
	return credential.OpenStore(credential.StoreOptions{
		Name:     t.Name,
		File:     t.Credential.User.TokenStore,
		KeyFile:  t.Credential.User.KeyFile,
		Tenant:   t.ID,
		ClientID: t.Credential.ClientID,
		Cloud:    t.Cloud,
	})
}

// loginCommand is how to sign in for a tenant, for messages.
func loginCommand(tenant, file string) string {
	return "defender-proxy login " + tenant + " --config " + file
}

// loginOptions say who signs in to what. file is the configuration's; flow is that of the command line, empty
// for the configured one.
func (c *cli) loginOptions(cfg *config.Config, file string, t config.Tenant, flow string) (credential.LoginOptions, error) {
	var none credential.LoginOptions
	user := t.Credential.User
	flow = cmp.Or(flow, user.Flow)
	if flow != config.FlowDeviceCode && flow != config.FlowAuthorizationCode {
		return none, &usageError{fmt.Errorf("--flow %s is neither %s nor %s", flow, config.FlowDeviceCode, config.FlowAuthorizationCode)}
	}
	cloud, ok := cfg.Cloud(t.Cloud)
	if !ok {
		return none, fmt.Errorf("tenant %s: no cloud is called %s", t.Name, t.Cloud)
	}
	core, err := newCore(cfg, file, c.env, zerolog.Nop(), audit.New(io.Discard))
	if err != nil {
		return none, err
	}
	client, err := core.application(t)
	if err != nil {
		return none, fmt.Errorf("tenant %s: %w", t.Name, err)
	}
	o := credential.LoginOptions{
		Flow:      credential.Flow(flow),
		Authority: cloud.Authority,
		Tenant:    t.ID,
		ClientID:  t.Credential.ClientID,
		Client:    client,
		Username:  user.Username,
		Transport: core.transport,
		Show:      func(p credential.LoginPrompt) { c.showPrompt(t.Name, p) },
	}
	for _, s := range policy.Services() {
		if o.Audience == "" {
			o.Audience = cloud.Audiences[regions.Service(s)]
		}
	}
	return o, nil
}

// signIn lets a person sign in and keeps what that brings.
func (c *cli) signIn(ctx context.Context, t config.Tenant, o credential.LoginOptions, store *credential.Store) error {
	// First, so that nobody signs in for nothing.
	if err := store.Prepare(ctx); err != nil {
		return fmt.Errorf("tenant %s: %w", t.Name, err)
	}
	login, err := credential.SignIn(ctx, o)
	if err == nil {
		err = store.Save(login)
	}
	if err != nil {
		return fmt.Errorf("tenant %s: %w", t.Name, err)
	}
	key := "a key in the keyring of this user"
	if file := t.Credential.User.KeyFile; file != "" {
		key = "the key in " + file
	}
	_, err = fmt.Fprintf(c.stdout, "%s has signed in for tenant %s.\nThe refresh token is in %s, encrypted with %s.\n",
		cmp.Or(printable(login.Username), "A user"), t.Name, t.Credential.User.TokenStore, key)
	return err
}

// printable takes out of a name what could move a terminal's cursor, and what is not seen and turns the order of
// the letters around.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name)
}

// showPrompt tells a person where to sign in.
func (c *cli) showPrompt(tenant string, p credential.LoginPrompt) {
	left := time.Until(p.Expires).Round(time.Minute)
	if p.Code == "" {
		fmt.Fprintf(c.stderr, "To sign in for tenant %s, open this page in a browser on this machine, within %d minutes:\n\n  %s\n\n", tenant, int(left.Minutes()), p.URL)
		return
	}
	fmt.Fprintf(c.stderr, "To sign in for tenant %s, open this page, and type the code %s there, within %d minutes:\n\n  %s\n\n", tenant, p.Code, int(left.Minutes()), p.URL)
}
