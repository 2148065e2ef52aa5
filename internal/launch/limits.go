package launch

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// limits are what the kernel holds a process to, besides its credentials. A
// command gets those of its caller, where they are not wider than the daemon's.
type limits struct {
	Rlimits [][2]uint64 `json:"rlimits"` // soft and hard, indexed by resource (getrlimit(2))
	Nice    int         `json:"nice"`    // -20 to 19 (setpriority(2))
	OOM     int         `json:"oom"`     // /proc/PID/oom_score_adj (proc_pid_oom_score_adj(5))
	Sched   scheduling  `json:"sched"`
}

// rlimitCount is RLIM_NLIMITS (asm-generic/resource.h).
const rlimitCount = 16

// limitsOf reads the limits of the peer.
func limitsOf(p Peer) (limits, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.PID))
	if err != nil {
		return limits{}, fmt.Errorf("read the peer's resource limits: %w", err)
	}
	var l limits
	if l.Rlimits, err = parseLimits(string(text)); err != nil {
		return limits{}, fmt.Errorf("read the peer's resource limits: %w", err)
	}
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, p.PID)
	if err != nil {
		return limits{}, fmt.Errorf("read the peer's nice value: %w", err)
	}
	l.Nice = 20 - raw // the system call answers 40 to 1, getpriority(2), "C library/kernel differences"
	text, err = os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID))
	if err != nil {
		return limits{}, fmt.Errorf("read the peer's oom_score_adj: %w", err)
	}
	if l.OOM, err = strconv.Atoi(string(bytes.TrimSpace(text))); err != nil {
		return limits{}, fmt.Errorf("read the peer's oom_score_adj: %w", err)
	}
	if l.Sched, err = schedulingOf(p.PID); err != nil {
		return limits{}, err
	}
	if err := p.alive(); err != nil {
		return limits{}, fmt.Errorf("the peer is gone: %w", err)
	}
	return l, nil
}

// parseLimits parses /proc/PID/limits (proc_pid_limits(5)). prlimit(2) would
// need CAP_SYS_RESOURCE to look at another user's process. After a heading it
// has one line for each resource, in the order of their numbers, with the soft
// and the hard limit 26 and 47 columns from the left (fs/proc/base.c,
// proc_pid_limits).
func parseLimits(text string) ([][2]uint64, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != rlimitCount+1 {
		return nil, fmt.Errorf("%d lines instead of %d", len(lines), rlimitCount+1)
	}
	all := make([][2]uint64, rlimitCount)
	for i, line := range lines[1:] {
		for j, start := range []int{26, 47} {
			if len(line) < start+20 {
				return nil, fmt.Errorf("line %q is too short", line)
			}
			field := strings.TrimSpace(line[start : start+20])
			if field == "unlimited" {
				all[i][j] = unix.RLIM_INFINITY
				continue
			}
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				return nil, err
			}
			all[i][j] = n
		}
	}
	return all, nil
}

// raise lifts hard limits to those of the caller as far as this process may,
// and sets what else needs privileges. A limit is lifted only with
// CAP_SYS_RESOURCE; without it the daemon's lower one stays.
func (l limits) raise() error {
	for i, want := range l.Rlimits {
		var have unix.Rlimit
		if err := unix.Getrlimit(i, &have); err != nil {
			return fmt.Errorf("read resource limit %d: %w", i, err)
		}
		if want[1] <= have.Max {
			continue
		}
		have.Max = want[1]
		if err := unix.Setrlimit(i, &have); err != nil && err != unix.EPERM {
			return fmt.Errorf("lift resource limit %d: %w", i, err)
		}
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, l.Nice); err != nil {
		return fmt.Errorf("set nice value %d: %w", l.Nice, err)
	}
	if err := l.Sched.apply(l.Nice); err != nil {
		return err
	}
	err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(l.OOM)), 0)
	if err != nil && !os.IsPermission(err) {
		return fmt.Errorf("set oom_score_adj %d: %w", l.OOM, err)
	}
	return nil
}

// apply sets the resource limits, none above what raise reached. It is the last
// thing before execve, because this program may not fit into them.
func (l limits) apply() error {
	for i, want := range l.Rlimits {
		var have unix.Rlimit
		if err := unix.Getrlimit(i, &have); err != nil {
			return fmt.Errorf("read resource limit %d: %w", i, err)
		}
		have = unix.Rlimit{Cur: min(want[0], have.Max), Max: min(want[1], have.Max)}
		if err := unix.Setrlimit(i, &have); err != nil {
			return fmt.Errorf("set resource limit %d: %w", i, err)
		}
	}
	return nil
}
