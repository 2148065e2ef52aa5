package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// doReload changes both agents' rules and reloads by either way.
func (s *site) doReload(ctx context.Context) error {
	reload := with(ctx, s.reload)
	if s.random.IntN(2) == 0 {
		reload = s.signal(syscall.SIGHUP)
	}
	return inOrder(s.writeAgents, reload, with(ctx, s.away), with(ctx, s.daemon.WaitReady))
}

func (s *site) reload(ctx context.Context) error {
	out, err := s.daemon.Varvel(ctx, "reload").CombinedOutput()
	if err != nil {
		return fmt.Errorf("varvel reload: %w: %s", err, out)
	}
	return nil
}

// doBadReload writes a configuration that must be refused, and a good one after it.
func (s *site) doBadReload(ctx context.Context) error {
	bad := s.path("config/agents.d/bad.yaml")
	return inOrder(
		func() error { return os.WriteFile(bad, []byte("agent: [no name]\n"), 0o600) },
		func() error {
			if s.reload(ctx) == nil {
				return errors.New("varvel reload has accepted a bad configuration")
			}
			return nil
		},
		with(ctx, s.away),
		func() error { return os.Remove(bad) },
		with(ctx, s.reload), with(ctx, s.daemon.WaitReady))
}

// doEnd ends one of the runs and starts another.
func (s *site) doEnd(ctx context.Context) error { return s.replace(ctx, terminate) }

// doCgroup takes one of the runs away behind the daemon's back.
func (s *site) doCgroup(ctx context.Context) error { return s.replace(ctx, snatch) }

func (s *site) replace(ctx context.Context, how func(*liveRun) error) error {
	return inOrder(func() error { return s.end(ctx, s.runs[s.random.IntN(len(s.runs))], how) },
		with(ctx, s.away), func() error { return s.hire(ctx, s.options.Runs) })
}

// doBegin starts one run more and ends it when all it may do has worked.
func (s *site) doBegin(ctx context.Context) error {
	return inOrder(func() error { return s.hire(ctx, len(s.runs)+1) },
		func() error { return s.flow(ctx, 0, append(directFlows(), namedFlows()...)...) },
		func() error { return s.end(ctx, s.runs[len(s.runs)-1], terminate) })
}

// doUnmount takes the daemon's bpffs away. Its rules hold, and it makes its pins
// again.
func (s *site) doUnmount(ctx context.Context) error {
	pinned := func() error {
		return s.until(ctx, "the daemon has pins again", func() (bool, error) {
			n, err := s.pins()
			return n > 0, err
		})
	}
	return inOrder(func() error { return unix.Unmount(s.path("bpf"), unix.MNT_DETACH) },
		with(ctx, s.away), pinned, with(ctx, s.daemon.WaitReady))
}
