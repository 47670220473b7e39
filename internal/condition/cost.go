package condition

import (
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// maxCost bounds the work of one evaluation. A unit is about one look at a value or
// at ten bytes of a text, so that the longest body costs well below a second and a
// list of 500 indicators is far from the end.
const maxCost = 200_000

// prices tells what calls cost. CEL's own prices go by the types that the compiler
// knows, which for a body is none, and then take a look through a long list for one
// step.
type prices struct{}

// CallCost is cost.ActualCostEstimator.
func (prices) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	left := maxCost
	switch function {
	case "_&&_", "_||_", "!_", "@not_strictly_false", "_?_:_", "_[_]", "size", "type", "dyn":
		left--
	case "_+_": // texts are copied, lists are not
		left -= 1 + length(result)
	default:
		left--
		for _, a := range args {
			left = weigh(a, left)
		}
	}
	price := uint64(maxCost - left)
	return &price
}

// length is what a text weighs; 0 for anything else.
func length(v any) int {
	switch v := v.(type) {
	case types.String:
		return len(v) / 10
	case types.Bytes:
		return len(v) / 10
	case string:
		return len(v) / 10
	}
	return 0
}

// weigh takes the weight of a value, with all that is in it, from left, and stops
// once nothing is left.
func weigh(v any, left int) int {
	if left < 0 {
		return left
	}
	left -= 1 + length(v)
	if val, ok := v.(ref.Val); ok {
		switch v.(type) {
		case types.String, types.Bytes, types.Int, types.Double, types.Bool, types.Null, *types.Err:
			return left
		}
		v = val.Value()
	}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if left = weigh(e, left); left < 0 {
				break
			}
		}
	case []ref.Val:
		for _, e := range v {
			if left = weigh(e, left); left < 0 {
				break
			}
		}
	case map[string]any:
		for k, e := range v {
			if left = weigh(e, left-1-length(k)); left < 0 {
				break
			}
		}
	case map[ref.Val]ref.Val:
		for _, e := range v {
			if left = weigh(e, left-1); left < 0 {
				break
			}
		}
	}
	return left
}
