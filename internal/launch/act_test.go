package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tryAct performs one act and says how it went: "ok", or the errno's name.
func tryAct(name string, args []string) int {
	act, ok := acts()[name]
	if !ok {
		fmt.Println("no such act")
		return 98
	}
	err := act(args)
	var errno syscall.Errno
	switch {
	case err == nil:
		fmt.Print("ok")
		return 0
	case errors.As(err, &errno):
		fmt.Print(unix.ErrnoName(errno))
	default:
		fmt.Print(err)
	}
	return 1
}

// acts are what a command could try to get out, or must be able to do.
func acts() map[string]func(args []string) error {
	return map[string]func([]string) error{
		"mount":          func([]string) error { return unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "") },
		"umount":         func([]string) error { return umountNew() },
		"fsopen":         func([]string) error { return second(unix.Fsopen("tmpfs", 0)) },
		"open_tree":      func([]string) error { return second(unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE)) },
		"chroot":         func([]string) error { return unix.Chroot("/") },
		"unshare-net":    func([]string) error { return unshare(unix.CLONE_NEWNET) },
		"unshare-user":   func([]string) error { return cloneWith(unix.CLONE_NEWUSER) },
		"clone-newns":    func([]string) error { return cloneWith(unix.CLONE_NEWNS) },
		"setns":          setNS,
		"bpf":            func([]string) error { return raw(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&mapSpec{1, 4, 4, 1})), 16) },
		"perf":           func([]string) error { return perf() },
		"keyctl":         func([]string) error { return second(unix.KeyctlGetKeyringID(unix.KEY_SPEC_PROCESS_KEYRING, true)) },
		"userfaultfd":    func([]string) error { return raw(unix.SYS_USERFAULTFD, 0, 0, 0) },
		"io_uring":       func([]string) error { return ioUring() },
		"clone3":         func([]string) error { return clone3() },
		"packet":         socketAct(unix.AF_PACKET, unix.SOCK_RAW, 0),
		"packet-old":     socketAct(unix.AF_INET, sockPacket, 0),
		"vsock":          socketAct(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
		"raw4":           socketAct(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		"raw6":           socketAct(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6),
		"netlink-diag":   socketAct(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG),
		"netlink-route":  socketAct(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE),
		"steer":          func([]string) error { return steer() },
		"tcp4":           socketAct(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0),
		"udp6":           socketAct(unix.AF_INET6, unix.SOCK_DGRAM, 0),
		"unix":           socketAct(unix.AF_UNIX, unix.SOCK_STREAM, 0),
		"tiocsti":        func([]string) error { return typeInto(ioctlSTI) },
		"tiocsti-high":   func([]string) error { return typeInto(ioctlSTI | 1<<32) },
		"read":           func(a []string) error { return second(os.ReadFile(a[0])) },
		"list":           func(a []string) error { return second(os.ReadDir(a[0])) },
		"chmod":          func(a []string) error { return os.Chmod(a[0], 0o777) },
		"write":          func(a []string) error { return os.WriteFile(a[0], []byte("x"), 0o600) },
		"append":         appendTo,
		"kill":           kill,
		"connect":        connectUnix,
		"ptrace-child":   func([]string) error { return traceChild() },
		"pidfd_getfd":    func([]string) error { return pidfdGetfd() },
		"open_by_handle": openByHandle,
		"thread-exec":    func([]string) error { return exec.Command("/bin/true").Run() },
		"mknod-disk":     func(a []string) error { return unix.Mknod(a[0], unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))) },
	}
}

func second[T any](_ T, err error) error { return err }

func raw(nr, a, b, c uintptr) error {
	if _, _, errno := unix.Syscall(nr, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

type mapSpec struct{ kind, key, value, entries uint32 }

func socketAct(family, kind, proto int) func([]string) error {
	return func([]string) error { return second(unix.Socket(family, kind, proto)) }
}

// steer gives a port's group a program that chooses among its members.
func steer() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	first := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &first[0]})
}

// umountNew unmounts something: outside, what it has mounted itself.
func umountNew() error {
	if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
		return unix.Unmount("/proc/kcore", unix.MNT_DETACH)
	}
	return unix.Unmount("/mnt", unix.MNT_DETACH)
}

// unshare changes one thread, which then ends with its goroutine.
func unshare(flags int) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- unix.Unshare(flags)
	}()
	return <-done
}

func cloneWith(flags uintptr) error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	return cmd.Run()
}

func setNS([]string) error {
	fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return unix.Setns(fd, 0)
}

func perf() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	return second(unix.PerfEventOpen(&attr, 0, -1, -1, 0))
}

func ioUring() error {
	var params [120]byte
	return raw(unix.SYS_IO_URING_SETUP, 2, uintptr(unsafe.Pointer(&params)), 0)
}

// clone3 asks for a clone with arguments that are too short: EINVAL where there
// is the call.
func clone3() error {
	var args [88]byte
	if err := raw(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), 1, 0); err != unix.EINVAL {
		return err
	}
	return nil
}

// typeInto makes a terminal of its own and types a key into it.
func typeInto(request uintptr) error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("no pty: %v", err)
	}
	slave, err := openSlave(master)
	if err != nil {
		return fmt.Errorf("no slave: %v", err)
	}
	key := [1]byte{'x'}
	return raw(unix.SYS_IOCTL, uintptr(slave), request, uintptr(unsafe.Pointer(&key)))
}

func appendTo(a []string) error {
	f, err := os.OpenFile(a[0], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func kill(a []string) error {
	pid, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGCONT)
}

func connectUnix(a []string) error {
	c, err := net.Dial("unix", a[0])
	if err != nil {
		return err
	}
	return c.Close()
}

// traceChild debugs a child, which has to work.
func traceChild() error {
	runtime.LockOSThread()
	pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return err
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		return err
	}
	if !ws.Stopped() {
		return fmt.Errorf("child is not stopped: %v", ws)
	}
	return syscall.PtraceCont(pid, 0)
}

func pidfdGetfd() error {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	return second(unix.PidfdGetfd(pidfd, 0, 0))
}

func openByHandle(a []string) error {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, a[0], 0)
	if err != nil {
		return err
	}
	dir, err := unix.Open("/tmp", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return second(unix.OpenByHandleAt(dir, h, unix.O_RDONLY))
}
