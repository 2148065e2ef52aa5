package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/varvel/varvel/internal/rig"
)

// The arguments that turn the program into a part of the benchmark.
const (
	ArgWorker = "worker" // Work, then the CPU
	ArgWorld  = "world"  // Serve
	ArgInside = "inside" // Run, in a network namespace of its own
)

// process is a part of the benchmark that carries out orders.
type process = rig.Process[order, []float64]

func startProcess(cmd *exec.Cmd) (*process, error) { return rig.Start[order, []float64](cmd) }

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
