//go:build !race

package integration

// instrument builds the binary like the tests, here without the race detector.
var instrument = []string{"-cover"}

const (
	// defaultLarge is the size of the large bodies that are streamed.
	defaultLarge = 1 << 30
	// slowGrowth bounds what a hundred callers that read slowly may cost.
	slowGrowth = 48 << 20
)
