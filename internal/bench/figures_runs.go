package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// starters is how many runs are being started at a time for the rate.
const starters = 8

// runStarts measures varvel run -- true, one after the other and some at a time.
func runStarts(ctx context.Context, s *site, want names) ([]Result, error) {
	d, err := s.startDaemon(ctx)
	if err != nil {
		return nil, err
	}
	run := func() *exec.Cmd { return d.inRun(ctx, "true") }
	bare := func() *exec.Cmd { return exec.CommandContext(ctx, "true") }
	var results []Result
	if want["run_start_p50"] || want["run_start_p99"] {
		found, err := startQuantiles(ctx, s, run, bare)
		if err != nil {
			return nil, fmt.Errorf("%w; varveld: %s", err, d.Tail())
		}
		for _, r := range found {
			if want[r.Name] {
				results = append(results, r)
			}
		}
	}
	if !want["run_starts_rate"] {
		return results, nil
	}
	batch := s.rounds(40)
	series, err := interleave(ctx, 4, []side{
		{"run", atATime(batch, run)}, {"bare", atATime(batch, bare)},
	})
	if err != nil {
		return results, fmt.Errorf("%w; varveld: %s", err, d.Tail())
	}
	r := compare("run_starts_rate", "run/s", "fork and exec of true, as many at a time", series["run"][0], series["bare"][0])
	r.Note = fmt.Sprintf("%d at a time, %d in each round, from the client's start to its end", starters, batch)
	return append(results, r), nil
}

// startQuantiles starts runs one after the other. A round is one, so the figures
// are quantiles of all rounds.
func startQuantiles(ctx context.Context, s *site, run, bare func() *exec.Cmd) ([]Result, error) {
	once := func(command func() *exec.Cmd) func(int) ([]float64, error) {
		return func(int) ([]float64, error) {
			ns, err := perOp(1, wallClock, command().Run)
			if err != nil {
				return nil, err
			}
			return []float64{ns[0] / 1e6}, nil
		}
	}
	series, err := interleave(ctx, s.rounds(150), []side{{"run", once(run)}, {"bare", once(bare)}})
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, q := range []struct {
		figure string
		q      float64
	}{{"run_start_p50", 0.5}, {"run_start_p99", 0.99}} {
		r := compare(q.figure, "ms", "fork and exec of true", series["run"][0], series["bare"][0])
		r.Value, r.Baseline = quantile(series["run"][0], q.q), quantile(series["bare"][0], q.q)
		r.Ratio = r.Value / r.Baseline
		r.Note = "from the client's start to its end; the ratio is that of the two quantiles"
		results = append(results, r)
	}
	return results, nil
}

// atATime runs n commands, some at a time. The figure is how many a second.
func atATime(n int, command func() *exec.Cmd) func(int) ([]float64, error) {
	return func(int) ([]float64, error) {
		var g errgroup.Group
		g.SetLimit(starters)
		begin := time.Now()
		for range n {
			g.Go(func() error { return command().Run() })
		}
		err := g.Wait()
		return []float64{float64(n) / time.Since(begin).Seconds()}, err
	}
}

// runMemory measures how much the daemon grows with runs that are live and idle.
func runMemory(ctx context.Context, s *site, _ names) ([]Result, error) {
	d, err := s.startDaemon(ctx)
	if err != nil {
		return nil, err
	}
	// What the daemon allocates once is there after a few runs.
	few, err := startIdle(ctx, d, s.rounds(20))
	if err := errors.Join(err, few.stop()); err != nil {
		return nil, fmt.Errorf("%w; varveld: %s", err, d.Tail())
	}
	before, err := residentMemory(d.Pid())
	if err != nil {
		return nil, err
	}
	count := s.rounds(200)
	live, err := startIdle(ctx, d, count)
	after := before
	if err == nil {
		after, err = residentMemory(d.Pid())
	}
	if err := errors.Join(err, live.stop()); err != nil {
		return nil, fmt.Errorf("%w; varveld: %s", err, d.Tail())
	}
	r := alone("run_memory", "KB", []float64{(after - before) / float64(count)})
	r.Note = fmt.Sprintf("growth of the daemon's RssAnon a run with %d live runs, garbage of their starts and all", count)
	return []Result{r}, nil
}

// idle are runs that do nothing until their input ends.
type idle []*idleRun

type idleRun struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
}

func startIdle(ctx context.Context, d *daemon, n int) (idle, error) {
	started := make(idle, n)
	var g errgroup.Group
	g.SetLimit(2 * runtime.NumCPU())
	for i := range n {
		g.Go(func() (err error) {
			started[i], err = startIdleRun(ctx, d)
			return err
		})
	}
	return started, g.Wait()
}

// startIdleRun returns when the run's command has said that it runs.
func startIdleRun(ctx context.Context, d *daemon) (*idleRun, error) {
	cmd := d.inRun(ctx, "sh", "-c", "echo begun; exec cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &idleRun{cmd, stdin, bufio.NewReader(stdout)}
	if said, err := r.out.ReadString('\n'); err != nil || said != "begun\n" {
		return r, fmt.Errorf("an idle run said %q: %w", said, err)
	}
	return r, nil
}

// stop ends those that have been started.
func (all idle) stop() error {
	var errs []error
	for _, r := range all {
		if r != nil {
			errs = append(errs, r.stdin.Close(), r.cmd.Wait())
		}
	}
	return errors.Join(errs...)
}

// residentMemory is the kilobytes of a process that no file stands behind
// (proc(5), status, RssAnon).
func residentMemory(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSuffix(field(string(raw), "RssAnon"), " kB"), 64)
}
