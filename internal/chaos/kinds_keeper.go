package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// handsOver reports whether a varveld can leave its runs to the next, as its help
// says. Then it has a keeper, and runs have to outlive it.
func handsOver(ctx context.Context, bin string) (bool, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "varveld"), "--help").CombinedOutput()
	if err != nil {
		return false, fmt.Errorf("varveld --help; make build makes it: %w", err)
	}
	return strings.Contains(string(out), "SIGUSR2"), nil
}

func (s *site) missingKeeper() string {
	if !s.adopts {
		return "this varveld does not hand over to the next, its help says nothing of SIGUSR2"
	}
	return ""
}

// killKeeper kills the keeper and returns which process it was.
func (s *site) killKeeper() (int, error) {
	pid := s.keeper()
	if pid == 0 {
		return 0, errors.New("varveld has no keeper")
	}
	return pid, syscall.Kill(pid, syscall.SIGKILL)
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
	was, err := s.killKeeper()
	again := func() error {
		return s.until(ctx, "there is another keeper, which holds everything", func() (bool, error) {
			if now := s.keeper(); now == 0 || now == was {
				return false, nil
			}
			down, err := s.finding(ctx, "keeper-down")
			return !down, err
		})
	}
	return inOrder(func() error { return err }, with(ctx, s.away), again, with(ctx, s.daemon.WaitReady))
}

// doBoth kills keeper and daemon in either order. A daemon that goes second is
// stopped, so that it can't start another keeper meanwhile.
func (s *site) doBoth(ctx context.Context) error {
	keeper := func() error { _, err := s.killKeeper(); return err }
	kills := []func() error{s.daemon.Kill, keeper}
	if s.random.IntN(2) == 0 {
		kills = []func() error{s.signal(syscall.SIGSTOP), keeper, s.daemon.Kill}
	}
	return inOrder(append(kills, with(ctx, s.away), with(ctx, s.restart))...)
}

// finding reports whether the daemon says that something is not well.
func (s *site) finding(ctx context.Context, code string) (bool, error) {
	out, err := s.daemon.Varvel(ctx, "status", "-o", "json").Output()
	if err != nil {
		return false, fmt.Errorf("varvel status: %w", err)
	}
	var status struct {
		Findings []struct {
			Code string `json:"code"`
		} `json:"findings"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return false, fmt.Errorf("varvel status: %w", err)
	}
	for _, f := range status.Findings {
		if f.Code == code {
			return true, nil
		}
	}
	return false, nil
}
