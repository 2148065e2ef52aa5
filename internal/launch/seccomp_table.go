package launch

import "golang.org/x/sys/unix"

// refusal is one row of the filter: a system call that, if the condition holds,
// returns errno. Its numbers are those of x86-64 and arm64
// (arch/x86/entry/syscalls/syscall_64.tbl and scripts/syscall.tbl); -1 where an
// architecture does not have the call.
type refusal struct {
	name         string
	amd64, arm64 int32
	when         condition
	errno        unix.Errno
}

// condition holds if every test of one of its groups holds. No group at all
// means always.
type condition [][]test

// test compares the low 32 bits of one argument, after a mask, with values. It
// looks at no more because the arguments it is used for are ints or unsigned
// ints to the kernel, which drops the upper half; a filter that looked at it
// could be passed by setting a bit there.
type test struct {
	arg  int
	mask uint32
	not  bool // none of the values, instead of one of them
	set  bool // any bit of mask is set; values are not used
	in   []uint32
}

// allBits is the mask that masks nothing.
const allBits = 0xffffffff

func is(arg int, in ...uint32) test     { return test{arg: arg, mask: allBits, in: in} }
func isNot(arg int, in ...uint32) test  { return test{arg: arg, mask: allBits, not: true, in: in} }
func anyBit(arg int, mask uint32) test  { return test{arg: arg, mask: mask, set: true} }
func kindIs(arg int, in ...uint32) test { return test{arg: arg, mask: sockTypeMask, in: in} }
func either(groups ...[]test) condition { return groups }
func all(tests ...test) []test          { return tests }
func always() condition                 { return nil }

// Values that x/sys/unix does not have.
const (
	sockTypeMask = 0xf    // SOCK_TYPE_MASK, include/linux/net.h
	sockPacket   = 10     // SOCK_PACKET, include/linux/net.h: makes AF_PACKET of AF_INET (net/socket.c, __sock_create)
	ioctlSTI     = 0x5412 // TIOCSTI, asm-generic/ioctls.h
	ioctlLinux   = 0x541c // TIOCLINUX, asm-generic/ioctls.h
	ioctlCons    = 0x541d // TIOCCONS, asm-generic/ioctls.h
	newestCall   = 469    // file_setattr, of Linux 6.17; numbers from 424 on are the same everywhere
)

// newNamespaces are the flags of clone(2) that make namespaces. CLONE_NEWTIME is
// one of unshare(2) only; in clone's flags its bit is part of the exit signal.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// families is the condition under which socket(2) is refused. What remains is
// judged by the programs on the cgroup, except unix sockets (masks, Landlock)
// and the routing socket, which getaddrinfo(3) reads addresses from.
func families() condition {
	return either(
		all(isNot(0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK)),
		all(is(0, unix.AF_NETLINK), isNot(2, unix.NETLINK_ROUTE)),
		all(is(0, unix.AF_INET, unix.AF_INET6), kindIs(1, unix.SOCK_RAW)),
		all(kindIs(1, sockPacket)),
	)
}

// steering is the condition under which setsockopt(2) is refused: a program that
// chooses who of a port's group gets a datagram could choose a host's service,
// which the look-up on the cgroup, having no datagram, cannot foresee
// (reuseport_select_sock, net/core/sock_reuseport.c).
func steering() condition {
	return either(all(is(1, unix.SOL_SOCKET), is(2, unix.SO_ATTACH_REUSEPORT_CBPF, unix.SO_ATTACH_REUSEPORT_EBPF)))
}

// refusals is the filter. Calls that newer programs try first and can do
// without get ENOSYS, as from an older kernel: clone3, since a filter cannot
// look into its arguments, and io_uring, whose operations no filter sees. Both
// the C libraries (clone) and libuv, liburing's users and Go (none) go on
// without. Everything else gets EPERM.
func refusals() []refusal {
	const no = unix.EPERM
	const absent = unix.ENOSYS
	return []refusal{
		{"socket", 41, 198, families(), no},
		{"socketpair", 53, 199, either(all(isNot(0, unix.AF_UNIX))), no},
		{"setsockopt", 54, 208, steering(), no},
		{"ioctl", 16, 29, either(all(is(1, ioctlSTI, ioctlLinux, ioctlCons))), no},
		{"clone", 56, 220, either(all(anyBit(0, newNamespaces))), no},
		{"clone3", 435, 435, always(), absent},
		{"unshare", 272, 97, either(all(anyBit(0, newNamespaces|unix.CLONE_NEWTIME))), no},
		{"setns", 308, 268, always(), no},

		{"mount", 165, 40, always(), no},
		{"umount2", 166, 39, always(), no},
		{"pivot_root", 155, 41, always(), no},
		{"chroot", 161, 51, always(), no},
		{"open_tree", 428, 428, always(), no},
		{"open_tree_attr", 467, 467, always(), no},
		{"move_mount", 429, 429, always(), no},
		{"fsopen", 430, 430, always(), no},
		{"fsconfig", 431, 431, always(), no},
		{"fsmount", 432, 432, always(), no},
		{"fspick", 433, 433, always(), no},
		{"mount_setattr", 442, 442, always(), no},
		{"open_by_handle_at", 304, 265, always(), no},
		{"quotactl", 179, 60, always(), no},
		{"quotactl_fd", 443, 443, always(), no},
		{"swapon", 167, 224, always(), no},
		{"swapoff", 168, 225, always(), no},

		{"init_module", 175, 105, always(), no},
		{"finit_module", 313, 273, always(), no},
		{"delete_module", 176, 106, always(), no},
		{"create_module", 174, -1, always(), no},
		{"kexec_load", 246, 104, always(), no},
		{"kexec_file_load", 320, 294, always(), no},
		{"reboot", 169, 142, always(), no},
		{"acct", 163, 89, always(), no},
		{"syslog", 103, 116, always(), no},
		{"vhangup", 153, 58, always(), no},
		{"iopl", 172, -1, always(), no},
		{"ioperm", 173, -1, always(), no},
		{"uselib", 134, -1, always(), no},
		{"nfsservctl", 180, 42, always(), no},
		{"lookup_dcookie", 212, 18, always(), no},
		{"sethostname", 170, 161, always(), no},
		{"setdomainname", 171, 162, always(), no},

		{"settimeofday", 164, 170, always(), no},
		{"clock_settime", 227, 112, always(), no},

		{"bpf", 321, 280, always(), no},
		{"perf_event_open", 298, 241, always(), no},
		{"add_key", 248, 217, always(), no},
		{"request_key", 249, 218, always(), no},
		{"keyctl", 250, 219, always(), no},
		{"userfaultfd", 323, 282, always(), no},
		{"fanotify_init", 300, 262, always(), no},
		{"pidfd_getfd", 438, 438, always(), no},
		{"kcmp", 312, 272, always(), no},
		{"io_uring_setup", 425, 425, always(), absent},
		{"io_uring_enter", 426, 426, always(), absent},
		{"io_uring_register", 427, 427, always(), absent},
	}
}
