package proxy

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"defender-proxy/internal/redact"
	"defender-proxy/policy"
)

// tokenPatience bounds how long a page waits for tokens that nobody has asked
// for yet.
const tokenPatience = 5 * time.Second

// whoami tells a caller who it is here, and what the tenant's tokens say. Never
// a token.
func (p *Proxy) whoami(w *answer, r *http.Request, x *Exchange) error {
	type tokenView struct {
		Service  policy.Service `json:"service"`
		Audience string         `json:"audience"`
		Problem  string         `json:"problem,omitempty"`
		// Of the claims: roles of an application, scp of a user.
		Tenant    string   `json:"tid,omitempty"`
		AppID     string   `json:"appid,omitempty"`
		Roles     []string `json:"roles,omitempty"`
		Scopes    []string `json:"scp,omitempty"`
		UTI       string   `json:"uti,omitempty"`
		ExpiresIn int      `json:"expires_in,omitempty"` // seconds
	}
	type tenantView struct {
		Name   string      `json:"name"`
		ID     string      `json:"id"`
		Cloud  string      `json:"cloud"`
		Tokens []tokenView `json:"tokens"`
	}
	view := struct {
		RequestID   string      `json:"request_id"`
		Client      string      `json:"client"`
		Address     string      `json:"address"` // or, on a Unix socket, the user
		Certificate string      `json:"certificate,omitempty"`
		Listener    string      `json:"listener"`
		Tenants     []string    `json:"tenants"`
		Tenant      *tenantView `json:"tenant"`
		Problem     string      `json:"problem,omitempty"`
	}{RequestID: x.ID, Client: x.Client.Name, Address: x.whence(), Certificate: x.Peer.CertificateName(), Listener: x.Listener.Address, Tenants: p.tenantsOf(x.Client)}

	t, err := p.tenant(x)
	if err != nil {
		if x.Named != "" {
			return err
		}
		view.Problem = asRefusal(err).Message
		writeJSON(w, http.StatusOK, view)
		return nil
	}
	x.Tenant = t
	view.Tenant = &tenantView{Name: t.Name, ID: string(t.ID), Cloud: t.Cloud}
	ctx, cancel := context.WithTimeout(r.Context(), tokenPatience)
	defer cancel()
	for _, s := range policy.Services() {
		u := t.Upstreams[s]
		if u == nil {
			continue
		}
		row := tokenView{Service: s, Audience: u.Audience}
		if b, err := u.Token.Bearer(ctx); err != nil {
			row.Problem = asRefusal(tokenUnavailable(x, err)).Message
		} else {
			c := b.Claims()
			row.Tenant, row.AppID, row.Roles, row.Scopes, row.UTI = string(c.Tenant), c.AppID, c.Roles, c.Scopes, c.UTI
			row.ExpiresIn = int(time.Until(b.Expires()).Seconds())
		}
		view.Tenant.Tokens = append(view.Tenant.Tokens, row)
	}
	writeJSON(w, http.StatusOK, view)
	return nil
}

// operations lists the catalog as this caller sees it. ?granted=true leaves out
// what is not granted, ?class=NAME all other classes.
func (p *Proxy) operations(w *answer, r *http.Request, x *Exchange) error {
	type row struct {
		ID      string         `json:"id"`
		Method  string         `json:"method"`
		Path    string         `json:"path"`
		Service policy.Service `json:"service"`
		Class   policy.Class   `json:"class"`
		// SentAs is the operation that goes out in its place, whose permission is needed.
		SentAs  string `json:"sent_as,omitempty"`
		Granted bool   `json:"granted"`
		When    string `json:"when,omitempty"`  // the condition of the grant
		Waits   bool   `json:"waits,omitempty"` // for a second person's approval
		// Permitted is null as long as there is no token to ask.
		Permitted *bool               `json:"permitted"`
		Needs     []policy.Permission `json:"needs"`
		Title     string              `json:"title,omitempty"`
	}
	t, err := p.tenant(x)
	if err != nil && x.Named != "" {
		return err
	}
	query := pageQuery(x)
	if class := query("class"); class != "" && !slices.Contains(policy.Classes(), policy.Class(class)) {
		return refusal(InvalidRequest, "class=%s is none of %v.", redact.Short(class), policy.Classes())
	}
	at := policy.Situation{Now: x.Start}
	if t != nil {
		at.Tenant = t.Name
	}
	rows := []row{}
	for _, op := range p.Policy.Catalog.Operations() {
		o := row{ID: op.ID, Method: op.Method, Path: op.Path, Service: op.Service, Class: op.Class, Needs: op.Application, Title: op.Title}
		rule := x.Client.Grants.Rule(op, at)
		o.Granted, o.Waits = rule.Allow, p.waits(op, at)
		if rule.When != nil {
			o.When = rule.When.String()
		}
		if query("granted") == "true" && !o.Granted || query("class") != "" && query("class") != string(op.Class) {
			continue
		}
		sent := op
		if t != nil {
			sent = p.sends(t, op, x.Start)
		}
		if sent != op {
			o.SentAs, o.Needs = sent.ID, sent.Application
		}
		if t != nil && t.Upstreams[sent.Service] != nil {
			u := t.Upstreams[sent.Service]
			if b, ok := u.Token.Current(); ok {
				permits := u.permitsOf(b, p.Policy.Catalog)
				permitted := permits.Allows(sent)
				o.Permitted, o.Needs = &permitted, permits.Needs(sent)
			}
		}
		rows = append(rows, o)
	}
	writeJSON(w, http.StatusOK, map[string]any{"operations": rows})
	return nil
}

// pageQuery reads the query of one of our own pages.
func pageQuery(x *Exchange) func(string) string {
	values, _ := url.ParseQuery(x.Query) // what cannot be read is not there
	return values.Get
}
