package launch

import (
	"os"

	"golang.org/x/sys/unix"
)

// awaitEnd returns when the process of a pidfd has ended: it is readable then
// (pidfd_open(2)). Waiting by wait4(2) would hold a thread for each run, and Go's
// stacks of a thread are 48 KB; Go waits for all descriptors in one place. A child
// is left to be reaped.
func awaitEnd(pidfd *os.File) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}
