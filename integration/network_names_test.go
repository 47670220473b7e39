//go:build network

package integration

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// names is a DNS server for the namespaces of a story. It gives each name one
// address that may change, and remembers who asked.
type names struct {
	conn net.PacketConn
	wg   sync.WaitGroup

	mu    sync.Mutex
	known map[string]netip.Addr
	asked map[string]map[string]int // by the address that asked, then by name
}

// serveNames starts the server on a socket, which it closes with the test.
func serveNames(t *testing.T, conn net.PacketConn, known map[string]string) *names {
	t.Helper()
	n := &names{conn: conn, known: make(map[string]netip.Addr), asked: make(map[string]map[string]int)}
	for name, a := range known {
		n.known[name] = netip.MustParseAddr(a)
	}
	n.wg.Go(n.serve)
	t.Cleanup(func() {
		conn.Close()
		n.wg.Wait()
	})
	return n
}

// move gives a name another address.
func (n *names) move(name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[name] = netip.MustParseAddr(address)
}

// askedBy lists the names that an address has asked for.
func (n *names) askedBy(address string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.asked[address]))
}

func (n *names) serve() {
	buf := make([]byte, 1500)
	for {
		length, from, err := n.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if answer, err := n.answer(buf[:length], from.(*net.UDPAddr).IP.String()); err == nil {
			_, _ = n.conn.WriteTo(answer, from) // whoever does not get it asks again
		}
	}
}

func (n *names) answer(question []byte, from string) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(question)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	name := q.Name.String()
	name = name[:len(name)-1] // the root's dot

	n.mu.Lock()
	known, ok := n.known[name]
	if n.asked[from] == nil {
		n.asked[from] = make(map[string]int)
	}
	n.asked[from][name]++
	n.mu.Unlock()

	reply := dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true}
	if !ok {
		reply.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, reply)
	if err := errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers()); err != nil {
		return nil, err
	}
	if ok && q.Type == dnsmessage.TypeA {
		// A life of a second: nobody may remember it for long.
		if err := b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, dnsmessage.AResource{A: known.As4()}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}
