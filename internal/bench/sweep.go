package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/workload"
)

// sitePrefix begins the names of cgroups and pins; the process's id follows.
const sitePrefix = "varvel-bench-"

// sweep takes away what benchmarks left behind that were killed.
func sweep(cgroup string) error {
	var errs []error
	for dir, remove := range map[string]func(string) error{bpffs: kernel.Unpin, cgroup: workload.Remove} {
		left, err := filepath.Glob(filepath.Join(dir, sitePrefix+"*"))
		errs = append(errs, err)
		for _, path := range left {
			if isDead(strings.TrimPrefix(filepath.Base(path), sitePrefix)) {
				errs = append(errs, remove(path))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what an earlier benchmark has left: %w", err)
	}
	return nil
}

func isDead(pid string) bool {
	_, err := os.Stat(filepath.Join("/proc", pid))
	return errors.Is(err, os.ErrNotExist)
}
