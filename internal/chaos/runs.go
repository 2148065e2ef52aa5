package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/varvel/varvel/internal/workload"
)

// patience is how long something may take that has to happen. It is generous,
// because the machine may be busy.
const patience = 30 * time.Second

// liveRun is a run with a worker.
type liveRun struct {
	label    string
	id       string
	cgroup   string
	cli      *exec.Cmd // varvel run
	ended    chan struct{}
	progress *os.File
	broken   uint64 // kept connections that had ended when it was last looked at
}

// totals of what has become of runs.
type totals struct{ started, ended, attempts uint64 }

// listed is what varvel runs -o json says of a run.
type listed struct {
	ID       string   `json:"id"`
	Command  []string `json:"command"`
	Cgroup   string   `json:"cgroup_path"`
	Starting bool     `json:"starting"`
}

// list returns the live runs by the labels of their workers.
func (s *site) list(ctx context.Context) (map[string]listed, error) {
	out, err := s.daemon.Varvel(ctx, "runs", "-o", "json").Output()
	if err != nil {
		return nil, fmt.Errorf("varvel runs: %w", err)
	}
	var all []listed
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("varvel runs: %w", err)
	}
	byLabel := map[string]listed{}
	for _, l := range all {
		if i := slices.Index(l.Command, ArgWorker); i >= 0 && i+1 < len(l.Command) {
			byLabel[l.Command[i+1]] = l
		}
	}
	return byLabel, nil
}

// newJob is a job for the next run. Agents take turns.
func (s *site) newJob(pause, life time.Duration) job {
	s.labels++
	agent := alpha
	if s.labels%2 == 0 {
		agent = beta
	}
	return job{label: fmt.Sprintf("r%d", s.labels), agent: agent, pause: pause, life: life, seed: s.random.Uint64()}
}

// launch starts a worker by varvel run. It does not wait until it runs.
func (s *site) launch(ctx context.Context, j job) (*liveRun, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	progress, err := os.OpenFile(s.path("progress/"+j.label), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(s.path("runs.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, errors.Join(err, progress.Close())
	}
	defer log.Close()
	r := &liveRun{label: j.label, progress: progress, ended: make(chan struct{})}
	r.cli = s.daemon.Varvel(context.WithoutCancel(ctx), append([]string{"run", "--agent", j.agent, "--quiet", "--", self}, j.args()...)...)
	r.cli.Stdout, r.cli.Stderr = progress, log
	if err := r.cli.Start(); err != nil {
		return nil, errors.Join(err, progress.Close())
	}
	go func() {
		_ = r.cli.Wait() // what became of the run is seen elsewhere
		close(r.ended)
	}()
	return r, nil
}

// hire starts runs until there are as many as are wanted, and waits until the
// daemon has all.
func (s *site) hire(ctx context.Context, want int) error {
	var jobs []job
	for range want - len(s.runs) {
		jobs = append(jobs, s.newJob(pauseBetween, 0))
	}
	started := make([]*liveRun, len(jobs))
	var group errgroup.Group
	for i, j := range jobs {
		group.Go(func() (err error) { started[i], err = s.launch(ctx, j); return err })
	}
	err := group.Wait()
	for _, r := range started {
		if r != nil {
			s.runs = append(s.runs, r)
			s.before.started++
		}
	}
	if err != nil {
		return err
	}
	return s.until(ctx, "every new run is listed", func() (bool, error) { return s.identify(ctx) })
}

// identify learns the ids of new runs, and reports whether all have begun.
func (s *site) identify(ctx context.Context) (bool, error) {
	all, err := s.list(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range s.runs {
		if r.id != "" {
			continue
		}
		l, ok := all[r.label]
		if !ok || l.Starting { // one that has not begun need not outlive the daemon
			select {
			case <-r.ended:
				return false, fmt.Errorf("varvel run has ended: %s: %s", r.cli.ProcessState, s.tail("runs.log"))
			default:
				return false, nil
			}
		}
		r.id, r.cgroup = l.ID, l.Cgroup
	}
	return true, nil
}

// reconcile finds out which runs live on, as the daemon says, with the identity
// that they had. The others are over.
func (s *site) reconcile(ctx context.Context) (kept, ended int, err error) {
	all, err := s.list(ctx)
	if err != nil {
		return 0, 0, err
	}
	var live []*liveRun
	for _, r := range s.runs {
		if l, ok := all[r.label]; ok && l.ID == r.id && l.Cgroup == r.cgroup {
			live = append(live, r)
			continue
		}
		ended++
		err = errors.Join(err, s.bury(r))
	}
	s.runs = live
	s.before.ended += uint64(ended)
	return len(live), ended, err
}

// bury closes what belongs to a run that is over.
func (s *site) bury(r *liveRun) error {
	_ = r.cli.Process.Kill() // it may have ended
	<-r.ended
	p, err := readProgress(r.progress)
	s.before.attempts += p.made
	return errors.Join(err, r.progress.Close(), os.Remove(r.progress.Name()))
}

// end ends a run in some way and waits until nothing of it is left.
func (s *site) end(ctx context.Context, r *liveRun, how func(*liveRun) error) error {
	if err := how(r); err != nil {
		return err
	}
	s.runs = slices.DeleteFunc(s.runs, func(o *liveRun) bool { return o == r })
	return errors.Join(s.until(ctx, "the ended run is gone", func() (bool, error) {
		all, err := s.list(ctx)
		_, exists := os.Stat(r.cgroup)
		return all[r.label].ID == "" && errors.Is(exists, os.ErrNotExist), err
	}), s.bury(r))
}

// terminate is how a user ends a run.
func terminate(r *liveRun) error {
	err := r.cli.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// snatch kills a run and takes its cgroup away without asking the daemon.
func snatch(r *liveRun) error {
	return errors.Join(workload.Kill(r.cgroup), workload.Remove(r.cgroup))
}

// attempts is how many attempts all runs have made so far.
func (s *site) attempts() (uint64, error) {
	sum := s.before.attempts
	for _, r := range s.runs {
		p, err := readProgress(r.progress)
		if err != nil {
			return 0, err
		}
		sum += p.made
	}
	return sum, nil
}

// broken is how many kept connections of live runs have ended since it was
// called last.
func (s *site) broken() (uint64, error) {
	var sum uint64
	for _, r := range s.runs {
		p, err := readProgress(r.progress)
		if err != nil {
			return 0, err
		}
		sum += p.broken - r.broken
		r.broken = p.broken
	}
	return sum, nil
}

func (s *site) labelsOfRuns() []string {
	var labels []string
	for _, r := range s.runs {
		labels = append(labels, r.label)
	}
	return labels
}

// until waits until something is true. An error of the question ends it.
func (s *site) until(ctx context.Context, what string, is func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if ok, err := is(); ok || err != nil {
			return err
		}
		sleep(ctx, 15*time.Millisecond)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("not true within %s: %s", patience, what)
		}
	}
}

func (s *site) tail(name string) string {
	raw, err := os.ReadFile(s.path(name))
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-1000):])
}
