package proxy

import (
	_ "embed"
	"html/template"
	"net/http"
	"strings"
	texttemplate "text/template"

	"defender-proxy/policy"
)

// help is the page at /: what this caller may do, with lines to paste. Text for
// curl, HTML for a browser.
func (p *Proxy) help(w *answer, r *http.Request, x *Exchange) error {
	page := helpPage{Base: x.base(r.Host), Client: x.Client.Name, Address: x.whence(), Version: p.Version, Login: p.PlaceholderToken}
	t, err := p.tenant(x)
	switch {
	case err == nil:
		x.Tenant = t
		page.Tenant = t.Name
	case x.Named != "":
		return err
	default:
		page.Problem = asRefusal(err).Message
		if mine := p.tenantsOf(x.Client); len(mine) > 0 {
			page.Base += "/t/" + mine[0] // so that what is pasted works
		}
	}
	if x.Named == "" {
		for _, name := range p.tenantsOf(x.Client) {
			if name != page.Tenant {
				page.Others = append(page.Others, name)
			}
		}
	}
	for _, class := range policy.Classes() {
		row := helpClass{Class: class, What: classWords[class]}
		for _, op := range p.Policy.Catalog.Operations() {
			if op.Class != class {
				continue
			}
			row.Of++
			if x.Client.Grants.Rule(op, policy.Situation{Tenant: page.Tenant, Now: x.Start}).Allow {
				row.Granted++
			}
		}
		page.Classes = append(page.Classes, row)
		page.Hunts = page.Hunts || class == policy.ClassHunt && row.Granted > 0
		page.Responds = page.Responds || class == policy.ClassRespond && row.Granted > 0
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		return helpHTML.Execute(w, page)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	return helpText.Execute(w, page)
}

type helpPage struct {
	Base, Client, Address, Tenant, Problem, Version string
	Others                                          []string
	Classes                                         []helpClass
	Hunts, Responds                                 bool // is granted some of the class
	Login                                           bool // is answered with a placeholder
}

type helpClass struct {
	Class       policy.Class
	What        string
	Granted, Of int
}

var classWords = map[policy.Class]string{
	policy.ClassRead:     "reads alerts, machines, vulnerabilities, incidents …",
	policy.ClassHunt:     "runs advanced hunting queries",
	policy.ClassDownload: "gets links to packages and live-response results",
	policy.ClassTriage:   "changes alerts, incidents, tags, device values",
	policy.ClassManage:   "changes indicators, library files, scan definitions",
	policy.ClassRespond:  "isolates, scans, quarantines, runs live response …",
}

var (
	//go:embed help.txt
	helpTextSource string
	//go:embed help.html
	helpHTMLSource string

	helpText = texttemplate.Must(texttemplate.New("help.txt").Parse(helpTextSource))
	helpHTML = template.Must(template.New("help.html").Parse(helpHTMLSource))
)
