package launch

import (
	"os"

	"golang.org/x/sys/unix"
)

// awaitEnd returns when a child of this process has ended, and leaves it to be
// reaped. Waiting by wait4(2) would hold a thread for each run, and Go's stacks of
// a thread are 48 KB; a pidfd is readable when its process has ended
// (pidfd_open(2)), and Go waits for all of them in one place. If that does not
// work, it returns at once, and who reaps the child has to wait.
func awaitEnd(pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	// What goes wrong is for the one who reaps, too.
	_ = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil
	})
}
