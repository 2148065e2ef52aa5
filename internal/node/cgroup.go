package node

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/varvel/varvel/internal/hostnet"
	"github.com/varvel/varvel/internal/workload"
)

// endTime is how long what is left in the cgroup of a run that has ended may take
// to die.
const endTime = 2 * time.Second

// removeCgroup ends a run's cgroup. The run's init is gone, and with it every
// process of its PID namespace. What is still there was put there from outside,
// by root: it is of the run as well, and ends with it.
func (n *node) removeCgroup(run *workload.Run) error {
	if err := workload.Remove(run.CgroupPath); err == nil {
		return nil
	}
	n.Log.Warn("a process that was moved into a run from outside ends with it", "run", run.ID)
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	return errors.Join(workload.Kill(run.CgroupPath), workload.WaitEmpty(ctx, run.CgroupPath), workload.Remove(run.CgroupPath))
}

// cutAll destroys connections of a run in one network namespace; nil is the
// node's. A socket belongs to the very cgroup that it was born in, and an
// operator may have made some below the run's.
func cutAll(ns *os.File, run *workload.Run, deny func(hostnet.Socket) bool) (int, error) {
	ids, err := workload.IDs(run.CgroupPath)
	if err != nil || len(ids) == 0 {
		ids = []uint64{run.CgroupID}
	}
	errs, cut := []error{err}, 0
	for _, id := range ids {
		n, err := cutIn(ns, id, deny)
		cut, errs = cut+n, append(errs, err)
	}
	return cut, errors.Join(errs...)
}

func cutIn(ns *os.File, id uint64, deny func(hostnet.Socket) bool) (int, error) {
	if ns == nil {
		return hostnet.Cut(id, deny)
	}
	return hostnet.CutIn(ns, id, deny)
}
