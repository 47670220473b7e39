package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/redact"
)

// approvals lists what waits for a second person, and waited: what the caller's
// group asked for, and what it may approve, without the bodies. ?state=pending leaves
// out the rest; ?skip=50 leaves out so many of the newest.
func (p *Proxy) approvals(w *answer, r *http.Request, x *Exchange) error {
	if err := p.hasApprovals(x); err != nil {
		return err
	}
	page := approval.Page{Client: x.Client.Name, By: p.Approval.By}
	page.Fill(p.Approval.Store, pageQuery(x),
		func(a *approval.Request) bool { return p.sees(x, *a) },
		func(a approval.Request) approval.View { return p.may(x, a, a.Row()) })
	return page.Write(w, r)
}

// oneApproval tells how one stands. ?wait=60 waits so many seconds for a decision.
func (p *Proxy) oneApproval(w *answer, r *http.Request, x *Exchange) error {
	a, err := p.approvalOf(x, mux.Vars(r)["id"])
	if err != nil {
		return err
	}
	if most := seconds(pageQuery(x)("wait")); most > 0 && a.State == approval.Pending && p.mayWait() {
		x.Approval = a
		p.abide(r.Context(), w, x, most)
		p.waiting.Add(-1)
		if r.Context().Err() != nil {
			return context.Cause(r.Context())
		}
		a, x.Approval = x.Approval, approval.Request{}
	}
	if approval.Browser(r) {
		return approval.Page{Client: x.Client.Name, By: p.Approval.By, Approvals: []approval.View{p.view(x, a)}, Back: "../approvals"}.Write(w, r)
	}
	writeJSON(w, http.StatusOK, p.view(x, a))
	return nil
}

// verdict approves or denies, by the last part of the path. A comment may come as
// JSON or as a form. As for a write, the record of the intent comes first.
func (p *Proxy) verdict(w *answer, r *http.Request, x *Exchange) error {
	if r.Method != http.MethodPost {
		return &Refusal{Code: MethodNotAllowed, Message: fmt.Sprintf("%s decides: POST to it.", x.Path), Allow: "POST"}
	}
	a, err := p.approvalOf(x, mux.Vars(r)["id"])
	if err != nil {
		return err
	}
	x.Approval, x.Tenant = a, p.tenants[a.Call.Tenant]
	comment, err := p.comment(w, r, x)
	if err != nil {
		return err
	}
	if err := p.mayDecide(x, a); err != nil {
		return err
	}
	if err := p.intend(x, r, "decision", "made"); err != nil {
		return err
	}
	approve := mux.Vars(r)["verdict"] == "approve"
	by := approval.Approver{Client: x.Client.Name, Address: x.Address, RequestID: x.ID, Listener: x.Listener.Address}
	a, err = p.Approval.Store.Decide(a.ID, approve, by, comment, time.Now())
	if a.ID != "" {
		x.Approval = a
	}
	if err != nil && !(errors.Is(err, approval.ErrOver) && a.Says(approve, x.Client.Name)) {
		return undecidable(a, err)
	}
	w.Header().Set("Proxy-Status", "defender-proxy")
	if approval.Browser(r) {
		w.Header().Set("Location", "../../approvals")
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	writeJSON(w, http.StatusOK, p.view(x, a))
	return nil
}

// hasApprovals refuses the pages where nothing is to be approved.
func (p *Proxy) hasApprovals(x *Exchange) error {
	if p.Approval == nil {
		return refusal(UnknownOperation, "No call waits for an approval here: an operator says which ones do under approval in the proxy's configuration.")
	}
	if x.Named != "" {
		_, err := p.tenant(x)
		return err
	}
	return nil
}

// approvalOf finds one that the caller may see. Others are refused in the same words
// as those that there are not.
func (p *Proxy) approvalOf(x *Exchange, id string) (approval.Request, error) {
	if err := p.hasApprovals(x); err != nil {
		return approval.Request{}, err
	}
	a, ok := p.Approval.Store.Get(id, time.Now())
	if !ok || !p.sees(x, a) {
		return approval.Request{}, refusal(UnknownOperation, "Client group %s has no approval %q to see. Approvals are forgotten when the proxy starts anew, and some time after they are over.", x.Client.Name, redact.Short(id))
	}
	return a, nil
}

func (p *Proxy) sees(x *Exchange, a approval.Request) bool {
	return (x.Named == "" || x.Named == a.Call.Tenant) && (a.Call.Client == x.Client.Name || p.approver(x, a))
}

// approver reports whether the caller's group may approve calls for the tenant.
func (p *Proxy) approver(x *Exchange, a approval.Request) bool {
	return slices.Contains(p.Approval.By, x.Client.Name) && slices.Contains(p.tenantsOf(x.Client), a.Call.Tenant)
}

func (p *Proxy) view(x *Exchange, a approval.Request) approval.View { return p.may(x, a, a.View()) }

// may adds to a view what the caller can do about it.
func (p *Proxy) may(x *Exchange, a approval.Request, v approval.View) approval.View {
	if a.State == approval.Pending || a.State == approval.Approved {
		may := p.mayDecide(x, a) == nil
		v.May, v.Withdraw = may && a.State == approval.Pending, may && a.State == approval.Approved
	}
	return v
}

// mayDecide refuses whoever may not. Groups differ from listener to listener, and so a
// group may have other people on one than on another: whoever decides is of the first
// of all groups that fits it, as the operator's listener has it too, and must not pass
// for one of those who asked.
func (p *Proxy) mayDecide(x *Exchange, a approval.Request) error {
	switch first := p.first(x); {
	case !p.approver(x, a):
		return refusal(NotGranted, "You are taken for client group %s, by %s, and it may not approve calls; %s may. The first group of clients that fits a caller counts: GET /-/whoami tells what is seen of you.",
			x.Client.Name, x.recognized(), strings.Join(p.Approval.By, ", "))
	case a.Call.Client == x.Client.Name:
		return undecidable(a, approval.ErrSame)
	case first != x.Client.Name:
		return refusal(NotGranted, "This listener takes you for client group %s, by %s, but the first group of clients that fits you is %s, and that one counts where something is decided. Somebody whom no group before %s fits has to decide.",
			x.Client.Name, x.recognized(), first, x.Client.Name)
	case p.passesFor(x, a.Call.Client), p.passesFor(x, a.Call.Caller), a.Call.Caller == first:
		return &Refusal{Code: NotApproved, Err: approval.ErrSame, Message: fmt.Sprintf("The call was asked for by client group %s, and you (%s) could be one of it, on another listener or without your certificate or key. Somebody who could not has to decide: two people are told apart by their groups.",
			a.Call.Client, x.recognized())}
	}
	return nil
}

// passesFor reports whether the caller could be taken for one of a client group.
func (p *Proxy) passesFor(x *Exchange, group string) bool {
	return p.everybody.CouldBe(slices.IndexFunc(p.Clients, func(c Client) bool { return c.Name == group }), x.Caller)
}

// recognized is what the caller is known by, for itself to read.
func (x *Exchange) recognized() string {
	by := x.whence()
	if x.Caller.Certificate != nil {
		by += " with the certificate of " + redact.Short(x.Peer.CertificateName())
	}
	if len(x.Caller.Header) > 0 {
		by += " with a key"
	}
	return by
}

// undecidable words why a decision does not count.
func undecidable(a approval.Request, err error) error {
	switch {
	case errors.Is(err, approval.ErrSame):
		return &Refusal{Code: NotApproved, Err: err, Message: fmt.Sprintf("The call was asked for by client group %s itself. Somebody of another group has to decide.", a.Call.Client)}
	case errors.Is(err, approval.ErrOver):
		return &Refusal{Code: NotApproved, Err: err, Message: a.Over()}
	case errors.Is(err, approval.ErrUnknown):
		return &Refusal{Code: NotApproved, Err: err, Message: "The approval was forgotten meanwhile."}
	}
	return err
}

// comment reads what an approver says: nothing, {"comment": "…"}, or comment=….
func (p *Proxy) comment(w *answer, r *http.Request, x *Exchange) (string, error) {
	if r.ContentLength > approval.MaxDecision {
		return "", refusal(RequestTooLarge, "A decision has a body of at most %d bytes.", approval.MaxDecision)
	}
	b, err := p.readBody(w, r)
	if err != nil {
		return "", err
	}
	x.Body = b
	defer b.end()
	if !b.keep || len(b.kept) > approval.MaxDecision {
		return "", refusal(RequestTooLarge, "A decision has a body of at most %d bytes.", approval.MaxDecision)
	}
	x.BytesIn = int64(len(b.kept))
	said, err := approval.CommentOf(r.Header.Get("Content-Type"), b.kept)
	if err != nil {
		return "", &Refusal{Code: InvalidRequest, Message: "The " + err.Error() + ".", Err: err}
	}
	return said, nil
}
