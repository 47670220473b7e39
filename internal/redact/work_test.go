package redact

import (
	"strings"
	"testing"
	"time"
)

// Anybody can send a text, also who is not admitted: what stands in it decides
// nothing about how long its looking at takes, but for its length.
func TestFourTimesTheTextIsFourTimesTheWork(t *testing.T) {
	const n = 16 << 10
	signs := []string{"J", "~", ".", "=", ":", "%", "?", "@", " ", "+", "/", "-", "&", "\\", `"`, "'", "[", ",", "a", "1", "\t"}
	units := []string{
		"pop+", "pop+a1B:", "bearer%20", "token ", "basic a=", "bearer aaaaaaa=", "bearer error=a", "sharedkey+a|", "eyJ", "xeyJ", "eyJhb", "eyJhbGci.", "1Q~", "Q~1Q~", "0.A", "0.Aa", "1.A%2e",
		"sig=", "&sig=", "&amp;a=", `\u0026a=`, "secret: ", "secret: a", "secret=[redacted]", `secret=""`, "secret=''\t", "'token':[a", "'token':[/", `"a":"`, `"token":"`, `\"token\":\"`, `"token":[`, "secret:%22", "secret=%22a", `secret: \u0022`, "secret=%22%22", `secret:"\\`, `secret:"AADSTS1`, "secret:'AADSTS1\"",
		"authorization:[redacted] ", "authorization=", "authorization=\n", "cookie: [redacted]", "cookie:\r", "://", "://a", "://:a/", "://:a/\"", "https://a:b?", "%3a%2f%2f", "%3a%2f%2fa%40", "%3A%2F%2f", `:\/\/`, "/:@", ":@/", "a:b@", "/a:b", "http://a?b@", "/a?b=c&", "/a?$top=1", "/?$top=,,,", "?a",
		"%22", "%3d", "%3a", "%20", "%7e", "aA1", "--", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY----------END ", "-----BEGIN PRIVATE KEY-----x-----END PRIVATE KEY-----", "é", "\x00",
	}
	for _, a := range signs {
		for _, b := range signs {
			units = append(units, a+b, "pop"+a+b, "token"+b+a, "secret"+a+b, "a"+a+"a"+b, "/a"+a+"1"+b)
		}
	}
	cost := func(s string, least time.Duration) time.Duration {
		began := time.Now()
		Text(s)
		Path(s)
		return min(least, time.Since(began))
	}
	for _, unit := range units {
		once, many := strings.Repeat(unit, n/len(unit)), strings.Repeat(unit, 4*n/len(unit))
		// The square would be sixteen times. The machine has other things to do, so the
		// least of some times counts.
		const most, tries = 9, 40
		a, b := time.Hour, time.Hour
		for try := 0; try < tries; try++ {
			a, b = cost(once, a), cost(many, b)
			if b <= most*max(a, 20*time.Microsecond) {
				break
			}
		}
		if b > most*max(a, 20*time.Microsecond) {
			t.Errorf("%q: %d KiB take %v, %d KiB %v", unit, n>>10, a, 4*n>>10, b)
		}
	}
}
