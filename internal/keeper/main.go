package keeper

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// processName is the first argument of a keeper, by which Main knows its part.
const processName = "varvel-keeper"

// readyFD is where a keeper says that it listens.
const readyFD = 3

// Main runs this program as a keeper if it was started as one; then it does not
// return. A program that starts keepers calls it first thing in main.
func Main() {
	if len(os.Args) == 3 && os.Args[0] == processName {
		os.Exit(keeperMain(os.Args[1], os.Args[2]))
	}
}

// keeperMain is the keeper. What it has to say it says to who started it.
func keeperMain(socket, daemonCgroup string) int {
	ready := os.NewFile(readyFD, "ready")
	s, err := prepare(socket, daemonCgroup)
	if err != nil {
		fmt.Fprint(ready, err)
		return 1
	}
	fmt.Fprint(ready, "ready")
	unix.Close(readyFD)
	if err := s.serve(); err != nil {
		return 1
	}
	return 0
}

// prepare listens, and then gives up everything that the loop does not need.
func prepare(socket, daemonCgroup string) (*server, error) {
	runtime.GOMAXPROCS(1)
	unix.CloseOnExec(readyFD)
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	// Without the capability the keeper counts as its starter does.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	procs, err := unix.Open(filepath.Join(daemonCgroup, "cgroup.procs"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("look at the daemon's cgroup: %w", err)
	}
	listener, err := listen(socket)
	if err != nil {
		return nil, err
	}
	if err := confine(); err != nil {
		return nil, err
	}
	trusted := func(peer unix.Ucred) bool { return peer.Uid == 0 && isMember(procs, int(peer.Pid)) }
	return newServer(listener, trusted), nil
}

// listen makes the socket beside its place, so that who finds it there is
// answered.
func listen(socket string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make the keeper's socket: %w", err)
	}
	beside := socket + ".new"
	_ = os.Remove(beside)
	unix.Umask(0o177)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: beside}); err != nil {
		return -1, fmt.Errorf("bind the keeper's socket to %s: %w", beside, err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		return -1, fmt.Errorf("listen on the keeper's socket: %w", err)
	}
	if err := os.Rename(beside, socket); err != nil {
		return -1, fmt.Errorf("put the keeper's socket into its place: %w", err)
	}
	return fd, nil
}

// confine gives up capabilities, new privileges, core dumps and most system
// calls, in all threads.
func confine() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide the keeper's memory: %w", err)
	}
	// The filter makes every thread as the one that installs it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if err := cap.NewSet().SetProc(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return installFilter()
}

// isMember reports whether a process is in the cgroup whose cgroup.procs is open
// at fd. The kernel answers, so it needs no other file (cgroup v2, cgroup.procs).
func isMember(fd, pid int) bool {
	line := []byte("\n" + strconv.Itoa(pid) + "\n")
	text := []byte{'\n'}
	buf := make([]byte, 4096)
	for {
		n, err := unix.Pread(fd, buf, int64(len(text)-1))
		if err != nil || n <= 0 {
			return bytes.Contains(text, line)
		}
		text = append(text, buf[:n]...)
	}
}
