package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/varvel/varvel/internal/rig"
	"github.com/varvel/varvel/internal/workload"
)

// sitePrefix begins the names of what the harness makes; the process's id follows.
const sitePrefix = "varvel-chaos-"

// site is where it happens: a node, the world, a daemon and its runs.
type site struct {
	rig.Closers
	options Options
	dir     string
	cgroup  string // what the daemon makes its own in
	random  *rand.Rand
	daemon  *rig.Daemon
	world   *rig.Process[order, arrived]
	outside *rig.Process[order, outside]

	adopts bool // a daemon the runs of the one before, so there is a keeper
	extra  int  // changes with every reload
	labels int  // that were given
	runs   []*liveRun
	before totals // of runs that have ended
}

// openSite prepares everything and starts the daemon and the first runs.
func openSite(ctx context.Context, o Options) (_ *site, err error) {
	name := sitePrefix + strconv.Itoa(os.Getpid())
	s := &site{options: o, dir: filepath.Join(os.TempDir(), name), random: rand.New(rand.NewPCG(o.Seed, 0))}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.adopts, err = handsOver(ctx, o.Bin); err != nil {
		return nil, err
	}
	cgroups, err := workload.OpenCgroups("", name)
	if err != nil {
		return nil, err
	}
	s.cgroup = filepath.Dir(cgroups.Runs)
	s.OnClose(func() error { return removeCgroup(s.cgroup) })
	if err := sweep(cgroups.Root); err != nil {
		return nil, err
	}
	if err := s.makeFolders(); err != nil {
		return nil, err
	}
	if err := s.startParts(ctx); err != nil {
		return nil, err
	}
	return s, s.startDaemon(ctx)
}

// sweep takes away what harnesses left behind that were killed.
func sweep(cgroup string) error {
	memory, err := memoryMount()
	if err != nil {
		return err
	}
	folders := map[string]func(string) error{os.TempDir(): os.RemoveAll, cgroup: removeCgroup}
	if memory != "" {
		folders[memory] = workload.Remove
	}
	return rig.Sweep(sitePrefix, folders)
}

// removeCgroup kills what is in a cgroup and takes it away.
func removeCgroup(path string) error {
	if err := workload.Kill(path); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(workload.WaitEmpty(ctx, path), workload.Remove(path))
}

func (s *site) makeFolders() error {
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return err
	}
	s.OnClose(func() error { return os.RemoveAll(s.dir) })
	for _, dir := range []string{"config/agents.d", "bpf", "progress"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	node := fmt.Sprintf(`trust_domain: chaos.test
state_dir: %[1]s/state
run_dir: %[1]s/run
bpffs: %[1]s/bpf
cgroup: %[2]s
dns: { upstreams: ["%[3]s:53"] }
`, s.dir, s.cgroup, v4(hostNames))
	return errors.Join(s.writeAgents(), os.WriteFile(s.path("config/varvel.yaml"), []byte(node), 0o600))
}

// writeAgents writes both agents, with another extra rule each time.
func (s *site) writeAgents() error {
	s.extra++
	var errs []error
	for _, agent := range []string{alpha, beta} {
		text := agentFile(agent, 8000+s.extra%1000)
		errs = append(errs, os.WriteFile(s.path("config/agents.d/"+agent+".yaml"), []byte(text), 0o600))
	}
	return errors.Join(errs...)
}

// startParts starts the world and the outsiders.
func (s *site) startParts(ctx context.Context) (err error) {
	if s.world, err = startWorld(ctx, s.path("leaks")); err != nil {
		return err
	}
	s.OnClose(s.world.Stop)
	s.OnClose(func() error { return rig.Unwire(context.WithoutCancel(ctx)) })
	if s.outside, err = startPart[outside](ctx, 0, ArgOutsiders); err != nil {
		return err
	}
	s.OnClose(s.outside.Stop)
	return nil
}

func (s *site) startDaemon(ctx context.Context) error {
	s.daemon = &rig.Daemon{Bin: s.options.Bin, Dir: s.path("config"), Socket: s.path("run/admin.sock"), Log: s.path("varveld.log")}
	s.OnClose(func() error { return s.daemon.Stop(s.path("bpf")) })
	if err := s.start(ctx); err != nil {
		return err
	}
	return s.daemon.WaitReady(ctx)
}

// start starts a daemon that is ended in its turn, also when ctx ends.
func (s *site) start(ctx context.Context) error { return s.daemon.Start(context.WithoutCancel(ctx)) }

// finish ends the daemon in order. Then nothing of it may be left.
func (s *site) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.daemon.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := s.daemon.Wait(ctx); err != nil {
		return err
	}
	return s.leftovers()
}

// leftovers is an error that names what a daemon has left that has ended in order.
func (s *site) leftovers() error {
	var left []string
	for _, dir := range []string{s.path("bpf"), filepath.Join(s.cgroup, "varvel/runs")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if e.IsDir() { // pins are in folders, and so are runs
				left = append(left, filepath.Join(dir, e.Name()))
			}
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("varveld has ended and left behind: %s", strings.Join(left, ", "))
	}
	return nil
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// command is this program in another role.
func command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "/proc/self/exe", args...)
}
