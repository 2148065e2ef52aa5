package launch

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
	offsetArgs   = 16
)

// callTable is what the filter must know of an architecture.
type callTable struct {
	audit  uint32 // AUDIT_ARCH_*, include/uapi/linux/audit.h
	number func(refusal) int32
}

// tableOf returns the table for a value of runtime.GOARCH.
func tableOf(goarch string) (callTable, error) {
	switch goarch {
	case "amd64":
		return callTable{unix.AUDIT_ARCH_X86_64, func(r refusal) int32 { return r.amd64 }}, nil
	case "arm64":
		return callTable{unix.AUDIT_ARCH_AARCH64, func(r refusal) int32 { return r.arm64 }}, nil
	default:
		return callTable{}, fmt.Errorf("there is no system call filter for %s; runs need amd64 or arm64", goarch)
	}
}

// filterProgram assembles the filter. In its order: a call by another
// architecture's entry (int 0x80 and 32-bit code on x86-64, 32-bit code on
// arm64) kills the process, because its numbers mean other calls; a number above
// the newest known call, which takes in all of x32, does not exist; then the
// rows one after the other; then everything else is allowed.
func filterProgram(t callTable, rows []refusal) ([]bpf.Instruction, error) {
	program := []bpf.Instruction{
		load(offsetArch),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: t.audit, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		load(offsetNumber),
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: newestCall, SkipFalse: 1},
		refuse(unix.ENOSYS),
	}
	for _, r := range rows {
		code, err := assembleRow(t, r)
		if err != nil {
			return nil, fmt.Errorf("assemble the filter for %s: %w", r.name, err)
		}
		program = append(program, code...)
	}
	return append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}), nil
}

// assembleRow returns the code of one row. It expects the number of the call in
// the accumulator and leaves it there, or returns.
func assembleRow(t callTable, r refusal) ([]bpf.Instruction, error) {
	number := t.number(r)
	if number < 0 {
		return nil, nil
	}
	body := []bpf.Instruction{refuse(r.errno)}
	if len(r.when) > 0 {
		body = nil
		for _, group := range r.when {
			body = append(body, assembleGroup(group, r.errno)...)
		}
		body = append(body, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	}
	if len(body) > 255 {
		return nil, fmt.Errorf("%d instructions are too far to jump", len(body))
	}
	head := bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(number), SkipFalse: uint8(len(body))}
	return append([]bpf.Instruction{head}, body...), nil
}

// assembleGroup returns code that refuses if every test holds, and else goes on
// behind itself. It is built from its end, so that each test knows how far the
// way out is.
func assembleGroup(group []test, errno unix.Errno) []bpf.Instruction {
	code := []bpf.Instruction{refuse(errno)}
	for i := len(group) - 1; i >= 0; i-- {
		code = append(assembleTest(group[i], len(code)), code...)
	}
	return code
}

// assembleTest returns code that goes on behind itself if the test holds, and
// else skips the given number of instructions more.
func assembleTest(t test, skip int) []bpf.Instruction {
	code := []bpf.Instruction{load(offsetArgs + 8*uint32(t.arg))}
	if t.set {
		return append(code, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: t.mask, SkipFalse: uint8(skip)})
	}
	if t.mask != allBits {
		code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: t.mask})
	}
	for i, v := range t.in {
		left := len(t.in) - 1 - i // comparisons after this one
		jump := bpf.JumpIf{Cond: bpf.JumpEqual, Val: v}
		switch {
		case t.not:
			jump.SkipTrue = uint8(left + skip)
		case left == 0:
			jump.SkipFalse = uint8(skip)
		default:
			jump.SkipTrue = uint8(left)
		}
		code = append(code, jump)
	}
	return code
}

func load(offset uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offset, Size: 4} }

func refuse(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// installFilter puts the calling thread under the filter. no_new_privs must be
// set. What the thread executes stays under it.
func installFilter() error {
	t, err := tableOf(runtime.GOARCH)
	if err != nil {
		return err
	}
	program, err := filterProgram(t, refusals())
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("install the system call filter: %w", errno)
	}
	return nil
}
