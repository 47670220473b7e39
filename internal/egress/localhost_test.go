package egress

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// What is sent to localhost, as the secret of a managed identity is, is for this
// machine, and no server of the network says where that is (RFC 6761, section 6.3).
func TestLocalhostIsThisMachineWhateverAServerSays(t *testing.T) {
	noProxies(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // plain http, as identities of App Service are
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }), ErrorLog: quiet}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = web.Serve(l)
	}()
	t.Cleanup(func() {
		web.Close()
		<-done
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	asked := serveDNS(t, says("localhost. 1 IN A 192.0.2.66", "app.localhost. 1 IN A 192.0.2.66"))
	s := Settings{Servers: []netip.AddrPort{asked.at}, ConnectTimeout: 20 * time.Second}
	for _, name := range []string{"localhost", "LOCALHOST", "localhost.", "app.localhost", "a.b.Localhost."} {
		if got, err := looked(t, s, name); err != nil || strings.Join(got, " ") != "127.0.0.1 ::1" {
			t.Errorf("%s is at %v, %v", name, got, err)
		}
	}
	tr := transport(t, s)
	for _, rt := range []http.RoundTripper{tr, tr.Direct()} {
		if _, got, err := get(t, rt, "http://localhost:"+port+"/msi/token"); err != nil || got != "here" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if q := asked.questions(); len(q) > 0 {
		t.Errorf("the server was asked %v", q)
	}
	// Names that only look alike are asked for, and who pins it means it.
	if got, _ := looked(t, s, "notlocalhost"); len(got) > 0 || len(asked.questions()) == 0 {
		t.Errorf("notlocalhost is at %v, and the server was asked %v", got, asked.questions())
	}
	s.Hosts = map[string][]netip.Addr{"localhost": {netip.MustParseAddr("192.0.2.5")}}
	if got, err := looked(t, s, "localhost"); err != nil || strings.Join(got, " ") != "192.0.2.5" {
		t.Errorf("pinned, it is at %v, %v", got, err)
	}
}
