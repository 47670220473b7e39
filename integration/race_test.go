//go:build race

package integration

// instrument builds the binary like the tests: with the race detector, which
// needs a C compiler, only when they have it.
var instrument = []string{"-race", "-cover"}

// The race detector makes streams several times slower, and keeps memory of its
// own for what the process uses.
const (
	defaultLarge = 256 << 20
	slowGrowth   = 192 << 20
)
