package proxy

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"defender-proxy/internal/canon"
	"defender-proxy/internal/placeholder"
	"defender-proxy/internal/redact"
)

// isPlaceholder reports whether a tool asks for a token there, or how to.
func (p *Proxy) isPlaceholder(path canon.Path) bool {
	_, _, ok := placeholder.Find(path.String())
	return ok
}

// loginMethod reports whether a tool may log in with a method.
func loginMethod(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodPost
}

// placeholder answers a tool that insists on logging in, if the operator lets it.
//
// No tenant is looked up, behind /t/NAME either: the answer must not tell who has
// one, and a token that is worth nothing needs none. Nor is the body looked at, the
// query but for an instance's tenant, or Authorization: they hold a secret, and
// whether it is the right one is nobody's business here. So they are in no record.
func (p *Proxy) placeholder(w *answer, r *http.Request, x *Exchange) error {
	query := x.Query
	x.Query, x.HasQuery = "", false
	switch {
	case !p.PlaceholderToken:
		return &Refusal{Code: UnknownOperation, Message: p.unknownPath(x.Path)}
	case !loginMethod(r.Method):
		return &Refusal{
			Code:    MethodNotAllowed,
			Message: fmt.Sprintf("%s is where a tool logs in, and not with the method %s: GET or POST it.", redact.Short(x.Path.String()), redact.Short(r.Method)),
			Allow:   "GET, HEAD, POST",
		}
	}
	kind, prefix, _ := placeholder.Find(x.Path.String())
	q := placeholder.Question{Kind: kind, Base: x.Target.String(), Prefix: prefix, Now: time.Now()}
	switch kind {
	case placeholder.Instance:
		q.Tenant = placeholder.TenantOf(query)
	case placeholder.Token:
		q.NoIDToken = placeholder.Strict(r.Header.Get("X-Client-Sku"))
	}
	body := placeholder.Answer(q)
	p.shed(w, r, x)

	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store") // RFC 6749, section 5.1, wants both
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Proxy-Status", "defender-proxy") // ours, and no error
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead { // its body goes nowhere, and would be counted
		_, _ = w.Write(body) // nobody is left to tell
	}
	return nil
}

// shed lets what a tool posts come to its end, within drainTime, and forgets it at
// once. A tool that sends its head first and the body behind it, as Python's urllib
// does, or after a 100 (Continue), as PowerShell does, would otherwise find the
// connection reset before it has read the answer: net/http closes it over a body that
// is still coming where the tool wants it closed, or where much is left.
func (p *Proxy) shed(w *answer, r *http.Request, x *Exchange) {
	if r.ContentLength == 0 {
		return
	}
	unwanted(w, r)
	buf := make([]byte, 4<<10)
	defer clear(buf)
	for x.BytesIn < p.Limits.RequestBytes {
		n, err := r.Body.Read(buf)
		x.BytesIn += int64(n)
		if err != nil {
			return
		}
	}
}

// notALogin refuses what is asked under one of Microsoft's names for logging in and
// is no login. Nothing else is under these names, here as there.
func notALogin(x *Exchange, r *http.Request) error {
	return refusal(UnknownOperation, "%s is a name of Microsoft's for logging in, and the proxy answers nothing under it but what tools ask for to get a token, as /TENANT/oauth2/v2.0/token: %s is none of that. Logging in with a browser is not needed. The APIs have names of their own, such as api.securitycenter.microsoft.com.",
		redact.Short(r.Host), redact.Short(x.Path.String()))
}
