package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"defender-proxy/internal/canon"
	"defender-proxy/policy"
)

// explain tells what would become of a request: ?method=POST&path=/api/….
// Nothing is sent to Microsoft but, if need be, the question for a token.
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
	asked := &Exchange{ID: x.ID, Start: x.Start, Listener: x.Listener, Client: x.Client, Address: x.Address, Method: method, Named: x.Named}
	writeJSON(w, http.StatusOK, p.explanation(ctx, asked, query("path"), nil))
	return nil
}

// Question is a request to explain.
type Question struct {
	Client, Tenant string // names; Tenant may be empty where there is only one
	Method, Path   string
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
	// next two what the catalog says.
	Sent      string         `json:"sent,omitempty"`
	Client    string         `json:"client"`
	Tenant    string         `json:"tenant,omitempty"`
	Operation string         `json:"operation,omitempty"`
	Service   policy.Service `json:"service,omitempty"`
	Class     policy.Class   `json:"class,omitempty"`
	// Granted is the operator's half, by Rule, an entry of allow or deny.
	Granted bool   `json:"granted"`
	Rule    string `json:"rule,omitempty"`
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
	x := &Exchange{Start: time.Now(), Listener: &listener{}, Method: q.Method, Named: q.Tenant}
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
	return p.explanation(ctx, x, q.Path, q.Claims), nil
}

func (p *Proxy) explanation(ctx context.Context, x *Exchange, target string, claims *AssumedClaims) Explanation {
	view := Explanation{Method: shortened(x.Method), Path: shortened(target), Client: x.Client.Name}
	err := p.wouldBe(ctx, x, target, claims, &view)
	granted := fmt.Sprintf("Client group %s is granted it by %q", view.Client, view.Rule)
	switch {
	case err != nil:
		refused := asRefusal(err)
		view.Code, view.Status, view.Message = refused.Code, refused.Status(), refused.Message
	case view.Permitted == nil:
		view.Message = fmt.Sprintf("%s. The token was not asked; it needs %s.", granted, oneOf(view.Needs))
	case x.Decision.Verdict == policy.Reported:
		view.Allowed = true
		view.Message = fmt.Sprintf("%s. The token of tenant %s lacks the permission, but policy.claims: report lets it pass.", granted, view.Tenant)
	default:
		view.Allowed = true
		view.Message = fmt.Sprintf("%s, and the token of tenant %s permits it.", granted, view.Tenant)
	}
	return view
}

// wouldBe walks a request through the steps of serve that send nothing.
func (p *Proxy) wouldBe(ctx context.Context, x *Exchange, target string, claims *AssumedClaims, view *Explanation) (err error) {
	raw, _, _ := strings.Cut(target, "?")
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
	view.Operation, view.Service, view.Class, view.Needs = op.ID, op.Service, op.Class, op.Application
	if claims == nil {
		_, x.Decision, err = p.decide(ctx, x)
	} else {
		err = p.assume(x, claims)
	}
	rule := x.Decision.Rule
	view.Granted, view.Rule = rule.Allow, rule.Entry
	if x.Permits != nil {
		permitted := x.Permits.Allows(op)
		view.Permitted, view.Needs, view.Holds = &permitted, x.Permits.Needs(op), x.Permits.Held()
	}
	if err != nil {
		return err
	}
	if u := x.upstream(); u != nil {
		for _, e := range u.Regions.Order() {
			view.Regions = append(view.Regions, string(e.Region))
		}
	}
	return nil
}

// assume is decide with claims that no token brought.
func (p *Proxy) assume(x *Exchange, claims *AssumedClaims) error {
	x.Decision = p.Policy.Granted(x.Operation, x.Client.Grants)
	switch {
	case x.Decision.Verdict == policy.NotGranted:
		return notGranted(x, x.Decision.Rule)
	case x.upstream() == nil:
		return unreachable(x)
	case claims.Unknown:
		return nil
	}
	x.Permits = p.Policy.Catalog.Permits(claims.Roles, claims.Scopes)
	x.Decision = p.Policy.Decide(x.Operation, x.Client.Grants, x.Permits)
	if !x.Decision.Allowed() {
		return missingPermission(x)
	}
	return nil
}
