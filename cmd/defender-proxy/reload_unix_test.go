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
