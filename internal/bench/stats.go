package bench

import (
	"math"
	"slices"
)

// quantile returns the q-quantile of values (0 ≤ q ≤ 1), between two neighbours
// by their distance, and NaN for none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// ratios divides round by round, so that a slow moment that covers a whole
// round does not count.
func ratios(values, baseline []float64) []float64 {
	out := make([]float64, min(len(values), len(baseline)))
	for i := range out {
		out[i] = values[i] / baseline[i]
	}
	return out
}
