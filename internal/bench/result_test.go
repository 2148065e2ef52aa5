package bench

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() Result {
	return Result{
		Name: "connect_udp_10", Value: 1254.4, Unit: "ns", Baseline: 1132, Ratio: 1.1149,
		Rounds: 9, Low: 1.1, High: 1.2, Against: "nothing", Note: "noted",
	}
}

// The line is read by programs: name, value, unit, ratio, baseline; remarks begin with #.
func TestPrint(t *testing.T) {
	var out bytes.Buffer
	sample().Print(&out)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if diff := cmp.Diff([]string{"connect_udp_10", "1254", "ns", "1.115", "1132"}, strings.Fields(lines[0])); diff != "" {
		t.Error(diff)
	}
	if len(lines) != 2 || lines[1] != "#   9 rounds, middle half of the ratios 1.100 to 1.200; baseline: nothing; noted" {
		t.Errorf("remark: %q", lines[1:])
	}
}

// What nothing can be compared with has as many fields, and dashes among them.
func TestPrintAlone(t *testing.T) {
	var out bytes.Buffer
	alone("adopt_1000", "ms", []float64{10, 20, 30}).Print(&out)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if diff := cmp.Diff([]string{"adopt_1000", "20.0", "ms", "-", "-"}, strings.Fields(lines[0])); diff != "" {
		t.Error(diff)
	}
	if len(lines) != 2 || lines[1] != "#   3 rounds, middle half of the values 15.0 to 25.0; no baseline" {
		t.Errorf("remark: %q", lines[1:])
	}
}

func TestWriteJSON(t *testing.T) {
	tests := []struct {
		name    string
		results []Result
		want    string
	}{
		{"none", nil, "[]\n"},
		{"no baseline", []Result{alone("adopt_1000", "ms", []float64{20})}, `[
  {
    "name": "adopt_1000",
    "value": 20,
    "unit": "ms"
  }
]
`},
		{"one", []Result{sample()}, `[
  {
    "name": "connect_udp_10",
    "value": 1254.4,
    "unit": "ns",
    "baseline": 1132,
    "ratio": 1.1149
  }
]
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := WriteJSON(&out, tt.results); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDigits(t *testing.T) {
	for v, want := range map[float64]string{123456: "123456", 1000: "1000", 65.25: "65.2", 0.2031: "0.203"} {
		if got := digits(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}
