package proxy

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/audit"
	"defender-proxy/internal/canon"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/links"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/redact"
	"defender-proxy/internal/token"
	"defender-proxy/policy"
	"defender-proxy/regions"
)

// Exchange is what is known of one request so far. The steps of serve return
// what they find; guard and forward, which find many things, put them here
// themselves, because the record wants them even when the step fails. An
// Exchange belongs to its request's goroutine.
type Exchange struct {
	ID       string
	Start    time.Time
	Listener *listener

	// What guard finds.
	Client   *Client
	Caller   clients.Caller // by which the client group was found, with the keys alone of its headers
	Peer     listen.Peer    // of the connection
	Address  netip.Addr     // the caller's, where it is known
	Via      netip.Addr     // of the balancer or proxy that named Address, where one did
	Method   string
	Path     canon.Path // behind a tenant's prefix
	Named    string     // the tenant that the path names, if any
	RawPath  string     // for the record, where there is no canonical one
	Query    string     // raw, without credentials
	HasQuery bool       // there was a question mark

	Target links.Target // where links in the answer lead

	Tenant    *Tenant
	Operation *policy.Operation // that is asked for
	Sent      *policy.Operation // that is sent in its place; nil: the same
	File      string            // of a relayed download: host and path
	Decision  policy.Decision
	AsOf      time.Time // the moment that grants are judged for
	Settled   bool      // the conditions of the grant were asked
	Noes      []no      // those that did not hold, as they were asked
	Bearer    *token.Bearer
	Permits   *policy.Permits  // of the bearer
	Approval  approval.Request // of a second person; zero where none was needed or asked for yet
	Taken     bool             // the approval is this request's
	Annotated bool             // the request id was appended to the comment
	Order     []regions.Endpoint
	Choice    string // why the order begins as it does

	// What forward and rewrite count.
	Tried     []regions.Name // one for each attempt
	Arrived   int            // attempts that had a connection, so that some of them may have arrived, repeats with another token too
	Waited    time.Duration  // because Microsoft asked for it
	Renewed   bool           // the token was refused, and another one asked for
	Took      time.Duration  // the last attempt, until its answer began
	Said      int            // the status with which the operation said that it is gone, now or before; 0: it did not
	Retired   regions.Name   // that said that the operation is gone, so that its successor was asked; empty: none
	Body      *body          // nil until the plan is made
	Gone      bool           // the caller had left when the exchange ended
	Status    int
	BytesIn   int64
	BytesOut  int64
	FirstByte time.Duration // from the request's coming to the answer's beginning
	Err       error         // how the exchange failed, if it did
}

// Request ids are no secrets, so their randomness may come from a pool.
func init() { uuid.EnableRandPool() }

// newExchange begins a request. Request ids are UUIDs of version 7, which sort
// by time (RFC 9562, section 5.7).
func newExchange(l *listener, r *http.Request, now time.Time) *Exchange {
	x := &Exchange{Start: now, AsOf: now, Listener: l, Method: r.Method}
	if id, err := uuid.NewV7(); err == nil {
		x.ID = id.String()
	} else {
		x.Err = err // no randomness: the request is refused as an internal failure
	}
	return x
}

type exchangeKey struct{}

// with puts the exchange where the handlers behind mux find it.
func (x *Exchange) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

func exchangeOf(r *http.Request) *Exchange { return r.Context().Value(exchangeKey{}).(*Exchange) }

// base is what links lead to: the origin, and the tenant's prefix if the caller used
// one.
func (x *Exchange) base(host string) string {
	if x.Named == "" {
		return x.origin(host)
	}
	return x.origin(host) + "/t/" + x.Named
}

// origin is the listener's public URL, or the scheme and the accepted Host of the
// request. A tool that calls a name of Microsoft's has it built in and trusts no
// other: its links stay on that name.
func (x *Exchange) origin(host string) string {
	if _, theirs := regions.MicrosoftHost(host); theirs || x.Listener.publicURL == "" {
		return x.Listener.names.Scheme() + "://" + host
	}
	return x.Listener.publicURL
}

// region is the one that answered, or was tried last.
func (x *Exchange) region() regions.Name {
	if len(x.Tried) == 0 {
		return ""
	}
	return x.Tried[len(x.Tried)-1]
}

// linkTarget is base for package links, and whether the host is one of Microsoft's
// for logging in. Nearly all requests to a listener have the same, so the newest is
// kept.
func (x *Exchange) linkTarget(host string) (target links.Target, login bool, err error) {
	if last := x.Listener.target.Load(); last != nil && last.host == host && last.named == x.Named {
		return last.target, last.login, nil
	}
	kind, _ := regions.MicrosoftHost(host)
	login = kind == regions.LoginHost
	if target, err = links.NewTarget(x.base(host)); err == nil {
		x.Listener.target.Store(&namedTarget{host, x.Named, target, login})
	}
	return target, login, err
}

// namedTarget is what there is to know of a Host, as it was written, and a tenant's
// prefix.
type namedTarget struct {
	host, named string
	target      links.Target
	login       bool
}

// record gives the exchange in the words of the audit.
func (x *Exchange) record(event audit.Event, r *http.Request) audit.Record {
	rec := audit.Record{
		Event:     event,
		Time:      x.Start,
		ID:        x.ID,
		Listener:  x.Listener.Address,
		Address:   x.Address,
		Via:       x.Via,
		Method:    redact.Short(x.Method),
		Path:      concealed(x.Path.String()),
		Rule:      x.Decision.Rule.Entry,
		Region:    string(x.region()),
		Attempts:  len(x.Tried),
		Status:    x.Status,
		BytesIn:   x.BytesIn,
		BytesOut:  x.BytesOut,
		FirstByte: x.FirstByte,
		Waited:    x.Waited,
		UserAgent: redact.Short(r.UserAgent()),
		Query:     redact.Query(x.Query),
		Annotated: x.Annotated,
		File:      x.File,
	}
	if x.Sent != nil && x.Sent != x.Operation {
		rec.SentAs = x.Sent.ID
	}
	if rec.Path == "" {
		rec.Path = redact.Short(concealed(cmp.Or(x.RawPath, rawPath(r.RequestURI)))) // without a query or userinfo, which may hold a credential
	}
	if x.Client != nil {
		rec.Client = x.Client.Name
	}
	if u := x.Peer.Unix; u != nil {
		rec.Process, rec.UID, rec.GID, rec.PID = true, u.UID, u.GID, u.PID
	}
	rec.Certificate = redact.Short(x.Peer.CertificateName())
	if x.Tenant != nil {
		rec.Tenant = x.Tenant.Name
	}
	if x.Operation != nil {
		rec.Operation, rec.Class = x.Operation.ID, string(x.Operation.Class)
	}
	if x.Bearer != nil {
		rec.TokenUTI = x.Bearer.Claims().UTI
	}
	if len(x.Tried) > 0 {
		rec.RegionReason = x.Choice
		if first := x.Tried[0]; x.Retired != "" {
			rec.RegionReason = string(x.Retired) + " answered that the operation is gone, so its successor was asked: " + x.Choice
		} else if x.region() != first {
			rec.RegionReason = "after " + string(first) + " failed, which came first: " + x.Choice
		}
	}
	for _, name := range x.Tried {
		rec.Tried = append(rec.Tried, string(name))
	}
	rec.Decision = "allowed"
	if x.refused() {
		rec.Decision = "refused"
	}
	if x.Decision.Verdict == policy.Reported {
		rec.Reported, rec.Reason = x.reported()
	}
	if a := x.Approval; a.ID != "" {
		rec.Approval, rec.ApprovalState, rec.ApprovedBy, rec.ApproverAddress = a.ID, string(a.State), a.By.Client, a.By.Address
	}
	if x.Err != nil {
		refused := asRefusal(x.Err)
		rec.Code, rec.Reason = string(refused.Code), refused.Error()
	}
	return rec
}

// refused reports whether the exchange ended with the proxy's own no. What a region,
// a token or the caller let fail once the decision was yes is none, nor is what came
// after something was sent.
func (x *Exchange) refused() bool {
	if x.Err == nil {
		return false
	}
	switch asRefusal(x.Err).Code {
	case RegionUnavailable, InvalidAnswer, TokenUnavailable, Internal, clientGone:
		return !x.Decision.Allowed()
	}
	return !x.Decision.Allowed() || x.Arrived == 0
}

// reported gives the codes that a request would have been refused with but for
// report mode, and why.
func (x *Exchange) reported() (codes []string, reason string) {
	var reasons []string
	if x.Decision.Ungranted {
		codes = append(codes, string(NotGranted))
		reasons = append(reasons, "no entry grants it to client group "+x.Client.Name+", let pass by grants: report of the group")
	}
	if x.Decision.Unpermitted {
		codes = append(codes, string(MissingPermission))
		reasons = append(reasons, "the token lacks "+oneOf(x.Permits.Needs(x.sent()))+", let pass by policy.claims: report")
	}
	return codes, strings.Join(reasons, "; ")
}
