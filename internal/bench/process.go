package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// The arguments that turn the program into a part of the benchmark.
const (
	ArgWorker = "worker" // Work, then the CPU
	ArgWorld  = "world"  // Serve
	ArgInside = "inside" // Run, in a network namespace of its own
)

// process is a part of the benchmark that listens to orders.
type process struct {
	*conversation
	cmd   *exec.Cmd
	stdin io.Closer
}

// startWorker starts a worker in a cgroup; "" is this process's own.
func startWorker(ctx context.Context, cgroup string, cpu int) (*process, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", ArgWorker, strconv.Itoa(cpu))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if cgroup == "" {
		return startProcess(cmd)
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	return startProcess(cmd)
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return &process{newConversation(stdout, stdin), cmd, stdin}, nil
}

// stop ends a process by closing its input.
func (p *process) stop() error {
	err := p.stdin.Close()
	return errors.Join(err, p.cmd.Wait())
}

// command runs a program that has to succeed.
func command(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", argv, err, out)
	}
	return nil
}
