package keeper

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h), on little
// endian machines, which amd64 and arm64 are.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArg0   = 16
)

// calls are the system calls that a keeper may make: those of its loop, and those
// of Go's runtime. Nothing opens, executes, connects or changes anything.
func calls() []uint32 {
	return []uint32{
		unix.SYS_PPOLL, unix.SYS_ACCEPT4, unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT,
		unix.SYS_CLOSE, unix.SYS_PREAD64,
		// The runtime: memory, threads, signals, time, and its way out.
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MPROTECT, unix.SYS_FUTEX, unix.SYS_NANOSLEEP,
		unix.SYS_CLOCK_NANOSLEEP, unix.SYS_SCHED_YIELD, unix.SYS_CLOCK_GETTIME, unix.SYS_GETRANDOM, unix.SYS_GETPID,
		unix.SYS_GETTID, unix.SYS_TGKILL, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGACTION,
		unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL, unix.SYS_EPOLL_PWAIT, unix.SYS_READ, unix.SYS_WRITE,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	}
}

func auditArch(goarch string) (uint32, error) {
	switch goarch {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, nil
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, nil
	}
	return 0, fmt.Errorf("there is no system call filter for %s; a keeper needs amd64 or arm64", goarch)
}

// filter returns the program: what is not in calls fails with EPERM, clone makes
// threads only, and another architecture's entry kills. x32 numbers are not in
// the list.
func filter(arch uint32) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
	}
	for _, nr := range calls() {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	}
	return append(program,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLONE, SkipFalse: 3},
		bpf.LoadAbsolute{Off: offsetArg0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD, SkipFalse: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	)
}

// installFilter puts the filter on every thread (seccomp(2),
// SECCOMP_FILTER_FLAG_TSYNC).
func installFilter() error {
	arch, err := auditArch(runtime.GOARCH)
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(filter(arch))
	if err != nil {
		return fmt.Errorf("assemble the system call filter: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno != 0:
		return fmt.Errorf("install the system call filter: %w", errno)
	case tid != 0:
		return fmt.Errorf("the system call filter does not fit thread %d", tid)
	}
	return nil
}
