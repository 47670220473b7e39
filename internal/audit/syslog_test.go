package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// rfc5424 is the grammar of RFC 5424, section 6, for messages that have both of our
// elements of structured data.
var rfc5424 = regexp.MustCompile(`^<([0-9]{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([\x21-\x7e]{1,255}) ([\x21-\x7e]{1,48}) ([\x21-\x7e]{1,128}) ([\x21-\x7e]{1,32}) ` +
	`\[meta sequenceId="([0-9]+)"\]\[origin software="((?:[^"\\\]]|\\["\\\]])+)" swVersion="((?:[^"\\\]]|\\["\\\]]){1,32})"\] (\{.*\})$`)

// received is a message as a server understands it.
type received struct {
	priority  int
	app, kind string
	sequence  int
	version   string
	record    map[string]any
	line      string
}

func understand(t *testing.T, message string) received {
	t.Helper()
	m := rfc5424.FindStringSubmatch(message)
	if m == nil {
		t.Fatalf("not a message of RFC 5424: %q", message)
	}
	r := received{app: m[4], kind: m[6], version: m[9], line: m[10]}
	r.priority, _ = strconv.Atoi(m[1])
	r.sequence, _ = strconv.Atoi(m[7])
	if err := json.Unmarshal([]byte(m[10]), &r.record); err != nil {
		t.Fatalf("no record in %q: %v", message, err)
	}
	if host, _ := os.Hostname(); m[3] != printable(host, 255) || m[5] != strconv.Itoa(os.Getpid()) || m[2] != r.record["time"] {
		t.Errorf("the header is wrong: %q", message)
	}
	return r
}

// running runs a Log's other places until the test ends, or stop is called.
func running(t *testing.T, log *Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := log.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return stop
}

// eventually waits for something that another goroutine does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for 30 s: %s", what)
		}
	}
}

// server is a syslog server: messages as they come.
type server struct {
	address  string
	messages chan string
}

func (s *server) next(t *testing.T) received {
	t.Helper()
	select {
	case m := <-s.messages:
		return understand(t, m)
	case <-time.After(30 * time.Second):
		t.Fatal("no message came within 30 s")
		panic("unreachable")
	}
}

// datagrams serves one socket of datagrams.
func datagrams(t *testing.T, network, address string) *server {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	must(t, err)
	s := &server{address: c.LocalAddr().String(), messages: make(chan string, 1000)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := make([]byte, 1<<16); ; {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			s.messages <- string(b[:n])
		}
	})
	t.Cleanup(func() { _ = c.Close(); wg.Wait() })
	return s
}

// streams serves connections with octet counting.
func streams(t *testing.T, l net.Listener) (s *server, hangUp func()) {
	s = &server{address: l.Addr().String(), messages: make(chan string, 100_000)}
	var mu sync.Mutex
	var open []net.Conn
	hangUp = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
		open = nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				for b := bufio.NewReader(c); ; {
					digits, err := b.ReadString(' ')
					if err != nil {
						return
					}
					n, err := strconv.Atoi(strings.TrimSuffix(digits, " "))
					if err != nil || strings.HasPrefix(digits, "0") {
						t.Errorf("no length in front of a message: %q", digits)
						return
					}
					m := make([]byte, n)
					if _, err := io.ReadFull(b, m); err != nil {
						return
					}
					s.messages <- string(m)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); hangUp(); wg.Wait() })
	return s, hangUp
}

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	must(t, err)
	return l
}

// shortDir is a folder whose name leaves room in the 104 bytes of a socket's path.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "a")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// identity makes a certificate for 127.0.0.1, and the pool that trusts it.
func identity(t *testing.T) (tls.Certificate, *x509.CertPool, []byte, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "syslog"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func TestSyslogGetsEachRecordAsAMessage(t *testing.T) {
	cert, pool, _, _ := identity(t)
	ways := map[string]func(t *testing.T) (*server, Settings){
		"over UDP": func(t *testing.T) (*server, Settings) {
			s := datagrams(t, "udp", "127.0.0.1:0")
			return s, Settings{Syslog: "udp://" + s.address}
		},
		"over TCP": func(t *testing.T) (*server, Settings) {
			s, _ := streams(t, listenOn(t, "tcp", "127.0.0.1:0"))
			return s, Settings{Syslog: "tcp://" + s.address}
		},
		"over TCP and IPv6": func(t *testing.T) (*server, Settings) {
			s, _ := streams(t, listenOn(t, "tcp", "[::1]:0"))
			return s, Settings{Syslog: "tcp://" + s.address}
		},
		"over TLS": func(t *testing.T) (*server, Settings) {
			s, _ := streams(t, tls.NewListener(listenOn(t, "tcp", "127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{cert}}))
			return s, Settings{Syslog: "tls://" + s.address, TLS: &tls.Config{RootCAs: pool}}
		},
	}
	if runtime.GOOS != "windows" {
		ways["to a socket of datagrams"] = func(t *testing.T) (*server, Settings) {
			s := datagrams(t, "unixgram", filepath.Join(shortDir(t), "log"))
			return s, Settings{Syslog: "unix:" + s.address}
		}
		ways["to a socket of streams"] = func(t *testing.T) (*server, Settings) {
			s, _ := streams(t, listenOn(t, "unix", filepath.Join(shortDir(t), "log")))
			return s, Settings{Syslog: "unix://" + s.address}
		}
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			server, s := way(t)
			s.Version, s.Chain = `v1 "]\ x`, true
			path, log := fileLog(t, s)
			running(t, log)
			full := fullRecord()
			intent, refused := fullRecord(), fullRecord()
			intent.Event, refused.Decision = Intent, "refused"
			want := []int{110, 110, 109} // log audit: informational and notice
			for i, r := range []*Record{intent, full, refused} {
				must(t, log.Write(r))
				got := server.next(t)
				if got.priority != want[i] || got.app != "defender-proxy" || got.kind != string(r.Event) || got.sequence != i+1 || got.version != `v1\"\]\\x` {
					t.Errorf("got %+v, want priority %d and number %d", got, want[i], i+1)
				}
				if inFile := linesOf(t, path)[i]; got.line+"\n" != inFile {
					t.Errorf("got %s\nthe file has %s", got.line, inFile)
				}
			}
			eventually(t, "three are counted", func() bool { return log.Stats().Places[0].Sent == 3 })
			if p := log.Stats().Places[0]; p.Name != "syslog" || p.Dropped != 0 || p.Waiting != 0 || p.Failing != "" {
				t.Errorf("got %+v", p)
			}
		})
	}
}

// A server comes late, hangs up, and is away for a while; its file has them all.
func TestSyslogGetsWhatWaitedForIt(t *testing.T) {
	l := listenOn(t, "tcp", "127.0.0.1:0")
	address := l.Addr().String()
	must(t, l.Close())

	var told lockedBuffer
	_, log := fileLog(t, Settings{Syslog: "tcp://" + address, Log: zerolog.New(&told), Version: "v1"})
	running(t, log)
	must(t, log.Write(&Record{Event: Request, ID: "1"}))
	eventually(t, "the Log says that nobody is there", func() bool { return log.Stats().Places[0].Failing != "" })
	must(t, log.Write(&Record{Event: Request, ID: "2"}))

	server, hangUp := streams(t, listenOn(t, "tcp", address))
	for want := 1; want <= 2; want++ {
		if got := server.next(t); got.sequence != want || got.record["request_id"] != strconv.Itoa(want) {
			t.Errorf("got %+v, want record %d", got, want)
		}
	}
	eventually(t, "it says that all is well", func() bool { return strings.Contains(told.String(), "get there again") })
	if n := strings.Count(told.String(), "do not get there"); n != 1 {
		t.Errorf("the process's log was told %d times, want once: %s", n, told.String())
	}

	// It hangs up; the next record goes over a new connection, and is not written into
	// the void.
	for want := 3; want <= 5; want++ {
		hangUp()
		time.Sleep(20 * time.Millisecond) // the end of a connection takes its time to come
		must(t, log.Write(&Record{Event: Request, ID: strconv.Itoa(want)}))
		if got := server.next(t); got.sequence != want {
			t.Errorf("got %+v, want record %d", got, want)
		}
	}
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A server that does not read stops nobody, and memory is bounded: what is too much
// is dropped and counted, and the numbers show the gap.
func TestSyslogThatDoesNotReadStopsNobody(t *testing.T) {
	l := listenOn(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	path, log := fileLog(t, Settings{Syslog: "tcp://" + l.Addr().String()})
	stop := running(t, log)
	const n = 3 * mostWaiting
	r := &Record{Event: Request, Path: strings.Repeat("x", 900)}
	for range n {
		must(t, log.Write(r))
	}
	p := log.Stats().Places[0]
	if p.Dropped == 0 || p.Waiting > mostWaiting || p.Dropped+p.Sent+uint64(p.Waiting) != n {
		t.Errorf("got %+v, want the sum %d and some dropped", p, n)
	}
	if got := len(linesOf(t, path)); got != n {
		t.Errorf("the file has %d records, want %d", got, n)
	}
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 3*flushTime {
		t.Errorf("the end took %v, want about %v", took, flushTime)
	}
}

func TestWhatWaitsAtTheEndIsSent(t *testing.T) {
	server, _ := streams(t, listenOn(t, "tcp", "127.0.0.1:0"))
	_, log := fileLog(t, Settings{Syslog: "tcp://" + server.address, Version: "v1"})
	for i := range 1000 {
		must(t, log.Write(&Record{Event: Request, ID: strconv.Itoa(i)}))
	}
	stop := running(t, log)
	stop()
	for i := range 1000 {
		if got := server.next(t); got.sequence != i+1 {
			t.Fatalf("got number %d, want %d", got.sequence, i+1)
		}
	}
}

func TestARecordThatNoDatagramHoldsIsDropped(t *testing.T) {
	server := datagrams(t, "udp", "127.0.0.1:0")
	_, log := fileLog(t, Settings{Syslog: "udp://" + server.address, Version: "v1"})
	running(t, log)
	must(t, log.Write(&Record{Event: Request, ID: "large", Reason: strings.Repeat("x ", 40_000)}))
	must(t, log.Write(&Record{Event: Request, ID: "small"}))
	if got := server.next(t); got.record["request_id"] != "small" || got.sequence != 2 {
		t.Errorf("got %+v, want the small one with number 2", got)
	}
	eventually(t, "one is dropped and one sent", func() bool { p := log.Stats().Places[0]; return p.Dropped == 1 && p.Sent == 1 })
}

func TestSyslogOverTLSBelievesNobodyElse(t *testing.T) {
	cert, _, _, _ := identity(t)
	server, _ := streams(t, tls.NewListener(listenOn(t, "tcp", "127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{cert}}))
	_, log := fileLog(t, Settings{Syslog: "tls://" + server.address})
	running(t, log)
	must(t, log.Write(&Record{Event: Request}))
	eventually(t, "the Log says why", func() bool { return strings.Contains(log.Stats().Places[0].Failing, "certificate") })
	if len(server.messages) != 0 {
		t.Error("a record went to a server with another certificate")
	}
}

func TestSequenceIdsBeginAgainBehindTheLargest(t *testing.T) {
	y := &syslog{header: " h a 1 ", origin: "[o]"}
	for number, want := range map[uint64]string{1: `"1"`, largestSequence: `"2147483647"`, largestSequence + 1: `"1"`, 3*largestSequence + 7: `"7"`} {
		if got := string(y.appendMessage(nil, entry{number: number})); !strings.Contains(got, "[meta sequenceId="+want+"]") {
			t.Errorf("%d gives %s, want %s", number, got, want)
		}
	}
}

func TestFaultyAddressesOfOtherPlacesAreToldAtTheStart(t *testing.T) {
	for _, s := range []string{
		"localhost:514", "http://localhost", "udp://", "udp://:514", "tcp://host:99999999", "tcp://host/path", "tcp://user@host", "unix:", "unix://host/path",
		"unix:relative", "tls://host?x", "tcp://[::1", "udp:host",
	} {
		if log, err := Open(Settings{File: "stdout", Syslog: s}, io.Discard, nil); err == nil || !strings.Contains(err.Error(), "audit.syslog") {
			t.Errorf("%q opens: %v, %v", s, log, err)
		}
	}
	for _, s := range []string{"collector:4318", "ftp://host", "http://", "https://user:s3cr3t@host:port/", "http://host#x"} {
		if log, err := Open(Settings{File: "stdout", OTLP: s}, io.Discard, nil); err == nil || !strings.Contains(err.Error(), "audit.otlp") || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q opens: %v, %v", s, log, err)
		}
	}
	for s, want := range map[string]string{
		"udp://host": "host:514", "tcp://host": "host:514", "tls://host": "host:6514", "tcp://[::1]": "[::1]:514", "udp://host:1514": "host:1514", "unix:/dev/log": "/dev/log", "unix:///dev/log": "/dev/log",
	} {
		p, err := newSyslog(&Settings{Syslog: s})
		if err != nil || p.to.(*syslog).address != want {
			t.Errorf("%s: %v, %v; want %s", s, p, err, want)
		}
	}
}

// Concurrent writers: other places get the records in the order of the file.
func TestOtherPlacesGetTheOrderOfTheFile(t *testing.T) {
	server, _ := streams(t, listenOn(t, "tcp", "127.0.0.1:0"))
	path, log := fileLog(t, Settings{Syslog: "tcp://" + server.address, Chain: true, Version: "v1"})
	running(t, log)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 100 {
				if err := log.Write(&Record{Event: Request, ID: fmt.Sprint(w, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var got []string
	for range 800 {
		got = append(got, server.next(t).line+"\n")
	}
	if !slices.Equal(got, linesOf(t, path)) {
		t.Error("the order is another, or the records are")
	}
}
