package main

import (
	"fmt"
	"io"
	"regexp"
	"strconv"

	"github.com/spf13/cobra"

	"defender-proxy/internal/audit"
)

func (c *cli) audit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit COMMAND",
		Short: "Work with audit records",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.auditVerify())
	return cmd
}

// hashes are what --head takes: SHA-256 in hexadecimal, as prev has it.
var hashes = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (c *cli) auditVerify() *cobra.Command {
	var output string
	var options audit.VerifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Find the first record that was changed or is missing",
		Long: `Follow the chain of audit records that audit.chain: true makes, and find the first
record that was changed, is missing or stands elsewhere. Exits with 1 when there is
one. Files that were put aside may be given in any order, and - is standard input:

  defender-proxy audit verify audit.jsonl audit.jsonl.2*Z

Whoever can write to the files can also make a whole new chain, or take records
off its end. That shows only by --head, with a hash that was kept elsewhere: this
command prints the newest one, and copies sent to syslog or OTLP carry them.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{fmt.Errorf("%s takes the files to verify: %s", cmd.Name(), cmd.UseLine())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, files []string) error {
			if options.Head != "" && !hashes.MatchString(options.Head) {
				return &usageError{fmt.Errorf("--head is no hash of 64 hexadecimal digits, as prev of a record is")}
			}
			v, err := audit.Verify(files, options, cmd.InOrStdin())
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(c.stdout, v)
			} else {
				err = verifiedText(c.stdout, v)
			}
			if err == nil && v.Fault != nil {
				err = errFound
			}
			return err
		},
	}
	cmd.Flags().StringVar(&options.Head, "head", "", "a `hash` noted earlier, of a record that has to be there")
	cmd.Flags().BoolVar(&options.Restarts, "restarts", false, "let a chain begin anew, as each start of a proxy that writes to standard output does")
	outputFlag(cmd, &output)
	return cmd
}

// verifiedText tells people what was found.
func verifiedText(w io.Writer, v *audit.Verified) error {
	rows := [][]string{{"records", "none"}}
	if v.Records > 0 {
		rows[0][1] = fmt.Sprintf("%d, from number %d to %d", v.Records, v.First, v.Last)
	}
	if v.First > 1 {
		rows = append(rows, []string{"before", fmt.Sprintf("%d that are in none of these files", v.First-1)})
	}
	if v.Unchained > 0 {
		rows = append(rows, []string{"without a chain", strconv.FormatUint(v.Unchained, 10) + " in front of it, which nothing vouches for"})
	}
	if v.Broken > 0 {
		rows = append(rows, []string{"cut off", strconv.FormatUint(v.Broken, 10) + " by a crash or a full disk, or being written now"})
	}
	if v.Head != "" {
		rows = append(rows, []string{"head", v.Head})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	verdict := "The chain is whole."
	if v.Fault != nil {
		verdict = "FAULT " + v.Fault.String()
	}
	_, err := fmt.Fprintln(w, verdict)
	return err
}
