package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"defender-proxy/internal/egress"
)

// A caller learns that the proxy found itself and what an operator does about it; the
// address, which lies inside the operator's network, stands in the record alone.
func TestThatTheWayLeadsBackIsToldWithoutTheAddress(t *testing.T) {
	for _, loop := range []*egress.LoopError{
		{Host: "api.security.microsoft.com", Address: netip.MustParseAddrPort("10.1.2.3:443")},
		{Host: "api.security.microsoft.com"},
	} {
		for _, err := range []error{loop, fmt.Errorf("region eu: %w", loop), &egress.ProxyError{Err: loop}} {
			if got := public(err); !strings.Contains(got, "leads back to the proxy") || !strings.Contains(got, "egress.resolve") || strings.Contains(got, "10.1.2.3") {
				t.Errorf("the caller is told %q", got)
			}
			if got := withoutBytes(err); got != error(loop) {
				t.Errorf("the record has %v", got)
			}
		}
	}
}
