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
		out = append(out, []string{string(r.Service), string(r.Region), r.Host, latencyWords(r), stateWords(r), strings.Join(r.Chosen, "; ")})
	}
	return table(c.stdout, out)
}

// latencyWords tells what a region is compared by: the time of a probe, and where
// there is one the surplus of real requests.
func latencyWords(r admin.Region) string {
	if r.LatencyMS == nil {
		return "-"
	}
	words := strconv.FormatFloat(*r.LatencyMS, 'f', 1, 64) + " ms"
	if r.SurplusMS != nil && *r.SurplusMS > 0 {
		words += " + " + strconv.FormatFloat(*r.SurplusMS, 'f', 1, 64) + " ms"
	}
	return words
}

// stateWords tells how a region is, the worst first.
func stateWords(r admin.Region) string {
	switch {
	case !r.Healthy:
		return "out: " + r.Failure
	case r.Suspect:
		return "suspect: " + r.Failure
	case r.Failures > 0:
		return fmt.Sprintf("failed %d times: %s", r.Failures, r.Failure)
	case r.LatencyMS == nil:
		return "not measured"
	case r.Resting:
		return "resting"
	}
	return "in use"
}
