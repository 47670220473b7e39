package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"defender-proxy/internal/egress"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// Code says in one word why the proxy answered itself. Codes are stable.
type Code string

// The codes.
const (
	InvalidPath       Code = "InvalidPath"
	InvalidRequest    Code = "InvalidRequest"
	ClientNotAdmitted Code = "ClientNotAdmitted"
	HostNotAllowed    Code = "HostNotAllowed"
	CrossSiteRequest  Code = "CrossSiteRequest"
	UnknownTenant     Code = "UnknownTenant"
	UnknownOperation  Code = "UnknownOperation"
	MethodNotAllowed  Code = "MethodNotAllowed"
	NotGranted        Code = "NotGranted"
	MissingPermission Code = "MissingPermission"
	NotApproved       Code = "NotApproved"
	InvalidLink       Code = "InvalidLink"
	LinkExpired       Code = "LinkExpired"
	TokenUnavailable  Code = "TokenUnavailable"
	RegionUnavailable Code = "RegionUnavailable"
	InvalidAnswer     Code = "InvalidAnswer"
	AuditUnavailable  Code = "AuditUnavailable"
	RequestTooLarge   Code = "RequestTooLarge"
	RequestTimeout    Code = "RequestTimeout"
	Overloaded        Code = "Overloaded"
	Internal          Code = "Internal"

	// clientGone is no answer, for nobody is there to read it; it stands in the
	// audit record.
	clientGone Code = "ClientGone"
)

// codes gives each code its status and its error type for Proxy-Status
// (RFC 9209, section 2.3).
var codes = map[Code]struct {
	status     int
	proxyError string
}{
	InvalidPath:       {http.StatusBadRequest, "http_request_error"},
	InvalidRequest:    {http.StatusBadRequest, "http_request_error"},
	ClientNotAdmitted: {http.StatusForbidden, "http_request_denied"},
	HostNotAllowed:    {http.StatusMisdirectedRequest, "http_request_denied"},
	CrossSiteRequest:  {http.StatusForbidden, "http_request_denied"},
	UnknownTenant:     {http.StatusNotFound, "http_request_denied"},
	UnknownOperation:  {http.StatusNotFound, "http_request_denied"},
	MethodNotAllowed:  {http.StatusMethodNotAllowed, "http_request_denied"},
	NotGranted:        {http.StatusForbidden, "http_request_denied"},
	MissingPermission: {http.StatusForbidden, "http_request_denied"},
	NotApproved:       {http.StatusForbidden, "http_request_denied"},
	InvalidLink:       {http.StatusNotFound, "http_request_denied"},
	LinkExpired:       {http.StatusGone, "http_request_denied"},
	TokenUnavailable:  {http.StatusServiceUnavailable, "destination_unavailable"},
	RegionUnavailable: {http.StatusBadGateway, "destination_unavailable"},
	InvalidAnswer:     {http.StatusBadGateway, "http_protocol_error"},
	AuditUnavailable:  {http.StatusServiceUnavailable, "proxy_internal_error"},
	RequestTooLarge:   {http.StatusRequestEntityTooLarge, "http_request_error"},
	RequestTimeout:    {http.StatusRequestTimeout, "http_request_error"},
	Overloaded:        {http.StatusServiceUnavailable, "connection_limit_reached"},
	Internal:          {http.StatusInternalServerError, "proxy_internal_error"},
	clientGone:        {499, "connection_terminated"},
}

// Refusal is an answer that the proxy makes itself.
type Refusal struct {
	Code Code
	// Message is for the caller: what was asked, why it is refused, what to do.
	Message string
	// Err is for the operator's audit record only.
	Err error
	// Timeout makes RegionUnavailable a 504.
	Timeout bool
	// As is a status in place of the code's own, for InvalidRequest: 417, 431, 505 or 508.
	As int
	// RetryAfter goes into the header of its name, in whole seconds and at least
	// one, where it is not 0: waiting helps.
	RetryAfter time.Duration
	// Allow goes into the header of its name, for MethodNotAllowed.
	Allow string
}

// Error gives code, message and what lies behind them.
func (r *Refusal) Error() string {
	s := string(r.Code) + ": " + r.Message
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s
}

// Unwrap gives what lies behind the refusal.
func (r *Refusal) Unwrap() error { return r.Err }

// Status is the refusal's HTTP status.
func (r *Refusal) Status() int {
	if r.Code == RegionUnavailable && r.Timeout {
		return http.StatusGatewayTimeout
	}
	return cmp.Or(r.As, codes[r.Code].status)
}

func refusal(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// asRefusal gives the refusal in err. An error that no step meant for a caller
// is a bug, of which the caller learns nothing but the request id.
func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{
		Code:    Internal,
		Message: "The proxy failed. Its audit record of this request, by the id in target, says where.",
		Err:     err,
	}
}

// write sends the refusal in the shape of Microsoft's errors, which is what
// callers parse (learn.microsoft.com/defender-endpoint/api/common-errors).
func (r *Refusal) write(w http.ResponseWriter, id string) {
	var body struct {
		Error struct {
			Code    Code   `json:"code"`
			Message string `json:"message"`
			Target  string `json:"target"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message, body.Error.Target = r.Code, r.Message, id
	h := w.Header()
	h.Set("Proxy-Status", fmt.Sprintf("defender-proxy; error=%s; details=%q", codes[r.Code].proxyError, r.Code))
	if r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(max(1, (r.RetryAfter+time.Second-1)/time.Second))))
	}
	if r.Allow != "" {
		h.Set("Allow", r.Allow)
	}
	writeJSON(w, r.Status(), body)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // people read it in a terminal, and nosniff stands
	_ = e.Encode(v)        // nobody is left to tell
}

// notGranted words the operator's no.
func notGranted(x *Exchange, rule policy.Rule) *Refusal {
	op, client := x.Operation, x.Client
	what := fmt.Sprintf("%s %s (operation %s, class %s)", x.Method, op.Path, op.ID, op.Class)
	if op.Path == "" {
		what = fmt.Sprintf("%s %s, a path outside the catalog (class read),", x.Method, x.Path)
	}
	if entry := rule.Entry; entry != "" {
		return refusal(NotGranted, "%s is denied to client group %s by the entry %q. An operator can change that under deny of the group in the proxy's configuration.",
			what, client.Name, entry)
	}
	if entry, end, ok := client.Grants.Ended(op, x.situation()); ok {
		return refusal(NotGranted, "%s is not granted to client group %s any more: the entry %q ended %s. An operator sets another until under allow of the group in the proxy's configuration. GET /-/operations lists what is granted.",
			what, client.Name, entry, end.Format(time.RFC3339))
	}
	return refusal(NotGranted, "%s is not granted to client group %s. An operator grants it with %q or %q under allow of the group in the proxy's configuration. GET /-/operations lists what is granted.",
		what, client.Name, op.ID, op.Class)
}

// conditionFailed words that what would grant the operation depends on a
// condition, and none holds.
func conditionFailed(x *Exchange) *Refusal {
	const most = 8
	var noes []string
	for _, n := range x.Noes {
		noes = append(noes, n.rule.When.String()+", "+n.words())
	}
	if len(noes) > most {
		noes = append(noes[:most:most], fmt.Sprintf("and %d more", len(noes)-most))
	}
	return refusal(NotGranted, "%s %s (operation %s) is granted to client group %s only when %s. An operator can change that under allow of the group in the proxy's configuration.",
		x.Method, x.Operation.Path, x.Operation.ID, x.Client.Name, strings.Join(noes, "; "))
}

// missingPermission words the token's no, before Microsoft is asked.
func missingPermission(x *Exchange) *Refusal {
	op, permits := x.sent(), x.Permits
	asked := x.Method + " " + op.Path
	if x.bridged() {
		asked = fmt.Sprintf("%s %s is sent to %s as %s %s (hunting: %s of tenant %s), which", x.Method, x.Operation.Path, op.Service.Application(), op.Method, op.Path, x.Tenant.Hunting, x.Tenant.Name)
	}
	needs, holds := permits.Needs(op), permits.Held()
	kind := "application"
	if permits.Delegated() {
		kind = "delegated"
	}
	if len(needs) == 0 {
		return refusal(MissingPermission, "%s %s: Microsoft documents no %s permission for it, and the token of tenant %s is of that kind. If it is allowed all the same, an operator corrects operation %s under policy.operations in the proxy's configuration.",
			x.Method, op.Path, kind, x.Tenant.Name, op.ID)
	}
	held := "no permission at all"
	if len(holds) > 0 {
		held = list(holds)
	}
	return refusal(MissingPermission, "%s needs %s; the token of tenant %s holds %s. %s",
		asked, oneOf(needs), x.Tenant.Name, held, policy.GrantAdvice(op.Service, x.Tenant.ClientID, kind))
}

func oneOf(needs []policy.Permission) string {
	if len(needs) == 1 {
		return string(needs[0])
	}
	return "one of " + list(needs)
}

func list(permissions []policy.Permission) string {
	const most = 40 // a message that nobody reads to its end helps nobody
	var b strings.Builder
	for i, p := range permissions {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(permissions)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(p))
	}
	return b.String()
}

// unreachable words that a tenant's cloud or regions leave a service out.
func unreachable(x *Exchange) *Refusal {
	s := x.sent().Service
	r := &Refusal{Code: RegionUnavailable, Err: x.Tenant.Unreachable[s]}
	if errors.Is(r.Err, regions.ErrNotAllowed) {
		r.Message = fmt.Sprintf("Tenant %s may use no region in which %s has an endpoint. An operator adds one (global, for a service with one endpoint for the whole world) to regions.allow of the tenant in the proxy's configuration.", x.Tenant.Name, s.Application())
		return r
	}
	r.Message = fmt.Sprintf("The cloud of tenant %s has no %s (service %s). An operator adds its endpoints and audience under clouds in the proxy's configuration.", x.Tenant.Name, s.Application(), s)
	return r
}

// tokenUnavailable words what package token says.
func tokenUnavailable(x *Exchange, err error) error {
	var e *token.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &Refusal{Code: TokenUnavailable, Message: fmt.Sprintf("The token of tenant %s has been asked for and has not come yet.", x.Tenant.Name), Err: err, RetryAfter: time.Second}
	case !errors.As(err, &e):
		return err
	}
	// What lies inside the operator's network, such as the names of files and
	// proxies, is for the operator: it is in the record, and on /-/ready.
	why := "the proxy cannot ask for one. An operator finds the reason under /-/ready of the admin listener."
	switch e.Kind {
	case token.Rejected, token.Unavailable, token.Stopped:
		why = e.Sentence + " " + e.Remedy
	case token.Misconfigured:
		why = "the proxy's credential for it cannot be used as it stands. An operator finds the reason under /-/ready of the admin listener."
	case token.Unreachable:
		why = "Entra ID cannot be reached. An operator finds the reason under /-/ready of the admin listener."
		if egress.TellsOfLoop(e.Sentence) {
			why = "a name that it is asked for under leads back to the proxy, this one or another like it. An operator sets its real address or a DNS server in egress.resolve, and finds the name under /-/ready of the admin listener."
		}
	case token.BadAnswer:
		why = "Entra ID answered with something that is not a token for it. An operator finds the reason under /-/ready of the admin listener."
	}
	return &Refusal{
		Code:       TokenUnavailable,
		Message:    fmt.Sprintf("There is no token for tenant %s: %s", x.Tenant.Name, why),
		Err:        err,
		RetryAfter: max(e.RetryAfter, time.Second),
	}
}
