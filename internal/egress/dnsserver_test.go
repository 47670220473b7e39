package egress

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

const (
	theirs  = "api.example. 1 IN A 192.0.2.1"
	theirv6 = "api.example. 1 IN AAAA 2001:db8::1"
)

// server is a DNS server of a test, over UDP and TCP at one port.
type server struct {
	at     netip.AddrPort
	handle func(w dns.ResponseWriter, q *dns.Msg)

	mu    sync.Mutex
	asked []string // "udp NAME TYPE"
}

// serveDNS runs a server until the test ends.
func serveDNS(t *testing.T, handle func(w dns.ResponseWriter, q *dns.Msg)) *server {
	t.Helper()
	s := &server{handle: handle}
	var l net.Listener
	var p net.PacketConn
	for range 20 { // the port of one may be taken for the other
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if p, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		l.Close()
	}
	if p == nil {
		t.Fatal("no port is free for UDP and TCP")
	}
	s.at = netip.MustParseAddrPort(l.Addr().String())
	for _, d := range []*dns.Server{{Listener: l, Handler: s}, {PacketConn: p, Handler: s}} {
		started, ended := make(chan struct{}), make(chan struct{})
		d.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			d.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			d.Shutdown()
			<-ended
		})
	}
	return s
}

func (s *server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	s.asked = append(s.asked, w.RemoteAddr().Network()+" "+q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype])
	s.mu.Unlock()
	s.handle(w, q)
}

// questions are what it was asked for addresses of IPv4.
func (s *server) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.asked), func(q string) bool { return strings.HasSuffix(q, " AAAA") })
}

// answer makes an answer to q of records in the form of zone files, as far as they
// are of the type that is asked for or aliases.
func answer(q *dns.Msg, records ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	for _, text := range records {
		r, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if k := r.Header().Rrtype; k == q.Question[0].Qtype || k == dns.TypeCNAME {
			m.Answer = append(m.Answer, r)
		}
	}
	return m
}

// says is a server that gives the same records to everybody.
func says(records ...string) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(answer(q, records...)) }
}

func fails(code int) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(q, code)) }
}

func mutely(dns.ResponseWriter, *dns.Msg) {}

// forgetful is a server that answers the second time.
func forgetful() func(dns.ResponseWriter, *dns.Msg) {
	var mu sync.Mutex
	asked := make(map[uint16]bool)
	return func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		again := asked[q.Question[0].Qtype]
		asked[q.Question[0].Qtype] = true
		mu.Unlock()
		if again {
			says(theirs)(w, q)
		}
	}
}
