package launch

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inheritable are the signals that programs are started to ignore (nohup(1), and
// shells for what they put in the background), less SIGQUIT and SIGPIPE: for these
// the Go runtime puts handlers of its own into the client before anybody can ask
// (os/signal, "Default behavior of signals in Go programs").
func inheritable() []syscall.Signal {
	return []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
}

// ignorable reports whether a request may want these signals ignored.
func ignorable(signals []int) bool {
	for _, s := range signals {
		if !slices.Contains(inheritable(), syscall.Signal(s)) {
			return false
		}
	}
	return len(signals) <= len(inheritable())
}

// ignoredSignals returns which of the inheritable signals this process ignores.
func ignoredSignals() ([]int, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("find out which signals are ignored: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if mask, ok := strings.CutPrefix(lines.Text(), "SigIgn:"); ok {
			return signalsIn(strings.TrimSpace(mask))
		}
	}
	return nil, fmt.Errorf("find out which signals are ignored: /proc/self/status has no SigIgn line (%v)", lines.Err())
}

// signalsIn reads a mask of proc_pid_status(5): bit 0 is signal 1.
func signalsIn(mask string) ([]int, error) {
	bits, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return nil, fmt.Errorf("find out which signals are ignored: %w", err)
	}
	var out []int
	for _, s := range inheritable() {
		if bits>>(s-1)&1 != 0 {
			out = append(out, int(s))
		}
	}
	return out, nil
}

// ignore makes the program that this process is about to execute begin with these
// signals ignored (execve(2): only those that are caught are reset).
func ignore(signals []int) {
	for _, s := range signals {
		signal.Ignore(syscall.Signal(s))
	}
}
