package launch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// scheduling is where and when a caller's threads run, besides the nice value.
// Only what asks for less than usual is taken over: a caller's real-time policy
// is not.
type scheduling struct {
	CPUs   unix.CPUSet `json:"cpus"`   // sched_setaffinity(2)
	Policy uint32      `json:"policy"` // SCHED_OTHER, SCHED_BATCH or SCHED_IDLE (sched(7))
	IO     int         `json:"io"`     // ioprio_set(2); 0 follows the nice value
}

// Policies and I/O classes (include/uapi/linux/sched.h, ioprio.h).
const (
	schedBatch  = 3
	schedIdle   = 5
	ioShift     = 13
	ioRealTime  = 1
	ioOfProcess = 1 // IOPRIO_WHO_PROCESS
)

// schedulingOf reads that of a process.
func schedulingOf(pid int) (scheduling, error) {
	var s scheduling
	if err := unix.SchedGetaffinity(pid, &s.CPUs); err != nil {
		return s, fmt.Errorf("read the peer's CPUs: %w", err)
	}
	attr, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		return s, fmt.Errorf("read the peer's scheduling policy: %w", err)
	}
	if attr.Policy == schedBatch || attr.Policy == schedIdle {
		s.Policy = attr.Policy
	}
	io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioOfProcess, uintptr(pid), 0)
	if errno != 0 {
		return s, fmt.Errorf("read the peer's I/O priority: %w", errno)
	}
	if io>>ioShift != ioRealTime {
		s.IO = int(io)
	}
	return s, nil
}

// apply gives it to the calling thread. CPUs that the run's cgroup does not offer
// are no reason to fail.
func (s scheduling) apply(nice int) error {
	if err := unix.SchedSetaffinity(0, &s.CPUs); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("set the CPUs: %w", err)
	}
	if s.Policy != 0 {
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: s.Policy, Nice: int32(nice)}
		if err := unix.SchedSetAttr(0, attr, 0); err != nil {
			return fmt.Errorf("set scheduling policy %d: %w", s.Policy, err)
		}
	}
	if s.IO == 0 {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioOfProcess, 0, uintptr(s.IO)); errno != 0 {
		return fmt.Errorf("set I/O priority %#x: %w", s.IO, errno)
	}
	return nil
}
