package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"defender-proxy/internal/admin"
	"defender-proxy/internal/usage"
	"defender-proxy/policy"
	"defender-proxy/proxy"
)

func (c *cli) usage() *cobra.Command {
	var file, at, tenant, client, output string
	var records []string
	cmd := &cobra.Command{
		Use:   "usage --config FILE [--audit FILE...]",
		Short: "Show what client groups really use of what they are granted",
		Long: `Show for each client group what it called, and which of its grants nobody used;
and for each tenant which of the permissions that its tokens hold the traffic
needed. --output policy gives grants with nothing in them that was not used, to
paste into the configuration.

The running proxy is asked, on the operator's listener that the configuration
names or at --admin; it has counted since it started. With --audit the records of
audit files are counted instead, for as long as they go back; then nothing is
known of tokens. Further files may stand behind it; one that is given twice counts
once.`,
		Example: `  defender-proxy usage --config proxy.yaml
  defender-proxy usage --admin 127.0.0.1:8081 --output policy
  defender-proxy usage --config proxy.yaml --audit audit.jsonl audit.jsonl.*`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && len(records) == 0 {
				return &usageError{fmt.Errorf("%s counts files only behind --audit: %s", cmd.Name(), cmd.UseLine())}
			}
			return nil
		},
		PreRunE: func(*cobra.Command, []string) error {
			if output != "table" && output != "json" && output != "policy" {
				return &usageError{fmt.Errorf("--output %s is none of table, json, policy", output)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(records) > 0 && at != "":
				return &usageError{errors.New("--audit counts files, --admin asks a running proxy: say one or the other")}
			case output == "policy" && tenant != "":
				return &usageError{errors.New("--output policy is of all tenants: each allow takes the place of the one that the group has, which holds for the others too; leave --tenant out, or take another output")}
			case at == "" && file == "":
				return &usageError{errors.New("nobody to ask: say --config FILE, --admin ADDRESS of the operator's listener, or both --config and --audit FILE")}
			}
			records := append(records, args...)
			report, err := c.usageReport(cmd.Context(), file, at, records, tenant, client)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return writeJSON(c.stdout, report)
			case "policy":
				return report.WritePolicy(c.stdout)
			}
			return usageText(c.stdout, report)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().Lookup("config").Usage = "the configuration `file`; not needed with --admin"
	cmd.Flags().StringVar(&at, "admin", "", "the `address` of the operator's listener, as admin.address has it")
	cmd.Flags().StringArrayVar(&records, "audit", nil, "count the records of an audit `file`; further ones may stand behind it")
	_ = cmd.MarkFlagFilename("audit") // for completion only
	cmd.Flags().StringVar(&client, "client", "", "only one client group")
	cmd.Flags().StringVar(&tenant, "tenant", "", "only what was called in one tenant")
	cmd.Flags().StringVar(&output, "output", "table", "table for a terminal, json for a program, policy to paste")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "policy"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *cli) usageReport(ctx context.Context, file, at string, records []string, tenant, client string) (r admin.UsageReport, err error) {
	if len(records) > 0 {
		return c.usageOfFiles(file, records, tenant, client)
	}
	if at == "" {
		cfg, err := c.load(file)
		if err != nil {
			return r, err
		}
		at = cfg.Admin.Address
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	query := url.Values{}
	for name, value := range map[string]string{"tenant": tenant, "client": client} {
		if value != "" {
			query.Set(name, value)
		}
	}
	body, err := askOperator(ctx, at, "/-/usage?"+query.Encode())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(body, &r); err != nil || r.Clients == nil {
		return r, fmt.Errorf("ask %s for /-/usage: the answer is not defender-proxy's", at)
	}
	return r, nil
}

// usageOfFiles counts audit files against a configuration that nobody runs.
func (c *cli) usageOfFiles(file string, records []string, tenant, client string) (r admin.UsageReport, err error) {
	cfg, err := c.load(file)
	if err != nil {
		return r, err
	}
	p, err := c.alone(cfg, file)
	if err != nil {
		return r, err
	}
	counter := usage.New()
	var counted []os.FileInfo
	for _, name := range records {
		if counted, err = countFile(counter, name, counted); err != nil {
			return r, err
		}
	}
	if r, err = p.view.Used(counter, tenant, client, time.Now()); err != nil {
		err = &usageError{err}
	}
	return r, err
}

// countFile counts a file, unless it is one of those that were counted, and gives
// them all.
func countFile(counter *usage.Counter, name string, counted []os.FileInfo) ([]os.FileInfo, error) {
	f, err := os.Open(name)
	if err != nil {
		return counted, fmt.Errorf("read --audit: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return counted, fmt.Errorf("read --audit: %w", err)
	}
	if slices.ContainsFunc(counted, func(c os.FileInfo) bool { return os.SameFile(c, info) }) {
		return counted, nil
	}
	if _, err := counter.Read(f); err != nil {
		return counted, fmt.Errorf("count %s: %w", name, err)
	}
	return append(counted, info), nil
}

// maxAnswer bounds what is read of the operator's listener, in bytes.
const maxAnswer = 256 << 20

// askOperator reads a page of the operator's listener of a running proxy. at is an
// address as admin.address has it: host:port, or unix:PATH.
func askOperator(ctx context.Context, at, page string) ([]byte, error) {
	network, address, host, err := dialable(at)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{ // no proxy: the listener is near, or is named as it is
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+page, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", at, err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask the operator's listener at %s: %w; is the proxy running?", at, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask %s for %s: %w", at, page, err)
	case resp.StatusCode != http.StatusOK:
		var refused struct {
			Error struct{ Code, Message string }
		}
		_ = json.Unmarshal(body, &refused) // what is no refusal has no message
		switch code := refused.Error.Code; {
		case code == admin.UnknownName:
			return nil, &usageError{errors.New(strings.TrimSuffix(refused.Error.Message, "."))}
		case slices.Contains([]proxy.Code{proxy.UnknownOperation, proxy.UnknownTenant, proxy.NotGranted}, proxy.Code(code)):
			return nil, fmt.Errorf("ask %s for %s: this is not the operator's listener but one for callers; admin.address of the configuration names the operator's", at, page)
		}
		return nil, fmt.Errorf("ask %s for %s: it answers %s %s", at, page, resp.Status, refused.Error.Message)
	}
	return body, nil
}

// dialable turns an address to listen on into one to connect to.
func dialable(at string) (network, address, host string, err error) {
	at = strings.TrimSuffix(strings.TrimPrefix(at, "http://"), "/")
	if path, ok := strings.CutPrefix(at, "unix:"); ok {
		return "unix", path, "localhost", nil
	}
	name, port, err := net.SplitHostPort(at)
	if err != nil {
		return "", "", "", &usageError{fmt.Errorf("%s is no address to connect to; say --admin HOST:PORT or --admin unix:PATH", at)}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", "", &usageError{fmt.Errorf("%s has no port to connect to; say --admin with the one that the log of serve tells", at)}
	}
	if ip, err := netip.ParseAddr(name); name == "" || err == nil && ip.IsUnspecified() {
		name = "127.0.0.1"
		if ip.Is6() {
			name = "::1"
		}
	}
	address = net.JoinHostPort(name, port)
	return "tcp", address, address, nil
}

// usageText is the report for people.
func usageText(w io.Writer, r admin.UsageReport) error {
	if r.Since.IsZero() {
		fmt.Fprintln(w, "Nothing was called yet.")
	} else {
		fmt.Fprintf(w, "From %s to %s UTC.\n", r.Since.UTC().Format(time.DateTime), r.Until.UTC().Format(time.DateTime))
	}
	if r.Missed > 0 {
		fmt.Fprintf(w, "%d requests could not be told apart and are not in it.\n", r.Missed)
	}
	if err := retiringText(w, r.Retiring); err != nil {
		return err
	}
	for _, c := range r.Clients {
		if err := clientText(w, c); err != nil {
			return err
		}
	}
	for _, t := range r.Tenants {
		fmt.Fprintf(w, "\ntenant %s\n", t.Tenant)
		for _, s := range t.Services {
			permissionText(w, s)
		}
	}
	return nil
}

// retiringText lists who calls what Microsoft retires.
func retiringText(w io.Writer, all []admin.RetiringUsage) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nMicrosoft retires these operations, and they are still called:")
	rows := [][]string{{"  OPERATION", "GONE FROM", "IN ITS PLACE", "CLIENT GROUP", "TENANT", "CALLS", "BRIDGED", "REFUSED", "LAST (UTC)"}}
	for _, op := range all {
		for _, c := range op.Clients {
			last := "-"
			if !c.Last.IsZero() {
				last = c.Last.UTC().Format(time.DateTime)
			}
			rows = append(rows, []string{
				"  " + op.Operation, cmp.Or(op.Sunset, "-"), cmp.Or(op.Successor, "-"), c.Client, c.Tenant,
				strconv.FormatInt(c.Count, 10), strconv.FormatInt(c.Bridged, 10), strconv.FormatInt(c.Refused, 10), last,
			})
		}
	}
	return table(w, rows)
}

func clientText(w io.Writer, c admin.ClientUsage) error {
	if c.Gone {
		fmt.Fprintf(w, "\nclient group %s, which is configured no more\n", c.Client)
	} else {
		fmt.Fprintf(w, "\nclient group %s: used %d of %d operations that it is granted\n", c.Client, c.Used, c.Granted)
	}
	if len(c.Operations) > 0 {
		rows := [][]string{{"  OPERATION", "TENANT", "CLASS", "ANSWERED", "REFUSED", "LAST (UTC)", "GRANTED"}}
		for _, o := range c.Operations {
			last, granted := "-", "no"
			if !o.Last.IsZero() {
				last = o.Last.UTC().Format(time.DateTime)
			}
			if o.Granted {
				granted = "yes"
			}
			class := string(o.Class)
			if class == "" {
				class = "-"
			}
			rows = append(rows, []string{"  " + o.Operation, o.Tenant, class, strconv.FormatInt(o.Answered, 10), strconv.FormatInt(o.Refused, 10), last, granted})
		}
		if err := table(w, rows); err != nil {
			return err
		}
	}
	for _, u := range c.Unused {
		why := ""
		if u.Why != "" {
			why = ", " + u.Why
		}
		fmt.Fprintf(w, "  never used: %s (operations: %d%s)\n", u.Entry, u.Operations, why)
	}
	return nil
}

func permissionText(w io.Writer, s admin.ServiceUsage) {
	if !s.Known {
		fmt.Fprintf(w, "  %-6s no token to compare with; enough for its traffic: %s\n", s.Service, names(s.Enough))
		return
	}
	fmt.Fprintf(w, "  %-6s the token holds %d, its traffic used %d: %s\n", s.Service, len(s.Holds), len(s.Used), names(s.Used))
	if len(s.Unused) > 0 {
		fmt.Fprintf(w, "         never used: %s\n", names(s.Unused))
	}
	if more := smaller(s.Enough, s.Used); len(more) > 0 {
		fmt.Fprintf(w, "         smaller ones would do: %s\n", names(s.Enough))
	}
}

// smaller gives the permissions of enough that are not among used.
func smaller(enough, used []policy.Permission) (more []policy.Permission) {
	for _, p := range enough {
		found := false
		for _, u := range used {
			found = found || strings.EqualFold(string(p), string(u))
		}
		if !found {
			more = append(more, p)
		}
	}
	return more
}
