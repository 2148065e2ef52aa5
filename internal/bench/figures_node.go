package bench

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
)

// nodeBench compares an order that a worker carries out in a run with one that a
// worker carries out without Varvel.
type nodeBench struct {
	figures []nodeFigure // one for each value that the workers return
	rounds  int
	inside  order
	outside order
}

type nodeFigure struct{ name, unit, against, note string }

func nodeBenches(ca, echo string) []nodeBench {
	world := func(port int) string { return net.JoinHostPort(worldAddress, strconv.Itoa(port)) }
	named := func(name string, port int) string { return net.JoinHostPort(name, strconv.Itoa(port)) }
	tlsOrder := func(op, address string, n int) order {
		return order{Op: op, Address: address, Name: nameTLS, CA: ca, N: n}
	}
	const direct = "the same to the server directly, without Varvel"
	return []nodeBench{
		{
			[]nodeFigure{
				{"tcp_throughput", "MB/s", direct, "one connection that a range allows, over a veth"},
				{"tcp_throughput_cpu", "us/MB", direct, "CPU time of the sending thread, which other load disturbs less"},
			}, 300,
			order{Op: "send", Address: world(portSend), N: 16 << 20}, order{Op: "send", Address: world(portSend), N: 16 << 20},
		},
		{
			[]nodeFigure{{"pass_throughput", "MB/s", direct, "TLS; the gateway is one process and one copy more"}}, 150,
			tlsOrder("send_tls", named(nameTLS, portTLS), 8<<20), tlsOrder("send_tls", world(portTLS), 8<<20),
		},
		{
			[]nodeFigure{{"pass_connect", "ns", direct, "connection, TLS handshake, close; a decision, its record and a second connection more"}}, 60,
			tlsOrder("connect_tls", named(nameTLS, portTLS), 10), tlsOrder("connect_tls", world(portTLS), 10),
		},
		{
			[]nodeFigure{
				{"gateway_http_rps", "req/s", direct, fmt.Sprintf("%d kept connections; a decision and two records a request", connections)},
				{"gateway_http_p99", "us", direct, "of each round's requests"},
			}, 30,
			order{Op: "http", Address: named(nameHTTP, portHTTP), N: 1000}, order{Op: "http", Address: world(portHTTP), N: 1000},
		},
		{
			[]nodeFigure{{"dns", "us", "a datagram that a Go program on loopback sends back", "an allowed name"}}, 60,
			order{Op: "question", Address: world(portDNS), Name: nameTLS, N: 50}, order{Op: "question", Address: echo, Name: nameTLS, N: 50},
		},
	}
}

// throughNode measures what goes through the daemon and its gateway, in a run
// that varvel run has started.
func throughNode(ctx context.Context, s *site, want names) ([]Result, error) {
	d, err := s.startDaemon(ctx)
	if err != nil {
		return nil, err
	}
	inside, err := d.worker(ctx)
	if err != nil {
		return nil, err
	}
	outside, err := startWorker(ctx, "", s.cpu)
	if err != nil {
		return nil, err
	}
	s.OnClose(outside.Stop)
	echoing, stop := context.WithCancel(ctx)
	defer stop()
	echo, err := serveEcho(echoing)
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, b := range nodeBenches(s.caFile(), echo) {
		found, err := b.measure(ctx, s, want, inside, outside)
		if err != nil {
			return results, fmt.Errorf("%w; varveld: %s", err, d.Tail())
		}
		results = append(results, found...)
	}
	if want["run_true"] {
		r, err := runTrue(ctx, s, d)
		return append(results, r), err
	}
	return results, nil
}

// measure returns those of the bench's figures that are wanted.
func (b nodeBench) measure(ctx context.Context, s *site, want names, inside, outside *process) ([]Result, error) {
	wanted := false
	for _, f := range b.figures {
		wanted = wanted || want[f.name]
	}
	if !wanted {
		return nil, nil
	}
	series, err := interleave(ctx, s.rounds(b.rounds), []side{
		{"inside", func(int) ([]float64, error) { return inside.Ask(b.inside) }},
		{"outside", func(int) ([]float64, error) { return outside.Ask(b.outside) }},
	})
	if err != nil {
		return nil, err
	}
	var out []Result
	for i, f := range b.figures {
		if !want[f.name] {
			continue
		}
		r := compare(f.name, f.unit, f.against, series["inside"][i], series["outside"][i])
		r.Note = f.note
		out = append(out, r)
	}
	return out, nil
}

// runTrue compares a run of true with true.
func runTrue(ctx context.Context, s *site, d *daemon) (Result, error) {
	once := func(make func() *exec.Cmd) func(int) ([]float64, error) {
		return func(int) ([]float64, error) {
			ns, err := perOp(1, wallClock, make().Run)
			if err != nil {
				return nil, err
			}
			return []float64{ns[0] / 1e6}, nil
		}
	}
	series, err := interleave(ctx, s.rounds(100), []side{
		{"run", once(func() *exec.Cmd { return d.inRun(ctx, "true") })},
		{"bare", once(func() *exec.Cmd { return exec.CommandContext(ctx, "true") })},
	})
	if err != nil {
		return Result{}, fmt.Errorf("run true: %w", err)
	}
	r := compare("run_true", "ms", "fork and exec of true", series["run"][0], series["bare"][0])
	r.Note = "two durable records, namespaces, mounts and the client's own start"
	return r, nil
}
