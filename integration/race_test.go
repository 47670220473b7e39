//go:build race

package integration

// instrument builds the binary like the tests: with the race detector, which
// needs a C compiler, only when they have it.
var instrument = []string{"-race", "-cover"}
