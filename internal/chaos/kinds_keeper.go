package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// keeper returns the process that keeps runs while there is no daemon, 0 if
// there is none: the one in the keeper's cgroup.
func (s *site) keeper() int {
	raw, err := os.ReadFile(filepath.Join(s.cgroup, "varvel/keeper/cgroup.procs"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return pid
}

func (s *site) missingKeeper() string {
	if s.keeper() == 0 {
		return "this varveld has no keeper"
	}
	return ""
}

func (s *site) missingOther() string {
	if s.options.Other == "" {
		return "no other build was given (-other)"
	}
	return s.missingKeeper()
}

// handOver tells the daemon to leave its runs to the next.
func (s *site) handOver(ctx context.Context) error {
	if err := s.daemon.Signal(syscall.SIGUSR2); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	state, err := s.daemon.Wait(ctx)
	if err == nil && !state.Success() {
		err = fmt.Errorf("varveld was told to hand over, and ended with %s: %s", state, s.daemon.Tail())
	}
	return err
}

func (s *site) doHandOver(ctx context.Context) error {
	return inOrder(with(ctx, s.handOver), with(ctx, s.away), with(ctx, s.restart))
}

// doUpgrade goes to another build, lets it work, and comes back.
func (s *site) doUpgrade(ctx context.Context) error {
	others := strings.Split(s.options.Other, ",")
	change := func(bin string) func() error {
		return func() error { s.daemon.Bin = bin; return s.doHandOver(ctx) }
	}
	named := func() error { return s.flow(ctx, 0, namedFlows()...) }
	err := inOrder(change(others[s.random.IntN(len(others))]), named, change(s.options.Bin))
	s.daemon.Bin = s.options.Bin
	return err
}

// doKeeper kills the keeper. The daemon has to start another.
func (s *site) doKeeper(ctx context.Context) error {
	was := s.keeper()
	kill := func() error { return syscall.Kill(was, syscall.SIGKILL) }
	again := func() error {
		return s.until(ctx, "there is another keeper", func() (bool, error) {
			now := s.keeper()
			return now != 0 && now != was, nil
		})
	}
	return inOrder(kill, with(ctx, s.away), again, with(ctx, s.daemon.WaitReady))
}

// doBoth kills keeper and daemon in either order.
func (s *site) doBoth(ctx context.Context) error {
	was := s.keeper()
	kills := []func() error{s.daemon.Kill, func() error { return syscall.Kill(was, syscall.SIGKILL) }}
	if s.random.IntN(2) == 0 {
		slices.Reverse(kills)
	}
	return inOrder(append(kills, with(ctx, s.away), with(ctx, s.restart))...)
}
