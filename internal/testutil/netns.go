package testutil

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// NetNS is a network namespace of a test. It has a loopback that is up, and
// nothing else.
type NetNS struct {
	file *os.File
}

// NewNetNS makes a network namespace that goes with the test, as soon as
// nothing is left in it. It needs root.
func NewNetNS(t testing.TB) *NetNS {
	t.Helper()
	RequireRoot(t)
	var ns *NetNS
	var err error
	OnThread(func() { ns, err = newNetNS() })
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = ns.file.Close() })
	return ns
}

// newNetNS leaves the calling thread in the new namespace.
func newNetNS() (*NetNS, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := loopbackUp(); err != nil {
		return nil, err
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return &NetNS{file}, nil
}

// Do runs fn in the namespace, on a thread of its own. Sockets that fn opens
// stay in the namespace wherever they are used; goroutines and processes that
// fn starts are in it only if they are started by fn itself and not by a
// goroutine of it.
func (ns *NetNS) Do(fn func() error) (err error) {
	OnThread(func() {
		if err = unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		err = fn()
	})
	return err
}

// Path returns a path of the namespace for other processes, for as long as the
// test runs.
func (ns *NetNS) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.file.Fd())
}

// loopbackUp sets IFF_UP on lo (netdevice(7)).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return os.NewSyscallError("ioctl SIOCGIFFLAGS", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request))
}
