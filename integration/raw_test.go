package integration

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// raw writes bytes to an address and reads until the other side ends the
// connection. The request should ask for that.
func raw(t *testing.T, address, request string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	// A server that refuses early may end the connection before it has read all.
	_, _ = io.WriteString(c, request)
	var got bytes.Buffer
	if _, err := got.ReadFrom(c); err != nil && got.Len() == 0 {
		t.Fatalf("no answer: %v", err)
	}
	return got.String()
}
