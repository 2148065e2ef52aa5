package bench

import (
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/rig"
	"github.com/varvel/varvel/internal/workload"
)

// sitePrefix begins the names of cgroups and pins; the process's id follows.
const sitePrefix = "varvel-bench-"

// sweep takes away what benchmarks left behind that were killed.
func sweep(cgroup string) error {
	return rig.Sweep(sitePrefix, map[string]func(string) error{bpffs: kernel.Unpin, cgroup: workload.Remove})
}
