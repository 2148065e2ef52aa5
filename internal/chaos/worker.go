package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/rig"
)

// The arguments that turn the program into a part of the harness.
const (
	ArgInside    = "inside"    // Run, in namespaces of its own
	ArgWorker    = "worker"    // Work, then what a job says
	ArgWorld     = "world"     // Serve, then the file for leaks
	ArgOutsiders = "outsiders" // Outside
)

// job says what a worker is to do.
type job struct {
	label, agent string
	pause        time.Duration // between two attempts of a flow
	life         time.Duration // 0: until it is told to end
	seed         uint64
}

func (j job) args() []string {
	return []string{ArgWorker, j.label, j.agent, j.pause.String(), j.life.String(), strconv.FormatUint(j.seed, 10)}
}

func readJob(args []string) (j job, err error) {
	if len(args) != 5 {
		return j, fmt.Errorf("a worker needs 5 arguments, not %d", len(args))
	}
	j.label, j.agent = args[0], args[1]
	var errs [3]error
	j.pause, errs[0] = time.ParseDuration(args[2])
	j.life, errs[1] = time.ParseDuration(args[3])
	j.seed, errs[2] = strconv.ParseUint(args[4], 10, 64)
	return j, errors.Join(errs[:]...)
}

// Work makes attempts of all flows until it is told to end. How many it has made
// stands in progress, a regular file, which the harness reads. It ignores that it
// is hung up, so that it goes on when the daemon is gone.
func Work(ctx context.Context, args []string, progress *os.File) error {
	j, err := readJob(args)
	if err != nil {
		return err
	}
	if j.life > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.life)
		defer cancel()
	}
	p := &pace{client: &client{agent: j.agent, limit: time.Second}, who: j.label, pause: j.pause, seed: j.seed}
	group := p.start(ctx)
	for ctx.Err() == nil {
		if err := p.write(progress); err != nil {
			return err
		}
		sleep(ctx, min(j.pause, time.Second))
	}
	group.Wait()
	return p.write(progress)
}

// pace makes attempts of all flows, each at its own pace.
type pace struct {
	client *client
	who    string
	pause  time.Duration
	seed   uint64
	made   atomic.Uint64
	failed func(attempt, error) // of an allowed one; nil: it does not matter
}

func (p *pace) start(ctx context.Context) *sync.WaitGroup {
	var group sync.WaitGroup
	for i, f := range flows() {
		random := rand.New(rand.NewPCG(p.seed, uint64(i)))
		group.Go(func() { p.flow(ctx, f, random) })
	}
	return &group
}

// flow makes attempts of one flow until ctx ends.
func (p *pace) flow(ctx context.Context, f flow, random *rand.Rand) {
	for n := uint64(0); ; n++ {
		// Half to one and a half pauses, so that flows do not march in step.
		sleep(ctx, p.pause/2+time.Duration(random.Int64N(int64(p.pause))))
		if ctx.Err() != nil {
			return
		}
		a := attempt{Who: p.who, Agent: p.client.agent, Flow: f.name, N: n}
		p.made.Add(1)
		if err := f.try(p.client, a); err != nil && p.failed != nil {
			p.failed(a, err)
		}
	}
}

// progress of a worker, as it stands in its file.
type progress struct{ made, broken uint64 }

// progressSize makes every record as long as the one that it replaces.
const progressSize = 42

func (p *pace) write(f *os.File) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%20d %20d\n", p.made.Load(), p.client.broken.Load()), 0)
	return err
}

// readProgress reads what a worker has written. One that has not begun has made
// nothing.
func readProgress(f *os.File) (p progress, err error) {
	buf := make([]byte, progressSize)
	if _, err := f.ReadAt(buf, 0); errors.Is(err, io.EOF) {
		return p, nil
	} else if err != nil {
		return p, err
	}
	_, err = fmt.Sscan(string(buf), &p.made, &p.broken)
	return p, err
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// outside is what outsiders have done.
type outside struct {
	Attempts uint64   `json:"attempts"`
	Failures uint64   `json:"failures"`
	First    []string `json:"first"` // of the failures
}

// maxTold bounds how many failures or leaks are told in full.
const maxTold = 20

// Outside makes attempts of all flows, in no run, until its input ends, and
// answers each order with what has become of them.
func Outside(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var done outside
	p := &pace{client: &client{agent: alpha, from: hostOutsiders, limit: longLimit}, who: outsiders, pause: 40 * time.Millisecond}
	p.failed = func(a attempt, err error) {
		mu.Lock()
		defer mu.Unlock()
		if done.Failures++; len(done.First) < maxTold {
			done.First = append(done.First, fmt.Sprintf("%s %d: %v", a.Flow, a.N, err))
		}
	}
	group := p.start(ctx)
	defer group.Wait()
	defer cancel()
	return rig.NewConversation[order, outside](in, out).Serve(func(order) (outside, error) {
		mu.Lock()
		defer mu.Unlock()
		done.Attempts = p.made.Load()
		return done, nil
	})
}

// startPart starts a part of the harness in the cgroup and the mount namespace
// of the harness itself. It is stopped in its turn, also when ctx ends.
func startPart[Reply any](ctx context.Context, flags uintptr, args ...string) (*rig.Process[order, Reply], error) {
	cmd := command(context.WithoutCancel(ctx), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Cloneflags: flags, Setpgid: true}
	return rig.Start[order, Reply](cmd)
}
