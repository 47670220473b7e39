package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"defender-proxy/internal/config"
	"defender-proxy/internal/redact"
)

// cli is what the commands share.
type cli struct {
	env            func(string) (string, bool)
	stdout, stderr io.Writer
}

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "defender-proxy",
		Short: "An authenticating reverse proxy for the Microsoft Defender APIs",
		Long: `Clients inside a network call defender-proxy without a credential. It adds a
fresh Entra ID token, goes to the nearest region, and lets pass only what the
operator granted and the token permits.

Try it without an account:   defender-proxy demo`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(c.serve(), c.demo(), c.simulate(), c.check(), c.audit(), c.login(), c.consentURL(), c.explain(), c.policy(), c.operations(), c.token(), c.regions(), c.standIn(), c.usage(), c.version())
	root.CompletionOptions.HiddenDefaultCmd = false
	return root
}

func noArguments(cmd *cobra.Command, args []string) error { return exactArguments(0)(cmd, args) }

// exactArguments is cobra.ExactArgs, but for the exit code and the words.
func exactArguments(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case n == 0 && !cmd.HasParent():
			return &usageError{fmt.Errorf("there is no command %q", args[0])}
		}
		return &usageError{fmt.Errorf("%s takes another number of arguments than %d: %s", cmd.Name(), len(args), cmd.UseLine())}
	}
}

// configFlag adds --config to a command.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "the configuration `file` (required)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // for completion only
}

// load reads the configuration, without tenants whose own files are faulty.
func (c *cli) load(file string) (*config.Config, error) {
	if file == "" {
		return nil, &usageError{fmt.Errorf("no configuration: say --config FILE, or run demo, which needs none")}
	}
	cfg, err := config.LoadPartly(file, c.env)
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// outputFlag adds --output to a command.
func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVar(output, "output", "table", "table for a terminal, json for a program")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	checkOutput := func(*cobra.Command, []string) error {
		if *output != "table" && *output != "json" {
			return &usageError{fmt.Errorf("--output %s is neither table nor json", *output)}
		}
		return nil
	}
	cmd.PreRunE = checkOutput
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table writes rows in columns, the first row being the headings.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// logger writes the log: JSON lines, or plain text for a demonstration. The
// audit record is not part of it.
func (c *cli) logger(level zerolog.Level) zerolog.Logger {
	return zerolog.New(redact.Writer(c.stderr)).Level(level).With().Timestamp().Logger()
}

// short gives a duration for people.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
