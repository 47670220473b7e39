package config

import (
	"crypto/sha256"
	"io/fs"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"defender-proxy/internal/clients"
)

// LocalKey is the SHA-256 of a key that callers have to send. The zero value is of
// no key.
type LocalKey struct{ Sum [sha256.Size]byte }

// String keeps the sum out of output: of a short key it tells the key.
func (LocalKey) String() string { return "[redacted]" }

// GoString is String.
func (k LocalKey) GoString() string { return k.String() }

// MarshalText is String.
func (k LocalKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// localKey reads the value of a header that carries a local key. Whoever can read
// the file shall not have the key, so that it is there as its sum or a variable.
func localKey(text string, fromEnv bool) (k LocalKey, reason string) {
	switch {
	case text == "":
		return k, "is empty"
	case !fromEnv && !strings.HasPrefix(text, "sha256:"):
		return k, "is not the sum of a key; a key is not written into the configuration: give its SHA-256, sha256:HEX (printf %s KEY | sha256sum), or take it from a variable, ${NAME}"
	}
	read, err := clients.NewKey(anyHeader, text)
	if err != nil {
		return k, err.Error()
	}
	return LocalKey{read.Sum}, ""
}

// anyHeader stands for one that can carry a local key.
const anyHeader = "X-Api-Key"

// Keys gives what a group's callers have to send, in the order of the headers.
func (g ClientGroup) Keys() []clients.Key {
	var all []clients.Key
	for _, h := range slices.Sorted(maps.Keys(g.Headers)) {
		all = append(all, clients.Key{Header: h, Sum: g.Headers[h].Sum})
	}
	return all
}

// parseMoment reads a moment. One without a zone, or a day alone, would end at
// another time for whoever reads it elsewhere.
func parseMoment(text string) (time.Time, string) {
	t, err := time.Parse(time.RFC3339, text)
	switch {
	case err == nil:
		return t.UTC(), ""
	case anyTime(text, time.DateOnly, time.DateTime, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15:04Z07:00"):
		return time.Time{}, "is not a whole moment; write day, time to the second and zone, such as 2026-12-31T18:00:00Z or 2026-12-31T18:00:00+01:00"
	}
	return time.Time{}, "is not a moment such as 2026-12-31T18:00:00Z"
}

func anyTime(text string, layouts ...string) bool {
	for _, l := range layouts {
		if _, err := time.Parse(l, text); err == nil {
			return true
		}
	}
	return false
}

// parseMode reads the mode of a file. A mode without its 0 would be read as a
// decimal number elsewhere.
func parseMode(text string) (fs.FileMode, string) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || len(text) != 4 || text[0] != '0' {
		return 0, "is not the mode of a file: 0 and three octal digits, such as 0660"
	}
	if n&0o600 != 0o600 {
		return 0, "keeps the owner from the socket; give the owner reading and writing, as in 0660"
	}
	return fs.FileMode(n), ""
}

// accountName is what useradd takes (useradd(8)), and Windows' letters.
var accountName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.-]{0,63}\$?|[0-9]{1,10})$`)

func wrongAccount(text string) string {
	if !accountName.MatchString(text) {
		return "is not the name or number of a user or group"
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n >= 1<<32-1 {
		return "is not the number of a user or group: those are below 4294967295"
	}
	return ""
}

// parseSyslog reads where syslog goes, and gives it with its port.
func parseSyslog(text string) (value, reason string) {
	const wanted = "is not a place for syslog such as udp://log.corp.example, tcp://log.corp.example:601, tls://log.corp.example or unix:/dev/log"
	if path, is := strings.CutPrefix(text, unixScheme); is {
		if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) {
			return "", "does not name the path of a socket, such as unix:/dev/log"
		}
		return text, ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return "", wanted
	}
	// RFC 5426, section 3.3, and RFC 5425, section 4.1; 514 is what servers use for TCP.
	port, known := map[string]string{"udp": ":514", "tcp": ":514", "tls": ":6514"}[u.Scheme]
	host, ok := parseHost(u.Host)
	switch {
	case !known:
		return "", wanted
	case !ok:
		return "", "has a host that is neither a name nor an address, or a port that is none"
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") || u.Path != "" && u.Path != "/":
		return "", "has a user, path, query or fragment; leave it out"
	case u.Port() != "":
		port = ""
	}
	return u.Scheme + "://" + host + port, ""
}

// parseCollector reads the URL of an OTLP collector, and gives it with its path
// (opentelemetry.io/docs/specs/otlp, OTLP/HTTP request).
func parseCollector(text string) (value, reason string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return "", "is not the URL of a collector such as https://collector.corp.example:4318"
	}
	host, ok := parseHost(u.Host)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", "begins with neither https:// nor http://; OTLP is spoken over HTTP here"
	case !ok:
		return "", "has a host that is neither a name nor an address, or a port that is none"
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", "has a user, query or fragment; leave it out"
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	if path == "" {
		path = "/v1/logs"
	}
	return u.Scheme + "://" + host + path, ""
}
