// Package kernel owns everything that Varvel has in the kernel: it loads, pins
// and attaches the programs of bpf/, fills their maps and reads their events. It
// is the only importer of cilium/ebpf.
//
// The programs are attached once, to the cgroup under which all runs live, and
// a run's cgroup inherits them: a run is governed from its first instruction,
// and one that is unknown here is refused everything. Links and maps are pinned,
// so that they go on when the daemon dies. The next daemon's Open adopts them: see
// adopt.go for its steps, layout.go for which maps it can share, and carry.go for
// the others.
//
// Maps never evict. What does not fit is an error here and a refusal there.
package kernel
