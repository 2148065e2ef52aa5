package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/hostnet/netns"
)

// CutIn is Cut in a network namespace.
func CutIn(ns *os.File, cgroupID uint64, deny func(Socket) bool) (n int, err error) {
	err = netns.In(ns, func() (err error) {
		n, err = Cut(cgroupID, deny)
		return err
	})
	return n, err
}

// DialIn connects over TCP from a network namespace. The thread that enters it is
// gone before the connection is made, so many slow ones hold no threads.
func DialIn(ctx context.Context, ns *os.File, to netip.AddrPort) (*net.TCPConn, error) {
	var fd int
	err := netns.In(ns, func() (err error) {
		fd, err = unix.Socket(familyOf(to), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a socket in a network namespace: %w", err)
	}
	f := os.NewFile(uintptr(fd), "tcp "+to.String())
	defer f.Close()
	if err := connectTo(ctx, f, to); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func familyOf(to netip.AddrPort) int {
	if to.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddrOf(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// connectTo is connect(2) of a socket that does not block: when it becomes
// writable, SO_ERROR says how it went.
func connectTo(ctx context.Context, f *os.File, to netip.AddrPort) error {
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	started := false
	err = raw.Write(func(fd uintptr) bool {
		if !started {
			started = true
			failed = unix.Connect(int(fd), sockaddrOf(to))
			return failed == nil || !errors.Is(failed, unix.EINPROGRESS)
		}
		var finished bool
		finished, failed = outcome(int(fd))
		return finished
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, failed)
}

func outcome(fd int) (finished bool, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, 0); n == 0 && err == nil || errors.Is(err, unix.EINTR) {
		return false, nil
	} else if err != nil {
		return true, err
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return true, err
}
