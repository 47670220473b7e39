//go:build !race

package integration

// instrument builds the binary like the tests, here without the race detector.
var instrument = []string{"-cover"}
