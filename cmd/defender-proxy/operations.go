package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"defender-proxy/policy"
)

func (c *cli) operations() *cobra.Command {
	var file, class, output string
	cmd := &cobra.Command{
		Use:   "operations [--class CLASS] [--config FILE]",
		Short: "List what can be asked of Microsoft's APIs",
		Long: `List the catalog of operations: their ids for allow and deny, their requests, and
the permissions of which a token needs one. With a configuration, the operator's
additions and corrections are in it.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if class != "" && !slices.Contains(policy.Classes(), policy.Class(class)) {
				return &usageError{fmt.Errorf("--class %s is none of %v", class, policy.Classes())}
			}
			var additions []policy.Operation
			if file != "" {
				cfg, err := c.load(file)
				if err != nil {
					return err
				}
				additions = cfg.Policy.Operations
			}
			catalog, err := policy.NewCatalog(additions)
			if err != nil {
				return err
			}
			ops := catalog.Operations()
			if class != "" {
				ops = slices.DeleteFunc(ops, func(op *policy.Operation) bool { return op.Class != policy.Class(class) })
			}
			if output == "json" {
				return writeJSON(c.stdout, ops)
			}
			rows := [][]string{{"OPERATION", "CLASS", "SERVICE", "REQUEST", "APPLICATION PERMISSION (ANY ONE)"}}
			for _, op := range ops {
				rows = append(rows, []string{op.ID, string(op.Class), string(op.Service), op.Method + " " + op.Path, names(op.Application)})
			}
			return table(c.stdout, rows)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().Lookup("config").Usage = "the configuration `file`"
	cmd.Flags().StringVar(&class, "class", "", "only operations of one class")
	outputFlag(cmd, &output)
	return cmd
}

func names(permissions []policy.Permission) string {
	if len(permissions) == 0 {
		return "-"
	}
	s := make([]string, len(permissions))
	for i, p := range permissions {
		s[i] = string(p)
	}
	return strings.Join(s, " ")
}
