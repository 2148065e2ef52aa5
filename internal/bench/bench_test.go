package bench

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWanted(t *testing.T) {
	tests := []struct {
		name, only string
		want       []string // nil: an error
	}{
		{"some", "dns, decide", []string{"decide", "dns"}},
		{"unknown", "dns,speed", nil},
		{"an empty name", "dns,", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := wanted(tt.only)
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), "there are: connect_udp_10, ") {
					t.Errorf("got %v, %v; want an error that lists the figures", got, err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, slices.Sorted(maps.Keys(got))); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

// TestEveryFigure holds the names that readers of results.json know.
func TestEveryFigure(t *testing.T) {
	got, err := wanted("")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"accept_granted", "accept_inside", "accept_outside", "adopt_1000", "audit_append", "audit_append_appended", "connect_outside", "connect_tcp_100k",
		"connect_udp_10", "connect_udp_100k", "connect_udp_1m", "connect_udp_one_load", "connect_udp_prefix_100k", "decide", "denials_flood",
		"destroy_1", "destroy_100", "destroy_5000", "dns", "dns_direct", "events_life", "events_life_reader",
		"exec_inside", "exec_outside", "fork_inside", "fork_outside", "gateway_http_p99", "gateway_http_rps", "open_inside",
		"open_outside", "pass_connect", "pass_throughput", "run_memory", "run_start_p50", "run_start_p99", "run_starts_rate",
		"run_true", "tcp_throughput", "tcp_throughput_cpu", "udp_send_inside", "udp_send_outside", "udp_sendto_inside", "udp_sendto_outside",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Error(diff)
	}
}

func TestInterleaveTakesTurns(t *testing.T) {
	var calls []string
	one := func(name string, value float64) side {
		return side{name, func(int) ([]float64, error) {
			calls = append(calls, name)
			return []float64{value + float64(len(calls)), value}, nil
		}}
	}
	got, err := interleave(t.Context(), 2, []side{one("a", 100), one("b", 200)})
	if err != nil {
		t.Fatal(err)
	}
	// The first round warms up; each second one goes backwards.
	if diff := cmp.Diff([]string{"a", "b", "b", "a", "a", "b"}, calls); diff != "" {
		t.Error(diff)
	}
	want := map[string][][]float64{"a": {{104, 105}, {100, 100}}, "b": {{203, 206}, {200, 200}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestInterleaveEnds(t *testing.T) {
	broken := errors.New("broken")
	_, err := interleave(t.Context(), 1, []side{{"a", func(int) ([]float64, error) { return nil, broken }}})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "a: ") {
		t.Errorf("got %v, want an error that names the side", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := interleave(ctx, 1, []side{{"a", nil}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
}
