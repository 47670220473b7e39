package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"defender-proxy/internal/approval"
	"defender-proxy/internal/redact"
)

// approvalHeader carries the id of an approval, in answers and when the call is
// repeated. It goes no further than here.
const approvalHeader = "X-Approval-Id"

// maxTarget bounds what of a path and query is kept for an approver, in bytes.
const maxTarget = 8 << 10

// maxKind bounds Content-Type and Content-Encoding likewise.
const maxKind = 512

// approve lets a call wait that a second person has to approve. answered says that
// the caller has its answer: 202, and where to ask how the matter stands.
//
// A caller repeats the call with the id of the approval, or sends Prefer: wait=60
// (RFC 7240, section 4.3) and is served as soon as it is approved, if that is soon.
// What was held is judged anew then; a configuration that was replaced meanwhile
// sends nothing any more. header is what would be sent.
func (p *Proxy) approve(ctx context.Context, w *answer, r *http.Request, x *Exchange, header http.Header) (answered bool, err error) {
	if !p.waits(x.Operation, x.situation()) {
		return false, nil
	}
	call, err := p.callOf(x, header)
	if err != nil {
		return false, err
	}
	store := p.Approval.Store
	switch ids := r.Header[approvalHeader]; {
	case len(ids) > 1:
		return false, refusal(InvalidRequest, "The request has several headers %s. Send one.", approvalHeader)
	case len(ids) == 1:
		if err = p.take(x, ids[0], call); !errors.Is(err, approval.ErrWaiting) {
			return false, err
		}
	default:
		shown := approval.Shown{RequestID: x.ID, Address: x.Address, Class: string(x.Operation.Class), BodyBytes: int64(len(x.Body.kept))}
		if !packed(header["Content-Encoding"]) {
			shown.Body = approval.Beginning(x.Body.kept)
		}
		if x.Approval, err = store.Ask(call, shown, p.Approval.Within, time.Now()); err != nil {
			return false, &Refusal{Code: Overloaded, Message: "Too many calls wait for an approval already. Try again when some of them are decided.", Err: err, RetryAfter: time.Minute}
		}
	}
	if most := waitOf(r.Header); most > 0 && x.Approval.State == approval.Pending && p.mayWait() {
		defer p.waiting.Add(-1)
		p.abide(ctx, w, x, most)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		switch {
		case p.isRetired() && (x.Approval.State == approval.Pending || x.Approval.State == approval.Approved):
		case x.Approval.State == approval.Approved:
			if err := p.rejudge(ctx, x, r); err != nil {
				return false, err
			}
			return false, p.take(x, x.Approval.ID, call)
		case x.Approval.State != approval.Pending:
			return false, p.take(x, x.Approval.ID, call)
		}
	}
	p.accepted(w, r, x)
	return true, nil
}

// isRetired reports whether another configuration is in force.
func (p *Proxy) isRetired() bool {
	select {
	case <-p.Retired: // nil: never
		return true
	default:
		return false
	}
}

// rejudge asks grant, token and conditions again, as of now.
func (p *Proxy) rejudge(ctx context.Context, x *Exchange, r *http.Request) (err error) {
	x.AsOf, x.Settled = time.Now(), false
	if x.Bearer, x.Decision, err = p.decide(ctx, x); err != nil {
		return err
	}
	return p.satisfy(x, r)
}

// callOf gives what is to be approved. What would be sent must be all there: a body
// that streams cannot be known beforehand.
func (p *Proxy) callOf(x *Exchange, header http.Header) (approval.Call, error) {
	if !x.Body.keep {
		return approval.Call{}, refusal(RequestTooLarge, "%s waits for the approval of a second person, and such a call can have a body of at most %d bytes.", x.Operation.ID, maxKept)
	}
	if len(x.Path.String())+len(x.Query) > maxTarget {
		return approval.Call{}, refusal(InvalidRequest, "%s waits for the approval of a second person, and such a call can have a path and query of at most %d bytes.", x.Operation.ID, maxTarget)
	}
	kind, encoding := strings.Join(header["Content-Type"], ", "), strings.Join(header["Content-Encoding"], ", ")
	if len(kind)+len(encoding) > maxKind {
		return approval.Call{}, refusal(InvalidRequest, "%s waits for the approval of a second person, and such a call can have a Content-Type and Content-Encoding of at most %d bytes.", x.Operation.ID, maxKind)
	}
	return approval.Call{
		Client: x.Client.Name, Caller: p.first(x),
		Tenant: x.Tenant.Name, TenantID: string(x.Tenant.ID), Cloud: x.Tenant.Cloud, Operation: x.Operation.ID,
		Method: x.Method, Path: x.Path.String(), Query: x.Query,
		ContentType: kind, ContentEncoding: encoding,
		HeaderSum: sumOf(header), BodySum: sha256.Sum256(x.Body.kept),
	}, nil
}

// sumOf is the hash of the headers that say what is done. Not those that say which
// answer is wanted or who asks, nor those that the Call has by themselves; of Prefer,
// not what is for the proxy.
func sumOf(header http.Header) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(header)) {
		values := header[name]
		switch {
		case name == "User-Agent", name == "Accept", strings.HasPrefix(name, "Accept-"),
			name == "Client-Request-Id", name == "X-Ms-Client-Request-Id", name == "Return-Client-Request-Id",
			name == "Content-Type", name == "Content-Encoding":
			continue
		case name == "Prefer":
			if values = preferences(values); len(values) == 0 {
				continue
			}
		}
		fmt.Fprintf(h, "%q %q\n", name, values)
	}
	h.Sum(sum[:0])
	return sum
}

// preferences are those of Prefer but for wait and respond-async.
func preferences(values []string) (all []string) {
	for _, v := range values {
		for preference := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(preference, ";")
			name, _, _ = strings.Cut(name, "=")
			if name = asciiLower(strings.TrimSpace(name)); name != "" && name != "wait" && name != "respond-async" {
				all = append(all, strings.TrimSpace(preference))
			}
		}
	}
	return all
}

// first is the name of the first of all client groups that the caller fits; empty
// where there is none.
func (p *Proxy) first(x *Exchange) string {
	if i, ok := p.everybody.Find(x.Caller); ok {
		return p.Clients[i].Name
	}
	return ""
}

// take makes an approved call one that is sent now, and never again with this
// approval. Its errors are refusals, but for one that wraps ErrWaiting.
func (p *Proxy) take(x *Exchange, id string, call approval.Call) error {
	store := p.Approval.Store
	if known, ok := store.Get(id, time.Now()); ok && known.State == approval.Approved && !slices.Contains(p.Approval.By, known.By.Client) {
		return refusal(NotApproved, "The approval %s is client group %s's, which may not approve any more. Send the call without %s to ask anew.", id, known.By.Client, approvalHeader)
	}
	taken, err := store.Take(id, call, time.Now())
	x.Approval, x.Taken = taken, err == nil
	id = redact.Short(id)
	switch {
	case err == nil || errors.Is(err, approval.ErrWaiting):
		return err
	case errors.Is(err, approval.ErrUnknown):
		return &Refusal{Code: NotApproved, Err: err, Message: fmt.Sprintf("There is no approval %q of a call of client group %s; approvals are forgotten when the proxy starts anew, and some time after they are over. Send the call without %s to ask anew.", id, x.Client.Name, approvalHeader)}
	case errors.Is(err, approval.ErrOther):
		return &Refusal{Code: NotApproved, Err: err, Message: fmt.Sprintf("The approval %s is for another call: this one differs in its %s. Send it as it was, or without %s to ask anew.", id, strings.Join(differences(taken.Call, call), ", "), approvalHeader)}
	case errors.Is(err, approval.ErrDenied):
		return &Refusal{Code: NotApproved, Err: err, Message: fmt.Sprintf("Client group %s denied it at %s%s.", taken.By.Client, clock(taken.Decided), said(taken.Comment))}
	case errors.Is(err, approval.ErrExpired):
		return &Refusal{Code: NotApproved, Err: err, Message: fmt.Sprintf("The approval %s has expired at %s: %s. Send the call without %s to ask anew.", id, clock(taken.Expires), lapsed(taken), approvalHeader)}
	case errors.Is(err, approval.ErrSentOnce):
		return &Refusal{Code: NotApproved, Err: err, Message: fmt.Sprintf("The call was sent with the approval %s already, and an approval is for one time. Send it without %s to ask anew.", id, approvalHeader)}
	}
	return err
}

func lapsed(r approval.Request) string {
	if r.Decided.IsZero() {
		return "nobody decided in time"
	}
	return "it was approved, but the call was not repeated in time"
}

func said(comment string) string {
	if comment == "" {
		return ""
	}
	return ", saying: " + comment
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// differences names what keeps two calls from being the same.
func differences(a, b approval.Call) (names []string) {
	for _, d := range []struct {
		name string
		same bool
	}{
		{"caller's group", a.Client == b.Client && a.Caller == b.Caller},
		{"tenant", a.Tenant == b.Tenant && a.TenantID == b.TenantID && a.Cloud == b.Cloud},
		{"operation", a.Operation == b.Operation},
		{"method", a.Method == b.Method},
		{"path", a.Path == b.Path},
		{"query", a.Query == b.Query},
		{"Content-Type", a.ContentType == b.ContentType},
		{"Content-Encoding", a.ContentEncoding == b.ContentEncoding},
		{"other headers", a.HeaderSum == b.HeaderSum},
		{"body", a.BodySum == b.BodySum},
	} {
		if !d.same {
			names = append(names, d.name)
		}
	}
	return names
}

// unsent gives back the approval of a call of which nothing has left the machine.
func (p *Proxy) unsent(x *Exchange) {
	if x.Taken && x.Arrived == 0 {
		p.Approval.Store.GiveBack(x.Approval.ID)
		x.Taken, x.Approval.State = false, approval.Approved
	}
}

// mayWait takes one of the places for requests that wait. Whoever gets one gives it
// back with p.waiting.Add(-1).
func (p *Proxy) mayWait() bool {
	if p.waiting.Add(1) > int64(max(p.Limits.InFlight/waitingShare, 1)) {
		p.waiting.Add(-1)
		return false
	}
	return true
}

// abide waits until the approval is decided or over, and no longer than asked nor than
// the configuration is in force.
func (p *Proxy) abide(ctx context.Context, w http.ResponseWriter, x *Exchange, most time.Duration) {
	most = min(most, time.Until(x.Approval.Expires)+time.Second)
	// The answer's own time begins when the wait is over.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(most + p.Limits.Patience() + p.Limits.BodyIdle)) // not every connection has deadlines
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if now, ok := p.Approval.Store.Wait(ctx, x.Approval.ID, p.Retired); ok {
		x.Approval = now
	}
}

// waitOf reads how long a caller wants to wait: Prefer: wait=SECONDS; 0 for one
// that does not.
func waitOf(h http.Header) time.Duration {
	for _, v := range h["Prefer"] {
		for preference := range strings.SplitSeq(v, ",") {
			preference, _, _ = strings.Cut(preference, ";")
			name, value, _ := strings.Cut(preference, "=")
			if asciiLower(strings.TrimSpace(name)) == "wait" {
				return seconds(strings.Trim(strings.TrimSpace(value), `"`))
			}
		}
	}
	return 0
}

// seconds reads a number of seconds; 0 where it is none. A day is the most.
func seconds(s string) time.Duration {
	const most = 86_400
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(min(n, most)) * time.Second
}

// accepted tells a caller that its call waits, in no shape that Microsoft's answers
// have.
func (p *Proxy) accepted(w *answer, r *http.Request, x *Exchange) {
	a := x.Approval
	at := x.base(r.Host) + "/-/approvals/" + a.ID
	what := fmt.Sprintf("%s %s (operation %s)", x.Method, x.Operation.Path, x.Operation.ID)
	message := fmt.Sprintf("%s is not sent yet: somebody of client group %s has to approve it, until %s. GET %s?wait=60 tells when that is done; then send the same call again with the header %s: %s.",
		what, strings.Join(p.Approval.By, " or "), clock(a.Expires), at, approvalHeader, a.ID)
	if a.State == approval.Approved {
		message = fmt.Sprintf("%s is approved, and not sent yet: send the same call again with the header %s: %s, until %s.", what, approvalHeader, a.ID, clock(a.Expires))
	}
	h := w.Header()
	h.Set("Location", at)
	h.Set("Retry-After", "10")
	h.Set(approvalHeader, a.ID)
	h.Set("Proxy-Status", `defender-proxy; details="waits for approval"`) // ours, and no error
	writeJSON(w, http.StatusAccepted, struct {
		Approval approval.View `json:"approval"`
		Message  string        `json:"message"`
	}{a.View(), message})
}
