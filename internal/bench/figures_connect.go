package bench

import (
	"context"
	"fmt"
	"os"

	"github.com/varvel/varvel/internal/kernel/measure"
)

const (
	udpBatch = 1024 // connects of one side in one round
	tcpBatch = 128
)

// connectBench compares connects of one kind.
type connectBench struct {
	figure string
	op     string
	batch  int
	list   int    // index in the lists that all workers have loaded
	run    string // key in workers
}

// connects measures connect in runs with 10, 100,000 and 1,000,000 rules. The
// rule sets are put into the kernel directly: a configuration file may not be
// that large. What the kernel runs is the same.
func connects(ctx context.Context, s *site, want names) ([]Result, error) {
	sizes := []int{10, 100_000}
	if want["connect_udp_1m"] {
		sizes = append(sizes, 1_000_000)
	}
	w, err := connectWorkers(ctx, s, sizes)
	if err != nil {
		return nil, err
	}
	defer w.close()
	benches := []connectBench{
		{"connect_udp_10", "connect_udp", udpBatch, 0, "10"},
		{"connect_udp_100k", "connect_udp", udpBatch, 2, "100000"},
		{"connect_udp_prefix_100k", "connect_udp", udpBatch, 3, "100000"},
		{"connect_udp_1m", "connect_udp", udpBatch, 4, "1000000"},
		{"connect_udp_one_load", "connect_udp", udpBatch, 2, "one load"},
	}
	udp, err := w.measure(ctx, s.rounds(1200), want, benches)
	if err != nil {
		return nil, err
	}
	tcp, err := w.measure(ctx, s.rounds(400), want, []connectBench{{"connect_tcp_100k", "connect_tcp", tcpBatch, 2, "100000"}})
	return append(udp, tcp...), err
}

// connectSides are the workers of the connect figures.
type connectSides struct {
	site    *site
	workers map[string]*process
	close   func()
}

func connectWorkers(ctx context.Context, s *site, sizes []int) (*connectSides, error) {
	k, err := s.openKernel()
	if err != nil {
		return nil, err
	}
	s.OnClose(func() error { return s.closeKernel(k) })
	w := &connectSides{site: s, workers: map[string]*process{}, close: func() {}}
	if w.workers["bare"], err = s.worker(ctx, ""); err != nil {
		return nil, err
	}
	if w.workers["noop"], err = s.comparedWorker(ctx, "noop", measure.AttachNoop); err != nil {
		return nil, err
	}
	if w.workers["one load"], err = s.comparedWorker(ctx, "one-load", measure.AttachOneLoad); err != nil {
		return nil, err
	}
	var files []string
	for _, n := range sizes {
		m, err := mix(n)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprint(n)
		if w.workers[name], err = s.runWorker(ctx, k, name, m); err != nil {
			return nil, err
		}
		for kind, addrs := range map[string]measure.Sockaddrs{
			"exact":  measure.NewSockaddrs(m.exact, targetPort),
			"prefix": measure.NewSockaddrs(m.prefix, targetPort),
		} {
			if err := writeSockaddrs(s.path(name+kind), addrs); err != nil {
				return nil, err
			}
		}
		files = append(files, s.path(name+"exact"), s.path(name+"prefix"))
	}
	return w, w.load(files)
}

// load gives every worker every list.
func (w *connectSides) load(files []string) error {
	for _, p := range w.workers {
		for _, f := range files {
			if _, err := p.Ask(order{Op: "load", File: f}); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure runs the wanted benches, all of them in each round.
func (w *connectSides) measure(ctx context.Context, rounds int, want names, all []connectBench) ([]Result, error) {
	var benches []connectBench
	var sides []side
	for _, b := range all {
		if !want[b.figure] {
			continue
		}
		benches = append(benches, b)
		for _, key := range []string{"bare", "noop", b.run} {
			sides = append(sides, side{b.figure + " " + key, w.once(b, key)})
		}
	}
	if len(benches) == 0 {
		return nil, nil
	}
	series, err := interleave(ctx, rounds, sides)
	if err != nil {
		return nil, err
	}
	var out []Result
	for _, b := range benches {
		of := func(key string) []float64 { return series[b.figure+" "+key][0] }
		r := compare(b.figure, "ns", "a program that does nothing on the same hooks", of(b.run), of("noop"))
		r.Note = fmt.Sprintf("without any program %s ns", digits(median(of("bare"))))
		out = append(out, r)
	}
	return out, nil
}

// once is a batch of connects of one worker; each round takes the next part of
// the list, the same for every worker.
func (w *connectSides) once(b connectBench, key string) func(int) ([]float64, error) {
	return func(round int) ([]float64, error) {
		offset := round * b.batch % (listLength - b.batch)
		return w.workers[key].Ask(order{Op: b.op, List: b.list, Offset: offset, N: b.batch})
	}
}

func writeSockaddrs(file string, a measure.Sockaddrs) error { return os.WriteFile(file, a, 0o600) }
