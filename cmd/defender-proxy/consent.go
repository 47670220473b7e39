package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) consentURL() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "consent-url TENANT --config FILE",
		Short: "Print the link at which an administrator of a tenant consents",
		Long: `Print the link that an administrator of a tenant opens to consent to what the
application asks for, alone and to standard output. The application has to be
one that other directories may use, where it is registered in another.`,
		Args: exactArguments(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := c.load(file)
			if err != nil {
				return err
			}
			t, err := tenantNamed(cfg, args[0])
			if err != nil {
				return err
			}
			cloud, ok := cfg.Cloud(t.Cloud)
			if !ok {
				return fmt.Errorf("tenant %s: no cloud is called %s", t.Name, t.Cloud)
			}
			account := accountOf(t, cloud.Authority)
			if account.ClientID == "" {
				return fmt.Errorf("tenant %s is asked for with the machine's managed identity, which is no application to consent to; an administrator assigns it app roles instead, with New-MgServicePrincipalAppRoleAssignment", t.Name)
			}
			_, err = fmt.Fprintln(c.stdout, account.ConsentURL())
			return err
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.tenantNames(file), cobra.ShellCompDirectiveNoFileComp
		},
	}
	configFlag(cmd, &file)
	return cmd
}

// tenantNames completes the name of a tenant; nothing where the configuration is
// faulty.
func (c *cli) tenantNames(file string) []string {
	cfg, err := c.load(file)
	if err != nil {
		return nil
	}
	var names []string
	for _, t := range cfg.Tenants {
		names = append(names, t.Name)
	}
	return names
}
