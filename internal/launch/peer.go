package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of the launch socket, as the kernel
// knew it when it connected. A Peer is valid until the Starter's Begin returns.
type Peer struct {
	PID    int
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups (SO_PEERGROUPS, unix(7))
	// Pidfd refers to the process and to no later one with the same number. It
	// is -1 where the kernel lacks SO_PEERPIDFD (older than 6.5).
	Pidfd int
}

// peerOf asks the kernel who is at the other end of c.
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	var opErr error
	if err := raw.Control(func(fd uintptr) { p, opErr = peerOfSocket(int(fd)) }); err != nil {
		return Peer{}, err
	}
	return p, opErr
}

func peerOfSocket(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, fmt.Errorf("ask for the peer's credentials: %w", err)
	}
	if cred.Pid <= 0 {
		// The kernel says 0 for a process that this PID namespace cannot see.
		return Peer{}, errors.New("the peer is in a PID namespace that this daemon cannot see")
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Peer{}, fmt.Errorf("ask for the peer's groups: %w", err)
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case errors.Is(err, unix.ENOPROTOOPT):
		pidfd = -1
	case err != nil:
		return Peer{}, fmt.Errorf("ask for a handle of the peer: %w", err)
	}
	return Peer{int(cred.Pid), cred.Uid, cred.Gid, groups, pidfd}, nil
}

// maxGroups is NGROUPS_MAX (limits.h).
const maxGroups = 65536

// peerGroups asks for the supplementary groups. ERANGE tells the size needed.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno != unix.ERANGE || size/4 <= uint32(len(groups)) || size/4 > maxGroups:
			return nil, errno
		}
		groups = make([]uint32, size/4)
	}
}

// alive reports whether the process that connected still exists, so that what
// was read from /proc/PID was about it.
func (p Peer) alive() error {
	if p.Pidfd < 0 {
		return unix.Kill(p.PID, 0)
	}
	return unix.PidfdSendSignal(p.Pidfd, 0, nil, 0)
}

// Shares reports whether the peer is in the same namespace as this process. The
// name is that of a file in /proc/PID/ns: "net", "mnt", "user", "pid" and so on.
func (p Peer) Shares(name string) (bool, error) {
	return p.sameFile(filepath.Join("ns", name))
}

// sameFile reports whether /proc/PID/name is the same object for the peer and
// for this process.
func (p Peer) sameFile(name string) (bool, error) {
	theirs, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.PID), name))
	if err != nil {
		return false, fmt.Errorf("look at the peer's %s: %w", name, err)
	}
	ours, err := os.Stat(filepath.Join("/proc/self", name))
	if err != nil {
		return false, err
	}
	if err := p.alive(); err != nil {
		return false, fmt.Errorf("the peer is gone: %w", err)
	}
	return os.SameFile(theirs, ours), nil
}

// onHost reports, as a refusal, that the peer does not see the files and users
// that its command would see. The command runs with the daemon's view of the
// host; a peer in a container or chroot would get more than it has.
func (p Peer) onHost() error {
	for _, name := range []string{"ns/mnt", "ns/user", "ns/pid", "root"} {
		same, err := p.sameFile(name)
		if err != nil {
			return err
		}
		if !same {
			return Refuse("This process is in a container, chroot or service sandbox (its %s is not the host's). Start the run from a plain login on the host.", name)
		}
	}
	return nil
}

// close gives up the handle.
func (p Peer) close() {
	if p.Pidfd >= 0 {
		unix.Close(p.Pidfd)
	}
}
