package chaos

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"
)

// What is expected of live runs in an interruption.
type survival string

const (
	survive survival = "survive" // whoever the daemon is
	adopted survival = "adopted" // by a daemon that can; else it ends them
	ended   survival = "ended"   // they have to end
)

// kind is one way to interrupt. It returns when the daemon is there again.
type kind struct {
	name string
	what string
	runs survival
	// missing says what is not there that it needs; nil or "": nothing.
	missing func(*site) string
	do      func(*site, context.Context) error
}

// kinds are all ways to interrupt.
func kinds() []kind {
	return []kind{
		{"kill", "the daemon is killed, and another started", adopted, nil, (*site).doKill},
		{"starting", "the daemon is killed, and its followers while they start", adopted, nil, (*site).doStarting},
		{"stop", "the daemon is stopped for a while", survive, nil, (*site).doStop},
		{"stopkill", "the daemon is stopped, killed, and another started", adopted, nil, (*site).doStopKill},
		{"oom", "the daemon runs out of memory and is killed by the kernel", adopted, (*site).missingMemory, (*site).doOOM},
		{"handover", "the daemon hands over to the next", adopted, (*site).missingKeeper, (*site).doHandOver},
		{"upgrade", "the daemon hands over to another build, and that one back", adopted, (*site).missingOther, (*site).doUpgrade},
		{"keeper", "the keeper is killed", survive, (*site).missingKeeper, (*site).doKeeper},
		{"both", "keeper and daemon are killed", ended, (*site).missingKeeper, (*site).doBoth},
		{"reload", "another configuration is put into force", survive, nil, (*site).doReload},
		{"badreload", "a bad configuration is refused", survive, nil, (*site).doBadReload},
		{"end", "a run is ended", survive, nil, (*site).doEnd},
		{"cgroup", "a run is killed and its cgroup removed behind the daemon's back", survive, nil, (*site).doCgroup},
		{"unmount", "the daemon's bpffs is unmounted", survive, (*site).missingKeeper, (*site).doUnmount},
		{"begin", "a run is started", survive, nil, (*site).doBegin},
	}
}

// ListKinds writes what kinds of interruptions there are.
func ListKinds(w io.Writer) {
	for _, k := range kinds() {
		fmt.Fprintf(w, "  %-10s %s\n", k.name, k.what)
	}
}

// selectKinds reads a list of names; "" means all.
func selectKinds(only string) ([]kind, error) {
	all := kinds()
	if only == "" {
		return all, nil
	}
	var names []string
	for _, k := range all {
		names = append(names, k.name)
	}
	wanted := strings.Split(only, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return nil, fmt.Errorf("there is no interruption %q; there are: %s", w, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(k kind) bool { return !slices.Contains(wanted, k.name) }), nil
}

// schedule gives every kind its turn, in a random order each time.
type schedule struct {
	kinds []kind
	left  []kind
}

func (s *schedule) next(random *rand.Rand) kind {
	if len(s.left) == 0 {
		s.left = slices.Clone(s.kinds)
		random.Shuffle(len(s.left), func(i, j int) { s.left[i], s.left[j] = s.left[j], s.left[i] })
	}
	k := s.left[0]
	s.left = s.left[1:]
	return k
}

// restart starts a daemon in the place of one that is gone.
func (s *site) restart(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	return s.daemon.WaitReady(ctx)
}

func (s *site) doKill(ctx context.Context) error {
	return inOrder(s.daemon.Kill, with(ctx, s.away), with(ctx, s.restart))
}

// startTime is about how long a daemon takes to start.
const startTime = 400 * time.Millisecond

// doStarting kills up to three daemons somewhere in their start.
func (s *site) doStarting(ctx context.Context) error {
	steps := []func() error{s.daemon.Kill, with(ctx, s.away)}
	for range 1 + s.random.IntN(3) {
		steps = append(steps, with(ctx, s.start), func() error {
			sleep(ctx, s.pause(0, startTime))
			return s.daemon.Kill()
		})
	}
	return inOrder(append(steps, with(ctx, s.restart))...)
}

func (s *site) doStop(ctx context.Context) error {
	return inOrder(s.signal(syscall.SIGSTOP), with(ctx, s.away), s.signal(syscall.SIGCONT), with(ctx, s.daemon.WaitReady))
}

func (s *site) doStopKill(ctx context.Context) error {
	return inOrder(s.signal(syscall.SIGSTOP), with(ctx, s.away), s.daemon.Kill, with(ctx, s.away), with(ctx, s.restart))
}

func (s *site) signal(sig syscall.Signal) func() error {
	return func() error { return s.daemon.Signal(sig) }
}

// with binds a context.
func with(ctx context.Context, do func(context.Context) error) func() error {
	return func() error { return do(ctx) }
}

// inOrder takes steps until one fails.
func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
