package bench

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestQuantile(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		q      float64
		want   float64
	}{
		{"none", nil, 0.5, math.NaN()},
		{"one", []float64{7}, 0.99, 7},
		{"odd median", []float64{9, 1, 5}, 0.5, 5},
		{"even median is between", []float64{4, 1, 3, 2}, 0.5, 2.5},
		{"lowest", []float64{3, 1, 2}, 0, 1},
		{"highest", []float64{3, 1, 2}, 1, 3},
		{"quartile", []float64{5, 4, 3, 2, 1}, 0.25, 2},
		{"one outlier does not move the median", []float64{1, 1, 1, 1, 1000}, 0.5, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, quantile(tt.values, tt.q), cmpopts.EquateNaNs()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestQuantileLeavesItsInputAlone(t *testing.T) {
	in := []float64{3, 1, 2}
	median(in)
	if diff := cmp.Diff([]float64{3, 1, 2}, in); diff != "" {
		t.Error(diff)
	}
}

// A round in which the whole machine was slow makes both sides slow.
func TestCompareGoesRoundByRound(t *testing.T) {
	value, baseline := []float64{11, 22, 110}, []float64{10, 20, 100}
	got := compare("f", "ns", "nothing", value, baseline)
	want := Result{Name: "f", Value: 22, Unit: "ns", Baseline: 20, Ratio: 1.1, Rounds: 3, Low: 1.1, High: 1.1, Against: "nothing"}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Error(diff)
	}
}
