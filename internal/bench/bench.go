package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Options say what to measure.
type Options struct {
	Bin    string // folder with varveld and varvel
	Only   string // names of figures, with commas; "" means all
	Quick  bool   // few rounds: shows that it works, not how fast it is
	Output io.Writer
}

// names is a set of figures.
type names map[string]bool

// group measures figures that share their preparations.
type group struct {
	figures []string
	measure func(context.Context, *site, names) ([]Result, error)
}

func groups() []group {
	return []group{
		{[]string{"connect_udp_10", "connect_udp_100k", "connect_udp_prefix_100k", "connect_udp_1m", "connect_udp_one_load", "connect_tcp_100k"}, connects},
		{[]string{"connect_outside", "udp_sendto_outside", "udp_send_outside", "accept_outside", "exec_outside", "fork_outside", "open_outside"}, outsideRuns},
		{[]string{"accept_granted"}, accepts},
		{[]string{
			"udp_sendto_inside", "udp_send_inside", "accept_inside", "exec_inside", "fork_inside", "open_inside",
			"tcp_throughput", "tcp_throughput_cpu", "pass_throughput", "pass_connect", "gateway_http_rps", "gateway_http_p99", "dns", "dns_direct", "run_true",
		}, throughNode},
		{[]string{"run_start_p50", "run_start_p99", "run_starts_rate"}, runStarts},
		{[]string{"run_memory"}, runMemory},
		{[]string{"events_life"}, eventsLife},
		{[]string{"events_life_reader"}, eventsLifeReader},
		{[]string{"denials_flood"}, denialsFlood},
		{[]string{"adopt_1000"}, adopt},
		{[]string{"destroy_1", "destroy_100", "destroy_5000"}, destroys},
		{[]string{"decide"}, decide},
		{[]string{"audit_append", "audit_append_appended"}, auditAppend},
	}
}

// Run measures and prints the wanted figures and returns them.
func Run(ctx context.Context, o Options) ([]Result, error) {
	want, err := wanted(o.Only)
	if err != nil {
		return nil, err
	}
	printConditions(o.Output, o)
	var results []Result
	for _, g := range groups() {
		mine := names{}
		for _, f := range g.figures {
			if want[f] {
				mine[f] = true
			}
		}
		if len(mine) == 0 {
			continue
		}
		found, err := measureGroup(ctx, o, g, mine)
		if err != nil {
			return results, err
		}
		for _, r := range found {
			r.Print(o.Output)
		}
		results = append(results, found...)
	}
	return results, nil
}

// measureGroup gives each group a site of its own.
func measureGroup(ctx context.Context, o Options, g group, want names) (_ []Result, err error) {
	s, err := openSite(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return g.measure(ctx, s, want)
}

// wanted reads a list of figures.
func wanted(only string) (names, error) {
	all := names{}
	var known []string
	for _, g := range groups() {
		for _, f := range g.figures {
			all[f] = true
			known = append(known, f)
		}
	}
	if only == "" {
		return all, nil
	}
	want := names{}
	for name := range strings.SplitSeq(only, ",") {
		if name = strings.TrimSpace(name); !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no figure %q; there are: %s", name, strings.Join(known, ", "))
		}
		want[name] = true
	}
	return want, nil
}

// rounds is how many of the usual rounds to do.
func (s *site) rounds(usual int) int {
	if s.options.Quick {
		return max(usual/20, 5)
	}
	return usual
}
