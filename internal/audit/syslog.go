package audit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// syslog sends records as messages of RFC 5424: over UDP one a datagram (RFC 5426),
// over TCP and TLS with their length in front (octet counting; RFC 6587, section
// 3.4.1, and RFC 5425, section 4.3), and to a Unix socket as datagrams or, where it
// is one of streams, like TCP.
//
// Nothing is answered in this protocol. What was written to a connection that then
// broke may be lost, or arrive twice when it is sent again; sequenceId shows both.
type syslog struct {
	network, address string
	tls              *tls.Config // nil: none
	header           string      // from the hostname to the process's id
	origin           string      // structured data that is the same for all

	conn    net.Conn // nil: none
	stream  bool
	hungUp  chan struct{} // closed when the other side has ended conn, or it is closed
	message []byte
}

// syslogTimeout bounds connecting, and writing a batch.
const syslogTimeout = 10 * time.Second

func newSyslog(s *Settings) (*place, error) {
	fault := func(why string) error {
		return fmt.Errorf("audit.syslog %q %s: say udp://, tcp:// or tls:// with HOST:PORT, or unix:PATH", s.Syslog, why)
	}
	u, err := url.Parse(s.Syslog)
	if err != nil {
		return nil, fault("is no address")
	}
	y := &syslog{network: u.Scheme}
	port := "514"
	switch u.Scheme {
	case "udp", "tcp":
	case "tls":
		// 6514 is of RFC 5425, section 4.1.
		port, y.network = "6514", "tcp"
		y.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if s.TLS != nil {
			y.tls = s.TLS.Clone()
		}
		if y.tls.ServerName == "" {
			y.tls.ServerName = u.Hostname()
		}
	case "unix":
		if y.network, y.address = "unixgram", u.Path; u.Path == "" || u.Host != "" {
			return nil, fault("names no absolute path")
		}
	default:
		return nil, fault("has another scheme")
	}
	if u.Scheme != "unix" {
		if u.Hostname() == "" || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fault("is not a host and a port")
		}
		if u.Port() != "" {
			port = u.Port()
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fault("has no port from 1 to 65535")
		}
		y.address = net.JoinHostPort(u.Hostname(), port)
	}
	host, _ := os.Hostname()
	y.header = fmt.Sprintf(" %s defender-proxy %d ", printable(host, 255), os.Getpid())
	y.origin = `[origin software="defender-proxy"`
	if s.Version != "" {
		y.origin += ` swVersion="` + inQuotes.Replace(printable(s.Version, 32)) + `"`
	}
	y.origin += "]"
	p := newPlace("syslog", s.Log, y)
	p.batch = 64
	return p, nil
}

// printable gives a name as the header may hold it: ASCII without spaces, or "-".
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

// inQuotes escapes a value of structured data.
var inQuotes = strings.NewReplacer(`"`, `\"`, `\`, `\\`, `]`, `\]`)

// Severities of RFC 5424, section 6.2.1, and the facility "log audit".
const (
	logAudit      = 13
	warning       = 4
	notice        = 5
	informational = 6
)

// largestSequence is what sequenceId may become, by section 7.3.1.
const largestSequence = 1<<31 - 1

// appendMessage appends an entry as a message.
func (y *syslog) appendMessage(b []byte, e entry) []byte {
	severity := informational
	switch {
	case e.event == Lost:
		severity = warning
	case e.refused:
		severity = notice
	}
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(logAudit*8+severity), 10)
	b = append(b, ">1 "...)
	b = e.at.UTC().AppendFormat(b, timeFormat)
	b = append(b, y.header...)
	b = append(b, e.event...)
	// Without an enterprise number, which the project has not got, only the names of
	// section 7 may be used.
	b = append(b, ` [meta sequenceId="`...)
	b = strconv.AppendUint(b, (e.number-1)%largestSequence+1, 10)
	b = append(b, `"]`...)
	b = append(b, y.origin...)
	b = append(b, ' ')
	return append(b, e.line...)
}

func (y *syslog) send(ctx context.Context, batch []entry) (done, dropped int, err error) {
	if err := y.connect(ctx); err != nil {
		return 0, 0, fmt.Errorf("reach audit.syslog: %w", err)
	}
	conn := y.conn
	_ = conn.SetWriteDeadline(time.Now().Add(syslogTimeout))
	defer context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Now()) })()
	if y.stream {
		y.message = y.message[:0]
		var one []byte
		for _, e := range batch {
			one = y.appendMessage(one[:0], e)
			y.message = strconv.AppendInt(y.message, int64(len(one)), 10)
			y.message = append(y.message, ' ')
			y.message = append(y.message, one...)
		}
		if _, err := y.conn.Write(y.message); err != nil {
			y.close()
			return 0, 0, fmt.Errorf("write to audit.syslog: %w", err)
		}
		return len(batch), 0, nil
	}
	for _, e := range batch {
		y.message = y.appendMessage(y.message[:0], e)
		_, err := y.conn.Write(y.message)
		switch {
		case errors.Is(err, syscall.EMSGSIZE):
			dropped++ // no datagram is that long
		case err != nil:
			y.close()
			return done, dropped, fmt.Errorf("write to audit.syslog: %w", err)
		}
		done++
	}
	return done, dropped, nil
}

// connect makes sure of a connection that the other side has not ended.
func (y *syslog) connect(ctx context.Context) error {
	if y.conn != nil {
		select {
		case <-y.hungUp:
			y.close()
		default:
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, syslogTimeout)
	defer cancel()
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	network := y.network
	conn, err := dialer.DialContext(ctx, network, y.address)
	if network == "unixgram" && errors.Is(err, syscall.EPROTOTYPE) {
		network = "unix"
		conn, err = dialer.DialContext(ctx, network, y.address)
	}
	if err != nil {
		return err
	}
	y.stream = network == "tcp" || network == "unix"
	if y.tls != nil {
		secure := tls.Client(conn, y.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return err
		}
		conn = secure
	}
	y.conn, y.hungUp = conn, make(chan struct{})
	if !y.stream {
		return nil
	}
	// Nothing comes from the other side but the end. To know of it in time saves the
	// records that would be written into the void.
	go func(gone chan struct{}) {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
	}(y.hungUp)
	return nil
}

func (y *syslog) close() {
	if y.conn == nil {
		return
	}
	_ = y.conn.Close()
	if y.stream {
		<-y.hungUp
	}
	y.conn = nil
}
