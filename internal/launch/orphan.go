package launch

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// hangUpStopped ends the jobs that a shell leaves stopped when it exits. The
// kernel does so (POSIX, _Exit, "Consequences of Process Termination") where the
// jobs' new parent is in another session; here it is init, in the same one.
func hangUpStopped() {
	names, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		state, parent, group := parseStat(text)
		if state == 'T' && parent == 1 && group > 1 {
			unix.Kill(-group, unix.SIGHUP)
			unix.Kill(-group, unix.SIGCONT)
		}
	}
}

// parseStat returns state, parent and process group of /proc/PID/stat
// (proc_pid_stat(5)). The name before them, in parentheses, may hold anything.
func parseStat(text []byte) (state byte, parent, group int) {
	i := bytes.LastIndexByte(text, ')')
	fields := bytes.Fields(text[i+1:])
	if len(fields) < 3 || len(fields[0]) != 1 {
		return 0, 0, 0
	}
	parent, err1 := strconv.Atoi(string(fields[1]))
	group, err2 := strconv.Atoi(string(fields[2]))
	if err1 != nil || err2 != nil {
		return 0, 0, 0
	}
	return fields[0][0], parent, group
}
