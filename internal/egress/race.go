package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

const (
	// otherAddress is how long an address is the only one that is tried (RFC 8305,
	// section 5, recommends 250 ms; 300 ms is what Go's own dialer waits).
	otherAddress = 300 * time.Millisecond
	// otherFamily is how long addresses of IPv4 wait for those of IPv6 (section 3).
	otherFamily = 50 * time.Millisecond
)

// race connects to whichever address of a host answers first. They are tried one
// after the other, of both families in turn (RFC 8305), without waiting for one that
// is silent to give up, and without waiting for the second question to the DNS.
func (d *dialer) race(ctx context.Context, host, port string, names <-chan found) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type end struct {
		c   net.Conn
		err error
	}
	ends := make(chan end)
	begin := func(a netip.Addr) {
		c, err := d.tcp.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), port))
		select {
		case ends <- end{c, err}:
		case <-ctx.Done():
			if c != nil {
				c.Close()
			}
		}
	}
	var r racers
	running, may := 0, false
	var pause <-chan time.Time
	for {
		if may && r.more() {
			go begin(r.next())
			running++
			may, pause = false, time.After(otherAddress)
		}
		if names == nil && running == 0 && !r.more() {
			return nil, r.failure(host)
		}
		select {
		case f, ok := <-names:
			switch r.add(f); {
			case !ok:
				names, may = nil, may || r.tried == 0
			case r.tried > 0 || may:
			case len(f.addresses) > 0 && f.addresses[0].Is6():
				may = true
			case r.more() && pause == nil:
				pause = time.After(otherFamily)
			}
		case e := <-ends:
			if e.err == nil {
				return e.c, nil
			}
			r.failed(e.err)
			running--
			may = true
		case <-pause:
			may = true
		case <-ctx.Done():
			return nil, r.late(host, ctx.Err())
		}
	}
}

// racers are the addresses of a host and what became of them.
type racers struct {
	waiting []netip.Addr
	tried   int
	last6   bool // the last that was tried is of IPv6
	// dialled and looked are the first failures of connections and of questions.
	dialled, looked error
}

func (r *racers) add(f found) {
	r.waiting = append(r.waiting, f.addresses...)
	if r.looked == nil || isNotFound(r.looked) && f.err != nil {
		r.looked = f.err
	}
}

func (r *racers) more() bool { return len(r.waiting) > 0 && r.tried < maxAddresses }

// next takes the next address, of the family that was not the last one's where there
// is one left; of IPv6 to begin with.
func (r *racers) next() netip.Addr {
	i := max(0, slices.IndexFunc(r.waiting, func(a netip.Addr) bool { return a.Is6() != r.last6 }))
	a := r.waiting[i]
	r.waiting = slices.Delete(r.waiting, i, i+1)
	r.tried++
	r.last6 = a.Is6()
	return a
}

// failed keeps the failure that tells most: that an address is our own, else the first.
func (r *racers) failed(err error) {
	_, loop := errors.AsType[*LoopError](err)
	if r.dialled == nil || loop {
		r.dialled = err
	}
}

// failure is why there is no connection, when all has been tried.
func (r *racers) failure(host string) error {
	switch {
	case r.dialled != nil:
		return r.dialled
	case r.looked != nil:
		return r.looked
	}
	return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true} // the name exists, and has no address
}

// late is why there is no connection when the time is over.
func (r *racers) late(host string, why error) error {
	switch {
	case r.tried > 0:
	case r.looked != nil && !isNotFound(r.looked):
		return r.looked
	case errors.Is(why, context.DeadlineExceeded):
		return &net.DNSError{Err: "no answer in time", Name: host, IsTimeout: true}
	}
	if errors.Is(why, context.DeadlineExceeded) {
		why = os.ErrDeadlineExceeded // a time-out of the network's
	}
	return &net.OpError{Op: "dial", Net: "tcp", Err: why}
}

func isNotFound(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}
