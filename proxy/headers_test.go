package proxy

import "testing"

func TestAnEncodingIsAcceptedByItsOwnNameBeforeTheStar(t *testing.T) {
	for header, want := range map[string]bool{
		"gzip":                      true,
		"GZIP":                      true,
		"*":                         true,
		"br, *;q=0.1":               true,
		"*;q=0, gzip":               true,
		"gzip;q=0.001, *;q=0":       true,
		"":                          false,
		"identity":                  false,
		"br":                        false,
		"gzip;q=0":                  false,
		"gzip; q=0.000":             false,
		"*;q=0":                     false,
		"*, gzip;q=0":               false,
		"gzip;q=0, *":               false,
		"identity;q=1, *;q=0":       false,
		"gzipped, x-gzip-like, zip": false,
	} {
		if got := accepts([]string{header}, "gzip"); got != want {
			t.Errorf("%q accepts gzip: got %v, want %v", header, got, want)
		}
	}
	if !accepts([]string{"*;q=0", "gzip"}, "gzip") {
		t.Error("a name in the second line of the header is not seen behind a star in the first")
	}
}
