package launch

import (
	"encoding/binary"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	allow = uint32(unix.SECCOMP_RET_ALLOW)
	kill9 = uint32(unix.SECCOMP_RET_KILL_PROCESS)
)

func denied(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// call is a system call as the filter sees it.
type call struct {
	arch, number uint32
	args         [6]uint64
}

// verdict runs the filter over a call. The virtual machine reads words most
// significant byte first, as from a packet, so they are written that way.
func verdict(t *testing.T, goarch string, c call) uint32 {
	t.Helper()
	table, err := tableOf(goarch)
	if err != nil {
		t.Fatal(err)
	}
	program, err := filterProgram(table, refusals())
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], c.number)
	binary.BigEndian.PutUint32(data[4:], c.arch)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func goarches() []string { return []string{"amd64", "arm64"} }

// TestFilterRows evaluates every row: refused when its condition holds, allowed
// when it does not.
func TestFilterRows(t *testing.T) {
	for _, goarch := range goarches() {
		table, err := tableOf(goarch)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range refusals() {
			number := table.number(r)
			if number < 0 {
				continue
			}
			c := call{arch: table.audit, number: uint32(number)}
			for _, args := range holding(r.name) {
				c.args = args
				if got := verdict(t, goarch, c); got != denied(r.errno) {
					t.Errorf("%s: %s%x: %#x, want %#x", goarch, r.name, args, got, denied(r.errno))
				}
				c.args[0] |= 1 << 40 // the kernel does not look there, so it must not help
				c.args[1] |= 1 << 40
				if got := verdict(t, goarch, c); got != denied(r.errno) {
					t.Errorf("%s: %s%x: %#x, want %#x", goarch, r.name, c.args, got, denied(r.errno))
				}
			}
			for _, args := range harmless(r.name) {
				c.args = args
				if got := verdict(t, goarch, c); got != allow {
					t.Errorf("%s: %s%x: %#x, want allowed", goarch, r.name, args, got)
				}
			}
		}
	}
}

// holding returns arguments for which the row's condition holds.
func holding(name string) [][6]uint64 {
	switch name {
	case "socket":
		return [][6]uint64{
			{unix.AF_PACKET, unix.SOCK_RAW}, {unix.AF_VSOCK, unix.SOCK_STREAM}, {unix.AF_ALG, unix.SOCK_SEQPACKET},
			{unix.AF_BLUETOOTH, unix.SOCK_RAW}, {unix.AF_INET, unix.SOCK_RAW, 1}, {unix.AF_INET6, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 58},
			{unix.AF_INET, sockPacket}, {unix.AF_UNIX, sockPacket | unix.SOCK_NONBLOCK}, {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC},
			{unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_SOCK_DIAG}, {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, {0, unix.SOCK_STREAM},
		}
	case "socketpair":
		return [][6]uint64{{unix.AF_INET, unix.SOCK_STREAM}, {unix.AF_TIPC, unix.SOCK_STREAM}}
	case "setsockopt":
		return [][6]uint64{{3, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF}, {3, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF}}
	case "ioctl":
		return [][6]uint64{{0, ioctlSTI}, {2, ioctlLinux}, {1, ioctlCons}}
	case "clone", "unshare":
		flags := []uint64{
			unix.CLONE_NEWNS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER,
			unix.CLONE_NEWPID, unix.CLONE_NEWNET, unix.CLONE_NEWUSER | unix.CLONE_VM,
		}
		if name == "unshare" {
			flags = append(flags, unix.CLONE_NEWTIME)
		}
		var all [][6]uint64
		for _, f := range flags {
			all = append(all, [6]uint64{f})
		}
		return all
	}
	return [][6]uint64{{}, {1, 2, 3, 4, 5, 6}}
}

// harmless returns arguments for which the row's condition does not hold.
func harmless(name string) [][6]uint64 {
	switch name {
	case "socket":
		return [][6]uint64{
			{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, unix.IPPROTO_TCP}, {unix.AF_INET6, unix.SOCK_DGRAM},
			{unix.AF_UNIX, unix.SOCK_SEQPACKET}, {unix.AF_NETLINK, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE},
			{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, // judged by the cgroup's programs
		}
	case "socketpair":
		return [][6]uint64{{unix.AF_UNIX, unix.SOCK_STREAM}}
	case "setsockopt":
		return [][6]uint64{{3, unix.SOL_SOCKET, unix.SO_REUSEPORT}, {3, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}, {3, unix.IPPROTO_TCP, 51}}
	case "ioctl":
		return [][6]uint64{{0, unix.TCGETS}, {0, unix.TIOCGWINSZ}, {0, unix.TIOCSPGRP}}
	case "clone":
		return [][6]uint64{{uint64(unix.SIGCHLD)}, {unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, {unix.CLONE_THREAD | unix.CLONE_VM | unix.CLONE_SIGHAND}}
	case "unshare":
		return [][6]uint64{{unix.CLONE_FS}, {unix.CLONE_FILES}}
	}
	return nil
}

// TestFilterEntries tries the entries of other architectures, and numbers that
// are nobody's.
func TestFilterEntries(t *testing.T) {
	const x32 = 0x40000000
	for _, goarch := range goarches() {
		table, err := tableOf(goarch)
		if err != nil {
			t.Fatal(err)
		}
		for _, foreign := range []uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_MIPS64, 0} {
			for _, number := range []uint32{0, 20, 41, 400} {
				if got := verdict(t, goarch, call{arch: foreign, number: number}); got != kill9 {
					t.Errorf("%s: architecture %#x, call %d: %#x, want death", goarch, foreign, number, got)
				}
			}
		}
		for _, number := range []uint32{x32, x32 | 41, x32 | 512, newestCall + 1, 1 << 31, 1<<32 - 1} {
			if got := verdict(t, goarch, call{arch: table.audit, number: number}); got != denied(unix.ENOSYS) {
				t.Errorf("%s: call %#x: %#x, want ENOSYS", goarch, number, got)
			}
		}
		for _, number := range []uint32{0, 1, newestCall} {
			if got := verdict(t, goarch, call{arch: table.audit, number: number}); got != allow {
				t.Errorf("%s: call %d: %#x, want allowed", goarch, number, got)
			}
		}
	}
	if _, err := tableOf("riscv64"); err == nil {
		t.Error("an architecture without a table has a filter")
	}
}

// TestFilterNumbers compares the table's numbers with those of another source.
// The mask keeps x/sys's absence of old calls out: those have no number there.
func TestFilterNumbers(t *testing.T) {
	for goarch, info := range map[string]*arch.Info{"amd64": arch.X86_64, "arm64": arch.AARCH64} {
		table, err := tableOf(goarch)
		if err != nil {
			t.Fatal(err)
		}
		if uint32(info.ID) != table.audit {
			t.Errorf("%s: audit architecture %#x, want %#x", goarch, table.audit, uint32(info.ID))
		}
		for _, r := range refusals() {
			want, ok := info.SyscallNames[r.name]
			switch number := table.number(r); {
			case !ok && number >= 0:
				t.Errorf("%s: %s has number %d, but there is no such call", goarch, r.name, number)
			case ok && int(number) != want:
				t.Errorf("%s: %s has number %d, want %d", goarch, r.name, number, want)
			}
		}
	}
}
