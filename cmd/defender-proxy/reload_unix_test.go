//go:build unix

package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestSIGHUPReadsTheConfigurationAgain(t *testing.T) {
	l := newLab(t, nil)
	l.wants("/t/fabrikam/api/alerts", 404)
	l.tenants(l.tenant("contoso"), l.tenant("fabrikam"))
	l.save()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	l.eventually("the tenant is there", func() bool { status, _ := l.get("/t/fabrikam/api/alerts"); return status == 200 })
	l.eventually("the log tells why", func() bool { return strings.Contains(l.stderr.String(), `"because":"SIGHUP"`) })
}

// logrotate moves the file away and sends SIGHUP.
func TestSIGHUPOpensTheAuditFileAnew(t *testing.T) {
	l := newLab(t, func(l *lab) { l.config["audit"] = object{"file": "audit.log"} })
	l.wants("/api/alerts", 200)
	if err := os.Rename(l.path("audit.log"), l.path("audit.log.1")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	l.eventually("the reload is logged", func() bool { return strings.Contains(l.stderr.String(), `"because":"SIGHUP"`) })
	l.wants("/api/machines", 200)
	l.eventually("the record is written", func() bool {
		text, _ := os.ReadFile(l.path("audit.log"))
		return strings.Count(string(text), "\n") == 1 && strings.Contains(string(text), "/api/machines")
	})
	if text, err := os.ReadFile(l.path("audit.log.1")); err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("the one that was moved: %q, %v", text, err)
	}
}
