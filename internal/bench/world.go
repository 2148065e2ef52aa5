package bench

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/rig"
)

// The wire between the measured side and the world.
const (
	nodeAddress  = "192.0.2.1"
	worldAddress = "192.0.2.2"
)

// startWorld starts the world: a process in a network namespace of its own, with
// a wire to this one, that answers at every address below 128.0.0.0. Clients have
// to trust the certificate in caFile.
func startWorld(ctx context.Context, caFile string) (*process, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", ArgWorld)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET}
	p, err := startOn(0, cmd)
	if err != nil {
		return nil, err
	}
	if err := wire(ctx, p.Cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	if _, err := p.Ask(order{Op: "serve", CA: caFile}); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// startOn starts a process of which all threads stay on one CPU: not the measured
// worker's, if there are two. A child has its parent thread's CPUs
// (sched_setaffinity(2)).
func startOn(cpu int, cmd *exec.Cmd) (_ *process, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	if err := pin(cpu); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.SchedSetaffinity(0, &before)) }()
	return startProcess(cmd)
}

// wire joins this namespace and the world's.
func wire(ctx context.Context, pid int) error {
	return rig.Wire(ctx, pid,
		[]string{"address add " + nodeAddress + "/24 dev wire", "route add default via " + worldAddress},
		[]string{"address add " + worldAddress + "/24 dev wire", "route add local 0.0.0.0/1 dev lo"})
}
