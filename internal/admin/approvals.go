package admin

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/audit"
	"defender-proxy/internal/clients"
	"defender-proxy/internal/listen"
	"defender-proxy/internal/redact"
)

// Approval is who decides about calls that wait for a second person. The operator's
// listener makes nobody an approver: only one of a client group that may approve,
// by what tells it apart on the callers' listeners too, decides here.
type Approval struct {
	// By are the names of the client groups that may approve.
	By []string
	// Callers are all client groups in the configuration's order, Names their names
	// in the same order.
	Callers *clients.Groups
	Names   []string
}

// approver is a caller of the operator's listener, seen as a client group.
type approver struct {
	*Approval
	view    *View
	caller  clients.Caller
	client  string   // empty: none
	tenants []string // that it may ask for; all when nil
}

// approver finds the client group of whoever asks; ok is false where nothing is to
// be approved.
func (p *pages) approver(r *http.Request) (a approver, ok bool) {
	view := p.View()
	if view.Approval == nil || p.Approvals == nil {
		return approver{}, false
	}
	a = approver{Approval: view.Approval, view: view, caller: callerOf(r)}
	if i, found := a.Callers.Find(a.caller); found {
		a.client = a.Names[i]
		for _, g := range view.Groups {
			if g.Name == a.client {
				a.tenants = g.Tenants
			}
		}
	}
	return a, true
}

// may reports whether the caller's group approves calls for the tenant.
func (a approver) may(r approval.Request) bool {
	return slices.Contains(a.By, a.client) && (a.tenants == nil || slices.Contains(a.tenants, r.Call.Tenant))
}

// same says why somebody who may approve may not approve this: the own group asked for
// it, or one that the caller could pass for; nil where nothing does.
func (a approver) same(r approval.Request) *no {
	switch {
	case r.Call.Client == a.client:
		return sameGroup(r)
	case r.Call.Caller == a.client, a.passesFor(r.Call.Client), a.passesFor(r.Call.Caller):
		return &no{http.StatusForbidden, "NotApproved", fmt.Sprintf("The call was asked for by client group %s, and you could be one of it, on another listener or without your certificate or key. Somebody who could not has to decide: two people are told apart by their groups.", r.Call.Client)}
	}
	return nil
}

func (a approver) passesFor(group string) bool {
	return a.Callers.CouldBe(slices.Index(a.Names, group), a.caller)
}

// show gives a request as the caller may see it, by view where it may: the call itself
// is for those who decide and those who asked.
func (a approver) show(r approval.Request, view func(approval.Request) approval.View) approval.View {
	if !a.may(r) && a.client != r.Call.Client {
		return r.Hidden()
	}
	v := view(r)
	if a.may(r) && a.same(r) == nil {
		v.May, v.Withdraw = r.State == approval.Pending, r.State == approval.Approved
	}
	return v
}

const noApprovals = "No call waits for an approval here: an operator says which ones do under approval in the proxy's configuration."

// approvals lists what waits for a second person, and waited, without the bodies;
// ?state=pending leaves out the rest, ?skip=50 so many of the newest.
func (p *pages) approvals(w http.ResponseWriter, r *http.Request) {
	a, ok := p.approver(r)
	if !ok {
		refuse(w, http.StatusNotFound, "NotFound", noApprovals)
		return
	}
	page := approval.Page{Client: a.client, By: a.By}
	page.Fill(p.Approvals, r.URL.Query().Get,
		func(*approval.Request) bool { return true },
		func(known approval.Request) approval.View { return a.show(known, approval.Request.Row) })
	_ = page.Write(w, r) // nobody is left to tell
}

// oneApproval tells how one stands.
func (p *pages) oneApproval(w http.ResponseWriter, r *http.Request) {
	a, ok := p.approver(r)
	known, found := approval.Request{}, false
	if ok {
		known, found = p.Approvals.Get(mux.Vars(r)["id"], time.Now())
	}
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "NotFound", noApprovals)
	case !found:
		refuse(w, http.StatusNotFound, "NotFound", "There is no such approval. They are forgotten when the proxy starts anew, and some time after they are over.")
	case approval.Browser(r):
		_ = approval.Page{Client: a.client, By: a.By, Approvals: []approval.View{a.show(known, approval.Request.View)}, Back: "../approvals"}.Write(w, r)
	default:
		writeJSON(w, http.StatusOK, a.show(known, approval.Request.View))
	}
}

// verdict approves or denies. It leaves the records that a decision on a callers'
// listener leaves: one before it counts, one with the outcome; a decision that is
// refused has the second alone.
func (p *pages) verdict(w http.ResponseWriter, r *http.Request) {
	rec := p.record(r)
	w.Header().Set("X-Request-Id", rec.ID)
	decided, no := p.decide(r, &rec)
	rec.Event, rec.Status, rec.Duration = audit.Request, http.StatusOK, time.Since(rec.Time)
	switch {
	case no != nil:
		rec.Decision, rec.Status, rec.Code, rec.Reason = "refused", no.status, no.code, no.code+": "+no.message
	case approval.Browser(r):
		rec.Status = http.StatusSeeOther
	}
	_ = p.Audit.Write(&rec) // the Log tells of what it loses
	switch {
	case no != nil:
		refuse(w, no.status, no.code, no.message)
	case approval.Browser(r):
		w.Header().Set("Location", "../../approvals")
		w.WriteHeader(http.StatusSeeOther)
	default:
		writeJSON(w, http.StatusOK, decided)
	}
}

// record begins the record of a decision.
func (p *pages) record(r *http.Request) audit.Record {
	peer := listen.PeerOf(r)
	rec := audit.Record{
		Time: time.Now(), Listener: p.Address, Address: peer.Addr, Via: peer.Via, Certificate: redact.Short(peer.CertificateName()),
		Method: r.Method, Path: redact.Short(r.URL.EscapedPath()), Decision: "allowed", UserAgent: redact.Short(r.UserAgent()),
	}
	rec.ID = newID(rec.Time)
	if u := peer.Unix; u != nil {
		rec.Process, rec.UID, rec.GID, rec.PID = true, u.UID, u.GID, u.PID
	}
	return rec
}

// newID gives a request id like those of the callers' listeners: a UUID of version 7
// (RFC 9562, section 5.7), which begins with the milliseconds since 1970.
func newID(now time.Time) string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// no is why a decision is not made.
type no struct {
	status        int
	code, message string
}

// decide carries out a decision, and puts into its record what is found on the way.
func (p *pages) decide(r *http.Request, rec *audit.Record) (approval.View, *no) {
	a, ok := p.approver(r)
	if !ok {
		return approval.View{}, &no{http.StatusNotFound, "NotFound", noApprovals}
	}
	rec.Client = a.client
	id, approve := mux.Vars(r)["id"], mux.Vars(r)["verdict"] == "approve"
	known, found := p.Approvals.Get(id, time.Now())
	if !found {
		return approval.View{}, &no{http.StatusNotFound, "NotFound", "There is no such approval. They are forgotten when the proxy starts anew, and some time after they are over."}
	}
	note(rec, known)
	body, err := io.ReadAll(io.LimitReader(r.Body, approval.MaxDecision+1))
	if err != nil || len(body) > approval.MaxDecision {
		return approval.View{}, &no{http.StatusBadRequest, "InvalidRequest", fmt.Sprintf("The body of a decision has at most %d bytes, and comes at once.", approval.MaxDecision)}
	}
	comment, err := approval.CommentOf(r.Header.Get("Content-Type"), body)
	switch {
	case err != nil:
		return approval.View{}, &no{http.StatusBadRequest, "InvalidRequest", "The " + err.Error() + "."}
	case !a.may(known):
		return approval.View{}, &no{http.StatusForbidden, "NotGranted", fmt.Sprintf("%s, and may not approve calls for its tenant. These may, as far as they may ask for it: %s. The operator's listener tells groups apart as the callers' listeners do: the first group of clients that fits counts.",
			a.who(), strings.Join(a.By, ", "))}
	}
	if same := a.same(known); same != nil {
		return approval.View{}, same
	}
	rec.Event = audit.Intent
	write := p.Audit.Write
	if a.view.WritesNeedAudit {
		write = p.Audit.WriteDurable
	}
	if err := write(rec); err != nil && a.view.WritesNeedAudit {
		return approval.View{}, &no{http.StatusServiceUnavailable, "AuditUnavailable", "The audit record of this decision cannot be stored, so the decision is not made. Look at the disk and at audit.file in the proxy's configuration."}
	}
	by := approval.Approver{Client: a.client, Address: rec.Address, RequestID: rec.ID, Listener: p.Address}
	known, err = p.Approvals.Decide(id, approve, by, comment, time.Now())
	note(rec, known)
	switch {
	case err == nil, errors.Is(err, approval.ErrOver) && known.Says(approve, a.client):
		return a.show(known, approval.Request.View), nil
	case errors.Is(err, approval.ErrSame):
		return approval.View{}, sameGroup(known)
	case errors.Is(err, approval.ErrUnknown):
		return approval.View{}, &no{http.StatusNotFound, "NotFound", "The approval was forgotten meanwhile."}
	}
	return approval.View{}, &no{http.StatusForbidden, "NotApproved", known.Over()}
}

// who names the caller's group.
func (a approver) who() string {
	if a.client == "" {
		return "You belong to no client group"
	}
	return "You are client group " + a.client
}

func sameGroup(r approval.Request) *no {
	return &no{http.StatusForbidden, "NotApproved", fmt.Sprintf("The call was asked for by client group %s itself. Somebody of another group has to decide.", r.Call.Client)}
}

func note(rec *audit.Record, r approval.Request) {
	if r.ID == "" {
		return
	}
	rec.Tenant, rec.Approval, rec.ApprovalState = r.Call.Tenant, r.ID, string(r.State)
	rec.ApprovedBy, rec.ApproverAddress = r.By.Client, r.By.Address
}
