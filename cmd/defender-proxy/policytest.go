package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"defender-proxy/internal/config"
	"defender-proxy/policy"
	"defender-proxy/proxy"
)

// policy is the command whose subcommands are about the operator's policy.
func (c *cli) policy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Test what the configuration grants",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("there is no command \"policy %s\"", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.policyTest())
	return cmd
}

func (c *cli) policyTest() *cobra.Command {
	var file, at, output string
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Compare what the configuration grants with a file of expectations",
		Long: `Decide the requests of a file as the proxy would, and compare each decision with
what the file expects. Nothing is sent and no token is asked for: the file says
which permissions a token has. docs/policy.md describes the file.

Exits with 1 when a decision is another than expected, and tells the difference.`,
		Example: `  defender-proxy policy test policy-tests.yaml
  defender-proxy policy test policy-tests.yaml --config proxy.yaml --at 2026-12-24T20:00:00Z`,
		Args: exactArguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, at := file, at
			want, err := readExpectations(args[0])
			if err != nil {
				return &usageError{err}
			}
			if at != "" {
				if want.At, err = time.Parse(time.RFC3339, at); err != nil {
					return &usageError{fmt.Errorf("--at %s is no time such as 2026-12-24T20:00:00Z", at)}
				}
			}
			if file == "" && want.Config != "" {
				if file = want.Config; !filepath.IsAbs(file) {
					file = filepath.Join(filepath.Dir(args[0]), file)
				}
			}
			if file == "" {
				return &usageError{fmt.Errorf("no configuration: say --config FILE, or config: FILE in %s", args[0])}
			}
			// Not as serve loads it: a tenant that is left out would make some tests
			// pass and others fail for another reason than the policy.
			cfg, err := config.Load(file, c.env)
			if err != nil {
				return err
			}
			p, err := c.alone(cfg, file)
			if err != nil {
				return err
			}
			report, err := want.compare(cmd.Context(), p.proxy)
			if err != nil {
				return &usageError{err}
			}
			report.Warnings = want.strangers(p.catalog)
			return c.tell(report, output)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().Lookup("config").Usage = "the configuration `file`; else the one that FILE names"
	cmd.Flags().StringVar(&at, "at", "", "the `time` to judge tests by that name none, such as 2026-12-24T20:00:00Z; else the one in FILE, or now")
	outputFlag(cmd, &output)
	return cmd
}

// policyReport is what came of a file of expectations.
type policyReport struct {
	Passed   int           `json:"passed"`
	Failed   int           `json:"failed"`
	Warnings []string      `json:"warnings,omitempty"`
	Tests    []policyCheck `json:"tests"`
}

// policyCheck is one request and what became of it.
type policyCheck struct {
	Name    string        `json:"name"`
	At      string        `json:"at"` // FILE:LINE
	Client  string        `json:"client"`
	Tenant  string        `json:"tenant,omitempty"`
	Request string        `json:"request"`
	Passed  bool          `json:"passed"`
	Want    outcome       `json:"want"`
	Got     outcome       `json:"got"`
	Message string        `json:"message"`
	Rules   []policy.Step `json:"rules,omitempty"`
}

// compare decides every request of the file.
func (f *expectations) compare(ctx context.Context, p *proxy.Proxy) (policyReport, error) {
	var report policyReport
	now := time.Now()
	for _, e := range f.tests {
		for _, request := range e.Request {
			method, path, _ := strings.Cut(request, " ")
			q := proxy.Question{
				Client: e.Client, Tenant: e.Tenant,
				Method: method, Path: path,
				Body: e.body, ContentType: e.ContentType,
				At:     cmp.Or(e.At, f.At, now),
				Claims: &proxy.AssumedClaims{Roles: e.Roles, Scopes: e.Scopes, Unknown: e.Roles == nil && e.Scopes == nil},
			}
			x, err := p.Explain(ctx, q)
			if err != nil {
				return policyReport{}, fmt.Errorf("%s: %w", e.at, err)
			}
			check := policyCheck{
				Name: cmp.Or(e.Name, request), At: e.at,
				Client: x.Client, Tenant: cmp.Or(x.Tenant, e.Tenant), Request: request,
				Want: e.want, Got: outcomeOf(x), Message: x.Message, Rules: x.Rules,
			}
			if x.Code == proxy.UnknownTenant && e.Tenant == "" && x.Tenant == "" && !strings.HasPrefix(path, "/t/") {
				check.Message = "The test says for no tenant what it expects: add tenant: NAME to it. " + check.Message
			}
			check.Passed = len(check.differences()) == 0
			if check.Passed {
				report.Passed++
			} else {
				report.Failed++
			}
			report.Tests = append(report.Tests, check)
		}
	}
	return report, nil
}

// strangers tells of permissions that no operation of the catalog needs: a misspelt
// one makes a token look smaller than it is.
func (f *expectations) strangers(c *policy.Catalog) (warnings []string) {
	var application, delegated []string
	for _, op := range c.Operations() {
		for _, p := range op.Application {
			application = append(application, string(p))
		}
		for _, p := range op.Delegated {
			delegated = append(delegated, string(p))
		}
	}
	for _, e := range f.tests {
		for _, list := range []struct {
			key          string
			names, known []string
			other        []string
			otherKey     string
		}{{"roles", e.Roles, application, delegated, "scopes"}, {"scopes", e.Scopes, delegated, application, "roles"}} {
			for _, name := range list.names {
				same := func(k string) bool { return strings.EqualFold(k, name) }
				if slices.ContainsFunc(list.known, same) {
					continue
				}
				hint := config.DidYouMean(name, list.known)
				if slices.ContainsFunc(list.other, same) {
					hint = fmt.Sprintf(" (it is one of %s)", list.otherKey)
				}
				warnings = append(warnings, fmt.Sprintf("%s: %s: no operation of the catalog needs %.64s%s", e.at, list.key, name, hint))
			}
		}
	}
	return warnings
}

// The words for what becomes of a request, beside the codes of refusals.
const (
	saysAllowed     = "allowed"     // granted, and the token permits it
	saysGranted     = "granted"     // granted; the test names no token
	saysReported    = "reported"    // let pass by report mode alone
	saysApproval    = "approval"    // let pass once a second person approves
	saysConditional = "conditional" // depends on a body that the test does not give
)

// outcome is what becomes of a request, or what is expected to; nil is not
// expected at all.
type outcome struct {
	Decision  string    `yaml:"decision" json:"decision"`
	Operation *string   `yaml:"operation" json:"operation,omitempty"`
	Rule      *string   `yaml:"rule" json:"rule,omitempty"`         // empty: no entry
	Reported  *[]string `yaml:"reported" json:"reported,omitempty"` // the codes that it would be refused with
}

func outcomeOf(x proxy.Explanation) outcome {
	reported := x.Reported
	if reported == nil {
		reported = []string{}
	}
	o := outcome{Decision: saysAllowed, Operation: &x.Operation, Rule: &x.Rule, Reported: &reported}
	switch {
	case x.Code != "":
		o.Decision = string(x.Code)
	case x.When != "":
		o.Decision = saysConditional
	case x.Waits:
		o.Decision = saysApproval
	case len(reported) > 0 || !x.Granted:
		o.Decision = saysReported
	case x.Permitted == nil:
		o.Decision = saysGranted
	}
	return o
}

// differences gives the lines of what is expected and is not so.
func (k *policyCheck) differences() []string {
	var lines []string
	differ := func(key, want, got string) {
		if want != got {
			lines = append(lines, "- "+key+": "+want, "+ "+key+": "+got)
		}
	}
	text := func(s string) string { return cmp.Or(s, "none") }
	differ("decision", k.Want.Decision, k.Got.Decision)
	if k.Want.Operation != nil {
		differ("operation", text(*k.Want.Operation), text(*k.Got.Operation))
	}
	if k.Want.Rule != nil {
		differ("rule", text(*k.Want.Rule), text(*k.Got.Rule))
	}
	if want := k.Want.Reported; want == nil && k.Want.Decision == saysApproval {
		// What only report mode lets pass is not granted, and waits all the same.
		differ("reported", "none", text(strings.Join(*k.Got.Reported, ", ")))
	} else if want != nil {
		want, got := slices.Sorted(slices.Values(*want)), slices.Sorted(slices.Values(*k.Got.Reported))
		differ("reported", text(strings.Join(want, ", ")), text(strings.Join(got, ", ")))
	}
	return lines
}

// tell writes the report, and ends the command as its findings demand.
func (c *cli) tell(r policyReport, output string) error {
	var err error
	if output == "json" {
		err = writeJSON(c.stdout, r)
	} else {
		err = r.write(c)
	}
	if err == nil && r.Failed > 0 {
		return errFound
	}
	return err
}

func (r policyReport) write(c *cli) error {
	var b strings.Builder
	for _, w := range r.Warnings {
		fmt.Fprintln(&b, "warning:", w)
	}
	for _, k := range r.Tests {
		if k.Passed {
			continue
		}
		fmt.Fprintf(&b, "FAIL  %s (%s)\n", k.Name, k.At)
		fmt.Fprintf(&b, "        %s as %s", k.Request, k.Client)
		if k.Tenant != "" {
			fmt.Fprintf(&b, " for tenant %s", k.Tenant)
		}
		b.WriteByte('\n')
		for _, line := range k.differences() {
			fmt.Fprintf(&b, "      %s\n", line)
		}
		for _, s := range k.Rules {
			fmt.Fprintf(&b, "        %s\n", stepLine(s))
		}
		fmt.Fprintf(&b, "        %s\n\n", k.Message)
	}
	fmt.Fprintf(&b, "%d requests: %d as expected, %d not\n", r.Passed+r.Failed, r.Passed, r.Failed)
	_, err := c.stdout.Write([]byte(b.String()))
	return err
}

// stepLine words an entry that has to do with a request.
func stepLine(s policy.Step) string {
	line := fmt.Sprintf("%s %q", s.List, s.Entry)
	if s.When != "" {
		line += " when " + s.When
	}
	switch {
	case s.Why != "":
	case s.Decided:
		return line + ": decides"
	case s.Fits:
		return line + ": fits"
	}
	return line + ": " + s.Why
}

// decisions are the words that a file may expect.
func decisions() []string {
	all := []string{saysAllowed, saysGranted, saysReported, saysApproval, saysConditional}
	for _, code := range []proxy.Code{proxy.NotGranted, proxy.MissingPermission, proxy.UnknownOperation, proxy.MethodNotAllowed, proxy.UnknownTenant, proxy.InvalidPath, proxy.RegionUnavailable} {
		all = append(all, string(code))
	}
	return all
}

func (o *outcome) check() error {
	if !slices.Contains(decisions(), o.Decision) {
		return fmt.Errorf("decision %q is none of %s", o.Decision, strings.Join(decisions(), ", "))
	}
	if o.Reported != nil && o.Decision != saysReported && o.Decision != saysApproval && len(*o.Reported) > 0 {
		return errors.New("what is reported is let pass: decision is reported then, or approval where it waits")
	}
	return nil
}
