package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
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
	if err := wire(ctx, p.cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	if _, err := p.ask(order{Op: "serve", CA: caFile}); err != nil {
		return nil, errors.Join(err, p.stop())
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

func wire(ctx context.Context, pid int) error {
	there := []string{"nsenter", "--net=/proc/" + strconv.Itoa(pid) + "/ns/net", "--"}
	for _, step := range []string{
		"ip link set lo up",
		"ip link add wire type veth peer name wire netns " + strconv.Itoa(pid),
		"ip address add " + nodeAddress + "/24 dev wire",
		"ip link set wire up",
		"there ip link set lo up",
		"there ip address add " + worldAddress + "/24 dev wire",
		"there ip link set wire up",
		"there ip route add local 0.0.0.0/1 dev lo",
		"ip route add default via " + worldAddress,
	} {
		argv := strings.Fields(step)
		if argv[0] == "there" {
			argv = append(there, argv[1:]...)
		}
		if err := command(ctx, argv...); err != nil {
			return fmt.Errorf("make the benchmark's network: %w", err)
		}
	}
	return nil
}
