package bench

import (
	"context"
	"fmt"

	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/kernel/measure"
)

// outsideBench is something that a process in no run does.
type outsideBench struct {
	figure string
	order  order
}

// outsideRuns measures what programs that are in no run notice of Varvel's: each
// round loads and attaches them, measures, takes them away and measures again.
func outsideRuns(ctx context.Context, s *site, want names) ([]Result, error) {
	w, err := s.worker(ctx, "")
	if err != nil {
		return nil, err
	}
	m, err := mix(1000)
	if err != nil {
		return nil, err
	}
	file := s.path("outside")
	if err := writeSockaddrs(file, measure.NewSockaddrs(m.exact, targetPort)); err != nil {
		return nil, err
	}
	if _, err := w.Ask(order{Op: "load", File: file}); err != nil {
		return nil, err
	}
	t := &toggle{site: s}
	defer t.close()
	var results []Result
	for _, b := range []outsideBench{
		{"connect_outside", order{Op: "connect_udp", N: udpBatch}},
		{"exec_outside", order{Op: "exec", N: 10}},
	} {
		if !want[b.figure] {
			continue
		}
		r, err := b.measure(ctx, s, t, w)
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

func (b outsideBench) measure(ctx context.Context, s *site, t *toggle, w *process) (Result, error) {
	const batches = 20
	series, err := interleave(ctx, s.rounds(40), []side{
		{"loaded", t.with(true, func() ([]float64, error) { return repeat(w, b.order, batches) })},
		{"absent", t.with(false, func() ([]float64, error) { return repeat(w, b.order, batches) })},
	})
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", b.figure, err)
	}
	r := compare(b.figure, "ns", "the same process while no program of Varvel is loaded", series["loaded"][0], series["absent"][0])
	r.Note = fmt.Sprintf("each round is the median of %d batches", batches)
	return r, nil
}

// repeat returns the median of some batches.
func repeat(w *process, o order, batches int) ([]float64, error) {
	var all []float64
	for i := range batches {
		if o.Op == "connect_udp" {
			o.Offset = i * o.N
		}
		v, err := w.Ask(o)
		if err != nil {
			return nil, err
		}
		all = append(all, v...)
	}
	return []float64{median(all)}, nil
}

// toggle puts the shipped programs into force and takes them away.
type toggle struct {
	site   *site
	kernel *kernel.Kernel
}

// with measures in the wanted state.
func (t *toggle) with(loaded bool, once func() ([]float64, error)) func(int) ([]float64, error) {
	return func(int) ([]float64, error) {
		if err := t.set(loaded); err != nil {
			return nil, err
		}
		return once()
	}
}

func (t *toggle) set(loaded bool) (err error) {
	switch {
	case loaded && t.kernel == nil:
		t.kernel, err = t.site.openKernel()
	case !loaded && t.kernel != nil:
		err = t.site.closeKernel(t.kernel)
		t.kernel = nil
	}
	return err
}

func (t *toggle) close() {
	// What was pinned goes with the site's cgroups if this fails.
	_ = t.set(false)
}
