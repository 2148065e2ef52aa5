package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Fields of /proc/PID/stat, counted from the one after the command's name
// (proc_pid_stat(5); state, the third of the file, is 0 here).
const (
	fieldState = 0
	fieldTTY   = 4
	fieldStart = 19
)

// maxProcFile bounds what is read of a file in /proc, in bytes.
const maxProcFile = 1 << 20

// HasTerminal reports whether the process has a controlling terminal. It says
// that a person may be there, not that one is.
func (p *Peer) HasTerminal() (bool, error) {
	fields, err := stat(p.PID)
	if err != nil {
		return false, err
	}
	return fields[fieldTTY] != "0", p.Alive()
}

// Cgroup returns the process's cgroup in the unified hierarchy, as evidence of
// where it was found. "" is a process that has none.
func (p *Peer) Cgroup() (string, error) {
	b, err := readProc(p.PID, "cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, p.Alive()
		}
	}
	return "", p.Alive()
}

// supplementary returns the groups of a process (proc_pid_status(5), Groups).
// There are at most 65536 (NGROUPS_MAX), which fit into maxProcFile.
func supplementary(pid int) ([]uint32, error) {
	b, err := readProc(pid, "status")
	if err != nil {
		return nil, err
	}
	return parseGroups(b)
}

func parseGroups(status []byte) ([]uint32, error) {
	for line := range strings.Lines(string(status)) {
		list, ok := strings.CutPrefix(line, "Groups:")
		if !ok {
			continue
		}
		var groups []uint32
		for _, s := range strings.Fields(list) {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("/proc/PID/status has the group %.20q, which is no number", s)
			}
			groups = append(groups, uint32(n))
		}
		return groups, nil
	}
	return nil, errors.New("/proc/PID/status has no line of groups")
}

// startTime returns when the process started, in clock ticks since boot. It
// is an error if the process has ended.
func startTime(pid int) (string, error) {
	fields, err := stat(pid)
	if err != nil {
		return "", err
	}
	if s := fields[fieldState]; s == "Z" || s == "X" {
		return "", fmt.Errorf("%w (process %d)", ErrGone, pid)
	}
	return fields[fieldStart], nil
}

// stat returns the fields after the command's name, which itself may hold
// blanks and parentheses.
func stat(pid int) ([]string, error) {
	b, err := readProc(pid, "stat")
	if err != nil {
		return nil, err
	}
	return parseStat(b)
}

func parseStat(b []byte) ([]string, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return nil, errors.New("/proc/PID/stat has no command name")
	}
	fields := strings.Fields(string(b[i+1:]))
	if len(fields) <= fieldStart {
		return nil, fmt.Errorf("/proc/PID/stat has %d fields after the command name, and more are needed", len(fields))
	}
	return fields, nil
}

func readProc(pid int, name string) ([]byte, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/" + name)
	if err != nil {
		return nil, goneOr(pid, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	if err != nil {
		return nil, goneOr(pid, err)
	}
	return b, nil
}

func goneOr(pid int, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w (process %d)", ErrGone, pid)
	}
	return fmt.Errorf("look at process %d: %w", pid, err)
}
