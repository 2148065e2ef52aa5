package bench

import (
	"context"
	"fmt"
)

// side is one of the ways to do the same thing that are compared.
type side struct {
	name string
	// once does a short batch and returns its figures, the same number each time.
	once func(round int) ([]float64, error)
}

// interleave lets each side do one batch a round, and in every other round in
// the opposite order. The result is, by side, then by figure, the rounds' values.
// A first round warms up and is not counted.
func interleave(ctx context.Context, rounds int, sides []side) (map[string][][]float64, error) {
	out := map[string][][]float64{}
	for round := -1; round < rounds; round++ {
		for i := range sides {
			s := sides[i]
			if round%2 == 0 {
				s = sides[len(sides)-1-i]
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			values, err := s.once(round + 1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if round >= 0 {
				out[s.name] = keep(out[s.name], values)
			}
		}
	}
	return out, nil
}

func keep(series [][]float64, values []float64) [][]float64 {
	if series == nil {
		series = make([][]float64, len(values))
	}
	for i, v := range values {
		series[i] = append(series[i], v)
	}
	return series
}
