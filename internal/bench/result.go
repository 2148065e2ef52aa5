package bench

import (
	"encoding/json"
	"fmt"
	"io"
)

// Result is one figure.
type Result struct {
	Name     string  `json:"name"`
	Value    float64 `json:"value"`             // median of the rounds
	Unit     string  `json:"unit"`              // of Value and Baseline
	Baseline float64 `json:"baseline,omitzero"` // median of the rounds without Varvel, or with programs that do nothing; 0: nothing does the same without Varvel
	Ratio    float64 `json:"ratio,omitzero"`    // median of each round's value by its baseline; 0 if there is none

	// The rest is for people and is not written to the file.
	Rounds    int     `json:"-"`
	Low, High float64 `json:"-"` // quartiles of the rounds' ratios; of the values where there is no baseline
	Against   string  `json:"-"` // what the baseline is; "" if there is none
	Note      string  `json:"-"`
}

// compare makes a figure of the rounds of two sides.
func compare(name, unit, against string, value, baseline []float64) Result {
	r := ratios(value, baseline)
	return Result{
		Name: name, Value: median(value), Unit: unit, Baseline: median(baseline), Ratio: median(r),
		Rounds: len(r), Low: quantile(r, 0.25), High: quantile(r, 0.75), Against: against,
	}
}

// alone makes a figure of something that does not exist without Varvel.
func alone(name, unit string, values []float64) Result {
	return Result{
		Name: name, Value: median(values), Unit: unit,
		Rounds: len(values), Low: quantile(values, 0.25), High: quantile(values, 0.75),
	}
}

// Print writes the figure's line, and a remark that begins with #. A dash stands
// for what there is not.
func (r Result) Print(w io.Writer) {
	ratio, baseline := "-", "-"
	spread := fmt.Sprintf("middle half of the values %s to %s; no baseline", digits(r.Low), digits(r.High))
	if r.Against != "" {
		ratio, baseline = fmt.Sprintf("%.3f", r.Ratio), digits(r.Baseline)
		spread = fmt.Sprintf("middle half of the ratios %.3f to %.3f; baseline: %s", r.Low, r.High, r.Against)
	}
	fmt.Fprintf(w, "%-24s %12s %-5s %8s %12s\n", r.Name, digits(r.Value), r.Unit, ratio, baseline)
	fmt.Fprintf(w, "#   %d rounds, %s", r.Rounds, spread)
	if r.Note != "" {
		fmt.Fprintf(w, "; %s", r.Note)
	}
	fmt.Fprintln(w)
}

// digits shows about four of them.
func digits(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// WriteJSON writes results as an indented list.
func WriteJSON(w io.Writer, results []Result) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if results == nil {
		results = []Result{}
	}
	return e.Encode(results)
}
