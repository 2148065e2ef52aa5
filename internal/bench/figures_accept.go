package bench

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/varvel/varvel/internal/ruleset"
)

// acceptSides are a client in no run and listeners that it connects to.
type acceptSides struct {
	client  *process
	servers map[string]*process
	ports   map[string]int
}

// accepts measures a connection that comes in: to a run whose listen grants it,
// and to a program in no run.
func accepts(ctx context.Context, s *site, want names) ([]Result, error) {
	a := &acceptSides{servers: map[string]*process{}, ports: map[string]int{}}
	var err error
	if a.client, err = s.worker(ctx, ""); err != nil {
		return nil, err
	}
	if err := a.listen("bare", func() (*process, error) { return s.worker(ctx, "") }); err != nil {
		return nil, err
	}
	var results []Result
	if want["accept_outside"] {
		t := &toggle{site: s}
		r, err := a.outside(ctx, s, t)
		t.close()
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	if want["accept_granted"] {
		r, err := a.granted(ctx, s)
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

// listen starts a worker that listens.
func (a *acceptSides) listen(name string, start func() (*process, error)) (err error) {
	if a.servers[name], err = start(); err != nil {
		return err
	}
	port, err := a.servers[name].Ask(order{Op: "listen"})
	if err == nil {
		a.ports[name] = int(port[0])
	}
	return err
}

// once is a batch of connections to one of the listeners.
func (a *acceptSides) once(name string) ([]float64, error) {
	ns, err := a.client.Ask(order{Op: "dial", Offset: a.ports[name], N: tcpBatch})
	if err != nil {
		return nil, err
	}
	_, err = a.servers[name].Ask(order{Op: "clear", N: tcpBatch})
	return ns, err
}

func (a *acceptSides) outside(ctx context.Context, s *site, t *toggle) (Result, error) {
	once := func() ([]float64, error) { return a.once("bare") }
	series, err := interleave(ctx, s.rounds(100), []side{{"loaded", t.with(true, once)}, {"absent", t.with(false, once)}})
	if err != nil {
		return Result{}, fmt.Errorf("accept_outside: %w", err)
	}
	r := compare("accept_outside", "ns", "the same listener while no program of Varvel is loaded", series["loaded"][0], series["absent"][0])
	r.Note = "a TCP handshake over loopback, client and listener in no run"
	return r, nil
}

func (a *acceptSides) granted(ctx context.Context, s *site) (Result, error) {
	k, err := s.openKernel()
	if err != nil {
		return Result{}, err
	}
	s.OnClose(func() error { return s.closeKernel(k) })
	m, err := mix(1000)
	if err != nil {
		return Result{}, err
	}
	grants, err := ruleset.Compile([]ruleset.Rule{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		return Result{}, err
	}
	run := func() (*process, error) {
		p, id, err := s.runWorkerID(ctx, k, "listener", m)
		if err != nil {
			return nil, err
		}
		return p, k.UseListen(id, grants)
	}
	if err := a.listen("run", run); err != nil {
		return Result{}, err
	}
	series, err := interleave(ctx, s.rounds(200), []side{
		{"run", func(int) ([]float64, error) { return a.once("run") }}, {"bare", func(int) ([]float64, error) { return a.once("bare") }},
	})
	if err != nil {
		return Result{}, fmt.Errorf("accept_granted: %w", err)
	}
	r := compare("accept_granted", "ns", "a listener in no run", series["run"][0], series["bare"][0])
	r.Note = "a TCP handshake over loopback with a client in no run"
	return r, nil
}
