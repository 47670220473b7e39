package admin

import (
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"defender-proxy/internal/approval"
	"defender-proxy/policy"
)

//go:embed index.txt
var indexText []byte

//go:embed index.html
var indexSource string

var indexHTML = template.Must(template.New("index.html").Parse(indexSource))

// maxRows bounds the tables of the dashboard. Those that need somebody come first.
const maxRows = 50

// dashboard is the page for browsers at /.
type dashboard struct {
	Now       time.Time
	Tenants   []tenantLine
	More      int // tenants that are not shown
	Regions   []Region
	Audit     *auditReport
	Approvals bool
	Pending   int
	Usage     []usageLine
	Retiring  []RetiringUsage
	Since     time.Time
	Reload    bool
}

type tenantLine struct {
	Name, ID, Cloud string
	Ready           bool
	Reason          string
	Region          string
	Token           string
	Credential      string
	Missing         []string
}

type usageLine struct {
	Client        string
	Used, Granted int
	Unused        []string
	Calls         int64
	Refused       int64
}

// index lists the pages for curl, and shows a browser how everything is.
func (p *pages) index(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if !approval.Browser(r) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(indexText)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Referrer-Policy", "same-origin") // no-referrer would send the form with Origin: null
	_ = indexHTML.Execute(w, p.dashboard(time.Now()))
}

func (p *pages) dashboard(now time.Time) dashboard {
	view := p.View()
	d := dashboard{Now: now.UTC(), Regions: Regions(p.Monitor.Snapshot()), Reload: p.Reload != nil}
	for _, t := range view.Tenants {
		d.Tenants = append(d.Tenants, view.line(t, now))
	}
	slices.SortStableFunc(d.Tenants, func(a, b tenantLine) int { return a.rank() - b.rank() })
	if n := len(d.Tenants); n > maxRows {
		d.Tenants, d.More = d.Tenants[:maxRows], n-maxRows
	}
	if p.Audit != nil {
		report := reportOf(p.Audit.Stats())
		d.Audit = &report
	}
	if view.Approval != nil && p.Approvals != nil {
		d.Approvals = true
		for _, a := range p.Approvals.List(now) {
			if a.State == approval.Pending {
				d.Pending++
			}
		}
	}
	if p.Usage != nil {
		d.Since, _, _ = p.Usage.Span()
		report := view.Usage(p.Usage.Counts(), now)
		d.Retiring = report.Retiring
		for _, c := range report.Clients {
			row := usageLine{Client: c.Client, Used: c.Used, Granted: c.Granted}
			for _, u := range c.Unused {
				row.Unused = append(row.Unused, u.Entry)
			}
			for _, o := range c.Operations {
				row.Calls += o.Answered
				row.Refused += o.Refused
			}
			d.Usage = append(d.Usage, row)
		}
	}
	return d
}

// rank puts tenants first that need somebody.
func (t tenantLine) rank() int {
	switch {
	case !t.Ready:
		return 0
	case len(t.Missing) > 0:
		return 1
	}
	return 2
}

func (v *View) line(t Tenant, now time.Time) tenantLine {
	ready := t.readiness()
	report := v.Report(t, now)
	out := tenantLine{Name: t.Name, ID: t.ID, Cloud: t.Cloud, Ready: ready.Ready, Reason: ready.Reason, Region: string(ready.Region), Credential: report.Credential.Kind}
	if days := report.Credential.DaysLeft; days != nil {
		out.Credential += fmt.Sprintf(", %d days left", *days)
	}
	var lives []string
	for _, s := range report.Services {
		if s.Token != nil && s.Token.Live {
			lives = append(lives, fmt.Sprintf("%s %v", s.Service, (time.Duration(s.Token.ExpiresInSeconds)*time.Second).Round(time.Minute)))
		}
		for _, m := range s.Missing {
			out.Missing = append(out.Missing, anyOf(m.AnyOf))
		}
	}
	out.Token = strings.Join(lives, ", ")
	return out
}

func anyOf(permissions []policy.Permission) string {
	if len(permissions) == 0 {
		return "none is documented"
	}
	all := make([]string, len(permissions))
	for i, p := range permissions {
		all[i] = string(p)
	}
	return strings.Join(all, " or ")
}
