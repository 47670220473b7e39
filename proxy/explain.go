package proxy

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"defender-proxy/internal/canon"
	"defender-proxy/internal/redact"
	"defender-proxy/policy"
)

// explain tells what would become of a request: ?method=POST&path=/api/…, and
// &body={…} where a condition looks at that. Nothing is sent to Microsoft but, if
// need be, the question for a token.
func (p *Proxy) explain(w *answer, r *http.Request, x *Exchange) error {
	query := pageQuery(x)
	if query("path") == "" {
		return refusal(InvalidRequest, "Say which request: /-/explain?method=POST&path=/api/machines/1/isolate")
	}
	method := strings.ToUpper(query("method"))
	if method == "" {
		method = http.MethodGet
	}
	ctx, cancel := context.WithTimeout(r.Context(), tokenPatience)
	defer cancel()
	asked := &Exchange{ID: x.ID, Start: x.Start, AsOf: x.Start, Listener: x.Listener, Client: x.Client, Address: x.Address, Method: method, Named: x.Named}
	q := Question{Path: query("path")}
	if body := query("body"); body != "" {
		q.Body = []byte(body)
	}
	writeJSON(w, http.StatusOK, p.explanation(ctx, asked, q))
	return nil
}

// Question is a request to explain.
type Question struct {
	Client, Tenant string // names; Tenant may be empty where there is only one
	Method, Path   string
	// Body is what the request would send, for conditions that look at it; nil: not
	// known. ContentType is application/json when empty.
	Body        []byte
	ContentType string
	// At is the time to judge by; zero: now.
	At time.Time
	// Claims are those of a token to assume; nil asks Entra ID for the real one.
	Claims *AssumedClaims
}

// AssumedClaims stand in for a token's. Unknown leaves the token's half of the
// question open.
type AssumedClaims struct {
	Roles, Scopes []string
	Unknown       bool
}

// Explanation is what would become of a request, and why.
type Explanation struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	// Sent is the path as it would go out, Tenant whose data, Operation and the
	// next two what the catalog says. SentAs is the operation that goes out in the
	// place of one that Microsoft retires, empty: the same.
	Sent      string         `json:"sent,omitempty"`
	SentAs    string         `json:"sent_as,omitempty"`
	Client    string         `json:"client"`
	Tenant    string         `json:"tenant,omitempty"`
	Operation string         `json:"operation,omitempty"`
	Service   policy.Service `json:"service,omitempty"`
	Class     policy.Class   `json:"class,omitempty"`
	// Granted is the operator's half, by Rule, an entry of allow or deny.
	Granted bool   `json:"granted"`
	Rule    string `json:"rule,omitempty"`
	// Rules are all entries that name the operation, in the order in which they are
	// asked.
	Rules []policy.Step `json:"rules,omitempty"`
	// When is a condition that decides, and could not be asked without the body.
	When string `json:"when,omitempty"`
	// Waits says that a client group of ApproveBy has to approve it first.
	Waits     bool     `json:"waits,omitempty"`
	ApproveBy []string `json:"approve_by,omitempty"`
	// Reported are the codes that would refuse it but for report mode.
	Reported []string `json:"reported,omitempty"`
	// Permitted is the token's half, nil where it was not asked. It needs one of
	// Needs.
	Permitted *bool               `json:"permitted"`
	Needs     []policy.Permission `json:"needs,omitempty"`
	Holds     []policy.Permission `json:"holds,omitempty"`
	Regions   []string            `json:"regions,omitempty"` // in the order in which they would be tried
	Allowed   bool                `json:"allowed"`
	// Code and Status are those of the refusal, if it would be refused.
	Code    Code   `json:"code,omitempty"`
	Status  int    `json:"status,omitempty"`
	Message string `json:"message"`
}

// Explain answers a question that comes from no listener. Its error is for a
// client group that does not exist.
func (p *Proxy) Explain(ctx context.Context, q Question) (Explanation, error) {
	now := time.Now()
	x := &Exchange{Start: now, AsOf: now, Listener: &listener{}, Method: q.Method, Named: q.Tenant}
	if !q.At.IsZero() {
		x.AsOf = q.At
	}
	var names []string
	for i := range p.Clients {
		names = append(names, p.Clients[i].Name)
		if p.Clients[i].Name == q.Client {
			x.Client = &p.Clients[i]
		}
	}
	if x.Client == nil {
		return Explanation{}, fmt.Errorf("no client group is called %q; there are %s", q.Client, strings.Join(names, ", "))
	}
	return p.explanation(ctx, x, q), nil
}

func (p *Proxy) explanation(ctx context.Context, x *Exchange, q Question) Explanation {
	view := Explanation{Method: redact.Short(x.Method), Path: redact.Short(q.Path), Client: x.Client.Name}
	if path, ok := p.login(x.Method, q.Path); ok {
		view.Allowed, view.Sent = true, path
		view.Message = "A tool logs in there, and the proxy answers it with a placeholder token, or with what leads to one. It asks for no grant and no token of Microsoft's."
		return view
	}
	err := p.wouldBe(ctx, x, q, &view)
	if err != nil {
		refused := asRefusal(err)
		view.Code, view.Status, view.Message = refused.Code, refused.Status(), refused.Message
		return view
	}
	said := []string{fmt.Sprintf("Client group %s is granted it by %q", view.Client, view.Rule)}
	if x.Decision.Ungranted {
		said[0] = fmt.Sprintf("No entry grants it to client group %s, but grants: report of the group lets it pass", view.Client)
	}
	if x.bridged() {
		said = append(said, fmt.Sprintf("it is sent to %s as %s", x.Sent.Service.Application(), x.Sent.ID))
	}
	if view.When != "" {
		said = append(said, fmt.Sprintf("on the condition %s, which looks at the body: say which", view.When))
	}
	switch {
	case view.Permitted == nil:
		said = append(said, fmt.Sprintf("the token was not asked; it needs %s", oneOf(view.Needs)))
	case x.Decision.Unpermitted:
		view.Allowed = view.When == ""
		said = append(said, fmt.Sprintf("the token of tenant %s lacks the permission, but policy.claims: report lets it pass", view.Tenant))
	default:
		view.Allowed = view.When == ""
		said = append(said, fmt.Sprintf("the token of tenant %s permits it", view.Tenant))
	}
	if view.Waits {
		said = append(said, fmt.Sprintf("and it waits until somebody of %s approves it", strings.Join(view.ApproveBy, " or ")))
	}
	view.Message = strings.Join(said, "; ") + "."
	return view
}

// login gives the path of a target, and whether a tool logs in there.
func (p *Proxy) login(method, target string) (string, bool) {
	raw, _, _ := strings.Cut(target, "?")
	path, err := canon.Parse(raw)
	if err != nil || !p.PlaceholderToken {
		return "", false
	}
	_, path, _ = path.CutTenant()
	return path.String(), p.isPlaceholder(path) && loginMethod(method)
}

// wouldBe walks a request through the steps of serve that send nothing.
func (p *Proxy) wouldBe(ctx context.Context, x *Exchange, q Question, view *Explanation) (err error) {
	raw, _, _ := strings.Cut(q.Path, "?")
	path, err := canon.Parse(raw)
	if err != nil {
		return &Refusal{Code: InvalidPath, Message: "The " + err.Error() + ".", Err: err}
	}
	if name, rest, ok := path.CutTenant(); ok {
		x.Named, path = name, rest
	}
	x.Path, view.Sent = path, path.String()
	if x.Tenant, err = p.tenant(x); err != nil {
		return err
	}
	view.Tenant = x.Tenant.Name
	if x.Operation, err = p.operation(x); err != nil {
		return err
	}
	op := x.Operation
	x.Sent, x.Said = p.instead(x.Tenant, op, x.AsOf)
	defer func() { err = x.because(err) }()
	if err = x.crosses(); err != nil {
		return err
	}
	view.Operation, view.Service, view.Class, view.Needs = op.ID, op.Service, op.Class, x.Sent.Application
	if x.bridged() {
		view.Sent, view.SentAs = x.Sent.Path, x.Sent.ID
	}
	view.Rules = x.Client.Grants.Trace(op, x.situation())
	if q.Claims == nil {
		_, x.Decision, err = p.decide(ctx, x)
	} else {
		err = p.assume(x, q.Claims)
	}
	view.Granted, view.Rule = x.Decision.Rule.Allow, x.Decision.Rule.Entry
	if x.Permits != nil {
		permitted := x.Permits.Allows(x.Sent)
		view.Permitted, view.Needs, view.Holds = &permitted, x.Permits.Needs(x.Sent), x.Permits.Held()
	}
	if err == nil {
		err = p.wouldHold(x, q, view)
	} else if i := deciding(view.Rules); i >= 0 && view.Rules[i].When != "" {
		view.Rules[i].Decided, view.Rules[i].Why = false, "its condition was not asked"
	}
	if err != nil {
		return err
	}
	if x.Decision.Verdict == policy.Reported || x.Decision.Ungranted { // the token may not have been asked
		view.Reported, _ = x.reported()
	}
	if view.Waits = p.waits(op, x.situation()); view.Waits {
		view.ApproveBy = p.Approval.By
	}
	if u := x.upstream(); u != nil {
		for _, e := range u.Regions.Order() {
			view.Regions = append(view.Regions, string(e.Region))
		}
	}
	return nil
}

// wouldHold asks the conditions of the grant, if what they look at is known.
func (p *Proxy) wouldHold(x *Exchange, q Question, view *Explanation) error {
	if x.Decision.Rule.When == nil {
		return nil
	}
	before := x.Decision
	x.Body = &body{keep: q.Body != nil, kept: q.Body}
	r := &http.Request{Header: http.Header{"Content-Type": {cmp.Or(q.ContentType, "application/json")}}}
	err := p.satisfy(x, r)
	open := slices.IndexFunc(x.Noes, func(n no) bool { return n.looked && q.Body == nil })
	if open >= 0 && (err != nil || x.Decision.Ungranted) {
		rule := x.Noes[open].rule
		x.Decision, x.Settled, err = before.Settled(rule, false), false, nil
		view.When = rule.When.String()
	} else {
		open = -1
	}
	view.Granted, view.Rule = x.Decision.Rule.Allow, x.Decision.Rule.Entry
	view.conditions(x, q, open)
	return err
}

// conditions notes at the entries what became of their conditions, which were asked
// in their order. open is the place of the one that decides and is not known, or -1.
func (view *Explanation) conditions(x *Exchange, q Question, open int) {
	first := deciding(view.Rules)
	if first < 0 {
		return
	}
	asked := 0
	for i := first; i < len(view.Rules); i++ {
		step := &view.Rules[i]
		if !step.Fits {
			continue
		}
		step.Decided = asked == open || open < 0 && asked == len(x.Noes) && x.Decision.Rule.Allow
		if asked == len(x.Noes) {
			return
		}
		switch n := x.Noes[asked]; {
		case n.looked && q.Body == nil:
			step.Why = "its condition looks at the body, which is not given"
		default:
			step.Why = "its condition " + strings.TrimPrefix(n.words(), "which ")
		}
		asked++
	}
}

// deciding gives the place of the entry that decides, -1 for none.
func deciding(steps []policy.Step) int {
	return slices.IndexFunc(steps, func(s policy.Step) bool { return s.Decided })
}

// assume is decide with claims that no token brought.
func (p *Proxy) assume(x *Exchange, claims *AssumedClaims) error {
	x.Decision = p.Policy.Granted(x.Operation, x.Client.Grants, x.situation())
	switch {
	case x.Decision.Verdict == policy.NotGranted:
		return notGranted(x, x.Decision.Rule)
	case x.upstream() == nil:
		return unreachable(x)
	case claims.Unknown:
		return nil
	}
	x.Permits = p.Policy.Catalog.Permits(claims.Roles, claims.Scopes)
	x.Decision = p.judge(x, x.Permits)
	if !x.Decision.Allowed() {
		return missingPermission(x)
	}
	return nil
}
