package regions

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func TestTheOperationsOfAServiceAreBounded(t *testing.T) {
	var u usualTimes
	for i := range 2 * maxOperations {
		for range earlySamples {
			u.over("mde", fmt.Sprint(i), time.Second)
		}
	}
	if n := len(u.services["mde"]); n != maxOperations {
		t.Errorf("%d operations are known, want %d", n, maxOperations)
	}
	if _, _, known := u.over("mde", fmt.Sprint(maxOperations-1), time.Second); !known {
		t.Error("the last operation that there was room for is not known")
	}
	if _, _, known := u.over("mde", fmt.Sprint(maxOperations), time.Second); known {
		t.Error("an operation that there was no room for is known")
	}
	if _, _, known := u.over("xdr", "0", time.Second); known || len(u.services["xdr"]) != 1 {
		t.Error("another service has not its own room")
	}
}

// Whatever the durations are like, and although they change once: about two in
// five requests take longer than usual.
func TestTheUsualTimeIsWhatThreeInFiveStayUnder(t *testing.T) {
	const ms = float64(time.Millisecond)
	for name, d := range map[string]func(r *rand.Rand) float64{
		"uniform":     func(r *rand.Rand) float64 { return 100*ms + 100*ms*r.Float64() },
		"exponential": func(r *rand.Rand) float64 { return 200 * ms * r.ExpFloat64() },
		"two humps": func(r *rand.Rand) float64 {
			return 50*ms + 10*ms*r.NormFloat64() + 20000*ms*float64(r.IntN(2))*r.Float64()
		},
		"around zero": func(r *rand.Rand) float64 { return 5 * ms * r.NormFloat64() },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 4))
			var u usualTimes
			for _, factor := range []float64{1, 8, 1} {
				over := 0
				for i := range 40_000 {
					o, _, _ := u.over("mde", "alerts.list", time.Duration(factor*d(r)))
					if i >= 20_000 && o > 0 {
						over++
					}
				}
				if over < 7000 || over > 9000 {
					t.Errorf("durations times %v: %d of 20000 took longer than usual, want about 8000", factor, over)
				}
			}
		})
	}
}
