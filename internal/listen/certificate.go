package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// certificates are what a listener shows and asks for at TLS. They are read again,
// at a handshake, when their files have changed; what does not fit together leaves
// what was there before. The nil value is no TLS.
type certificates struct {
	cert, key, ca string
	renewed       func(error)
	now           func() time.Time

	current atomic.Pointer[tls.Config]

	mu     sync.Mutex // guards what follows
	looked time.Time
	seen   [3]stamp
	told   string // why the last reading failed
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// stamp is what a file looks like from outside.
type stamp struct {
	info os.FileInfo // of what a link leads to; nil where there is none
}

func stampOf(file string) stamp {
	if file == "" {
		return stamp{}
	}
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{info}
}

func (s stamp) same(t stamp) bool {
	if s.info == nil || t.info == nil {
		return s.info == nil && t.info == nil
	}
	return os.SameFile(s.info, t.info) && s.info.ModTime().Equal(t.info.ModTime()) && s.info.Size() == t.info.Size()
}

// newCertificates reads the files that the settings name; nil where they name none.
func newCertificates(s Settings) (*certificates, error) {
	if s.CertFile == "" && s.KeyFile == "" {
		if s.ClientCAFile != "" {
			return nil, errors.New("tls.client_ca_file needs tls.cert_file and tls.key_file")
		}
		return nil, nil
	}
	c := &certificates{cert: s.CertFile, key: s.KeyFile, ca: s.ClientCAFile, renewed: s.Renewed, now: time.Now}
	if c.renewed == nil {
		c.renewed = func(error) {}
	}
	c.seen, c.looked = c.stamps(), c.now()
	config, err := c.read()
	if err != nil {
		return nil, err
	}
	c.current.Store(config)
	return c, nil
}

// config gives what a server needs; nil for the nil value.
func (c *certificates) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.get(), nil },
	}
}

// get gives the newest there is. One handshake at a time looks for newer; the others
// go on with what there is.
func (c *certificates) get() *tls.Config {
	if c.mu.TryLock() {
		defer c.mu.Unlock()
		if now := c.now(); now.Sub(c.looked) >= lookEvery {
			c.looked = now
			c.look()
		}
	}
	return c.current.Load()
}

// look reads files that have changed. Files that could not be read are read again at
// the next look, but told once.
func (c *certificates) look() {
	stamps := c.stamps()
	same := c.told == ""
	for i, s := range stamps {
		same = same && s.same(c.seen[i])
	}
	if same {
		return
	}
	config, err := c.read()
	if err != nil {
		if c.told != err.Error() {
			c.told = err.Error()
			c.renewed(err)
		}
		return
	}
	c.current.Store(config)
	c.seen, c.told = stamps, ""
	c.renewed(nil)
}

func (c *certificates) stamps() [3]stamp {
	return [3]stamp{stampOf(c.cert), stampOf(c.key), stampOf(c.ca)}
}

func (c *certificates) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("load tls.cert_file %s and tls.key_file %s: %w", c.cert, c.key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"}, // not h2, whose frames and memory net/http alone would bound
	}
	if c.ca == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, fmt.Errorf("load tls.client_ca_file: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load tls.client_ca_file %s: there is no certificate in it", c.ca)
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}
