package config

import "net/url"

// leastAuditBytes is the smallest file of records that may be put aside: one that
// holds a few.
const leastAuditBytes = 4 << 10

// audit checks what the places of records need, and warns of those that show them
// to the network.
func (v *validator) audit() {
	a := v.c.Audit
	const size = "audit.max_bytes"
	switch {
	case a.MaxBytes == 0 || !v.clean(size) || !v.clean("audit.file"):
	case a.File == Stdout || a.File == Stderr:
		v.fault(size, "has no effect on %s; leave it out, or let records go to a file", a.File)
	case a.MaxBytes < leastAuditBytes:
		v.fault(size, "is less than a few records need; allowed is 0B for never, or from 4KiB to 100GiB")
	}
	v.inTheClear("audit.syslog", a.Syslog, "tls")
	v.inTheClear("audit.otlp", a.OTLP, "https")
}

// inTheClear warns of records that leave the machine without TLS.
func (v *validator) inTheClear(key, place, secure string) {
	u, err := url.Parse(place)
	if err == nil && u.Host != "" && u.Scheme != secure && !loopbackHost(u.Hostname()) {
		v.warn(key, "records cross the network without TLS, so that they can be read and changed there; take %s://", secure)
	}
}
