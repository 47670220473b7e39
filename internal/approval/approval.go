// Package approval keeps the calls that a second person has to approve before
// they are sent: who asked for what, who decided, and that it is sent once.
//
// It is kept in memory: a process that starts anew has forgotten what waited, and
// those calls are asked again. Who may ask, who may decide and what is sent are the
// business of package proxy, and of package admin for the operator's page; both
// share one Store.
package approval

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// State is how far a request for approval has come.
type State string

// The states. Approved becomes Sent when the call is repeated, and Denied when it is
// withdrawn before; the others are final.
const (
	Pending  State = "pending"
	Approved State = "approved"
	Denied   State = "denied"
	Sent     State = "sent"
	Expired  State = "expired"
)

// Call is what is to be approved: a call is the same again only when all of it is.
type Call struct {
	// Client is the client group that asks, Caller the first of all groups that whoever
	// asks fits: another one where the listener has not all of them. Empty: Client.
	Client, Caller string
	// TenantID and Cloud are what the tenant's name meant when it was asked for.
	Tenant, TenantID, Cloud      string
	Operation                    string
	Method, Path, Query          string
	ContentType, ContentEncoding string
	HeaderSum                    [32]byte // of the other headers that say what is done
	BodySum                      [32]byte // SHA-256
}

// Shown is what an approver sees beside the Call, and what is of no weight.
type Shown struct {
	RequestID string
	Address   netip.Addr
	Class     string
	Body      string // the beginning of a text body, at most MaxShown
	BodyBytes int64
}

// Approver is who decides.
type Approver struct {
	Client    string // the client group
	Address   netip.Addr
	RequestID string
	Listener  string
}

// Request is a call that waits, or waited, for its approval. It is a copy.
type Request struct {
	ID    string // 26 letters and digits that nobody can guess
	Call  Call
	Shown Shown
	State State
	Asked time.Time
	// Expires is until when it can be decided, and once it is approved until when it
	// can be sent. A Request in another state no longer changes.
	Expires time.Time
	Decided time.Time // zero until it is approved or denied
	By      Approver
	Comment string // the approver's
}

// The bounds. One client group cannot take all places of what is open, and what is
// over is forgotten after a day, or before when there is much of it.
const (
	// MaxOpen is how many requests can be pending or approved at once.
	MaxOpen = 1000
	// MaxOpenPerClient is how many of them one client group can have.
	MaxOpenPerClient = 100
	// MaxKept is how many are kept in all.
	MaxKept = 2000
	// Kept is how long one that is over can still be found.
	Kept = 24 * time.Hour
)

// MaxShown is how many bytes of a body an approver sees.
const MaxShown = 8 << 10

// Errors that a caller of Store may branch on.
var (
	ErrFull     = errors.New("approval: too many calls wait for their approval")
	ErrUnknown  = errors.New("approval: no such request")
	ErrSame     = errors.New("approval: whoever asked cannot decide")
	ErrOver     = errors.New("approval: the request is decided or over already")
	ErrOther    = errors.New("approval: another call was approved")
	ErrWaiting  = errors.New("approval: the request is not decided yet")
	ErrDenied   = errors.New("approval: the request was denied")
	ErrExpired  = errors.New("approval: the request has expired")
	ErrSentOnce = errors.New("approval: the call was sent already")
)

// Says reports whether the client group decided it that way, and that still stands.
func (r Request) Says(approve bool, client string) bool {
	stands := Denied
	if approve {
		stands = Approved
	}
	return r.By.Client == client && client != "" && r.State == stands
}

// Over says, as a sentence, why it cannot be decided any more.
func (r Request) Over() string {
	by := ""
	if r.By.Client != "" {
		by = " by client group " + r.By.Client
	}
	switch {
	case r.State == Sent:
		return fmt.Sprintf("It is sent already: it was approved%s, and a decision changes nothing any more.", by)
	case r.State == Expired && by != "":
		return fmt.Sprintf("It is over already: it was approved%s, and has expired before it was sent. The call has to be asked for anew.", by)
	}
	return fmt.Sprintf("It is decided or over already: %s%s.", r.State, by)
}

// Store keeps the requests of a process. It is safe for concurrent use; its methods
// do not block, but for Wait.
type Store struct {
	mu   sync.Mutex // guards what follows
	byID map[string]*entry
	list []*entry // oldest first

	stop    func()
	stopped <-chan struct{}
}

// entry is a request that is kept. Store.mu guards it.
type entry struct {
	Request
	within time.Duration
	moved  chan struct{} // closed when State leaves Pending
}

func (e *entry) open() bool { return e.State == Pending || e.State == Approved }

// become sets a state that is not Pending.
func (e *entry) become(s State) {
	if e.State == Pending {
		close(e.moved)
	}
	e.State = s
}

// New makes an empty Store.
func New() *Store {
	stopped := make(chan struct{})
	return &Store{byID: make(map[string]*entry), stop: sync.OnceFunc(func() { close(stopped) }), stopped: stopped}
}

// Stop ends every Wait, and those that come after it at once: the process is about
// to end. What was decided can still be sent.
func (s *Store) Stop() { s.stop() }

// tidy lets what has run out expire, and forgets what is over for long. mu is held.
func (s *Store) tidy(now time.Time) {
	excess := len(s.list) - MaxKept + 1 // so that there is room for one
	s.list = slices.DeleteFunc(s.list, func(e *entry) bool {
		if e.open() && !now.Before(e.Expires) {
			e.become(Expired)
		}
		if e.open() || excess <= 0 && now.Sub(e.Expires) < Kept {
			return false
		}
		excess--
		delete(s.byID, e.ID)
		return true
	})
}

// Ask keeps a call for within, which must be above 0. A call that is pending or
// approved already is not kept twice: its request is given as it is. The error is
// ErrFull.
func (s *Store) Ask(c Call, shown Shown, within time.Duration, now time.Time) (Request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	open, mine := 0, 0
	for _, e := range s.list {
		if !e.open() {
			continue
		}
		if e.Call == c {
			return e.Request, nil
		}
		if open++; e.Call.Client == c.Client {
			mine++
		}
	}
	if open >= MaxOpen || mine >= MaxOpenPerClient {
		return Request{}, ErrFull
	}
	e := &entry{
		Request: Request{ID: rand.Text(), Call: c, Shown: shown, State: Pending, Asked: now, Expires: now.Add(within)},
		within:  within,
		moved:   make(chan struct{}),
	}
	s.byID[e.ID] = e
	s.list = append(s.list, e)
	return e.Request, nil
}

// Get finds a request by its id.
func (s *Store) Get(id string, now time.Time) (Request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	e := s.byID[id]
	if e == nil {
		return Request{}, false
	}
	return e.Request, true
}

// List gives all that are kept, oldest first.
func (s *Store) List(now time.Time) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	all := make([]Request, len(s.list))
	for i, e := range s.list {
		all[i] = e.Request
	}
	return all
}

// Newest gives those that are wanted, newest first: most of them at most, behind the
// first skip, and how many more there are. wanted must not call the Store.
func (s *Store) Newest(now time.Time, wanted func(*Request) bool, skip, most int) (found []Request, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	for _, e := range slices.Backward(s.list) {
		switch {
		case !wanted(&e.Request):
		case skip > 0:
			skip--
		case len(found) < most:
			found = append(found, e.Request)
		default:
			more++
		}
	}
	return found, more
}

// Decide approves or denies a pending request. Approved, it can be sent for as long
// as it could wait; until it is, a denial withdraws the approval. The errors are
// ErrUnknown, ErrSame for the client group that asked, and ErrOver, which comes with
// the request as it is.
func (s *Store) Decide(id string, approve bool, by Approver, comment string, now time.Time) (Request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	e := s.byID[id]
	switch {
	case e == nil:
		return Request{}, ErrUnknown
	case e.Call.Client == by.Client:
		return e.Request, ErrSame
	case e.State != Pending && (approve || e.State != Approved):
		return e.Request, ErrOver
	}
	e.Decided, e.By, e.Comment = now, by, comment
	if approve {
		e.Expires = now.Add(e.within)
		e.become(Approved)
	} else {
		e.become(Denied)
	}
	return e.Request, nil
}

// Wait waits until a request is decided or over, or ctx or the Store's time ends, or
// enough is closed (nil: never), and gives it as it is then. ok is false for an id
// that is not known.
func (s *Store) Wait(ctx context.Context, id string, enough <-chan struct{}) (r Request, ok bool) {
	s.mu.Lock()
	e := s.byID[id]
	if e == nil {
		s.mu.Unlock()
		return Request{}, false
	}
	moved, left := e.moved, time.Until(e.Expires)
	s.mu.Unlock()
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-moved:
	case <-t.C:
	case <-ctx.Done():
	case <-s.stopped:
	case <-enough:
	}
	return s.Get(id, time.Now())
}

// Take turns an approved request into a sent one, once, if c is the call that was
// approved. The errors are ErrUnknown, ErrOther, and by the state of the request,
// which comes with them, ErrWaiting, ErrDenied, ErrExpired and ErrSentOnce.
func (s *Store) Take(id string, c Call, now time.Time) (Request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	e := s.byID[id]
	switch {
	case e == nil || e.Call.Client != c.Client:
		return Request{}, ErrUnknown // another group learns nothing
	case e.Call != c:
		return e.Request, ErrOther
	}
	switch e.State {
	case Pending:
		return e.Request, ErrWaiting
	case Denied:
		return e.Request, ErrDenied
	case Expired:
		return e.Request, ErrExpired
	case Sent:
		return e.Request, ErrSentOnce
	}
	e.become(Sent)
	return e.Request, nil
}

// GiveBack makes a taken request approved again, when nothing of it was sent. It
// expires when it would have.
func (s *Store) GiveBack(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[id]; e != nil && e.State == Sent {
		e.State = Approved
	}
}
