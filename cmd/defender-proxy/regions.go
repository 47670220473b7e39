package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"defender-proxy/internal/admin"
)

func (c *cli) regions() *cobra.Command {
	var file, output string
	cmd := &cobra.Command{
		Use:   "regions --config FILE",
		Short: "Measure the regions and show which is nearest",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.online(cmd.Context(), file, func(ctx context.Context, p *parts) error {
				p.measured(ctx)
				rows := admin.Regions(p.monitor.Snapshot())
				if output == "json" {
					return writeJSON(c.stdout, map[string]any{"regions": rows})
				}
				return regionTable(c, rows)
			})
		},
	}
	configFlag(cmd, &file)
	outputFlag(cmd, &output)
	return cmd
}

// measured waits until every endpoint has been measured or has failed, or ctx
// ends.
func (p *parts) measured(ctx context.Context) {
	for {
		pending := false
		for _, st := range p.monitor.Snapshot() {
			pending = pending || st.Samples == 0 && st.Failures == 0
		}
		if !pending {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func regionTable(c *cli, rows []admin.Region) error {
	out := [][]string{{"SERVICE", "REGION", "HOST", "LATENCY", "STATE", "FIRST FOR"}}
	for _, r := range rows {
		latency, state := "-", "not measured"
		if r.LatencyMS != nil {
			latency, state = strconv.FormatFloat(*r.LatencyMS, 'f', 1, 64)+" ms", "in use"
		}
		if r.Failures > 0 {
			state = fmt.Sprintf("failed %d times: %s", r.Failures, r.Failure)
		}
		if !r.Healthy {
			state = "out: " + r.Failure
		}
		out = append(out, []string{string(r.Service), string(r.Region), r.Host, latency, state, strings.Join(r.Chosen, "; ")})
	}
	return table(c.stdout, out)
}
