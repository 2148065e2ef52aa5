package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// kept are the capabilities that the daemon needs after its start, each with what
// for. All others are given up, also for what it starts.
func kept() []cap.Value {
	return []cap.Value{
		cap.BPF, cap.PERFMON, cap.NET_ADMIN, // maps, rule sets, events
		cap.SYS_ADMIN,                       // namespaces and mounts of runs
		cap.SYS_CHROOT,                      // pivot_root's companion in the run's mount namespace
		cap.SETUID, cap.SETGID, cap.SETPCAP, // a run's first process becomes its user
		cap.KILL, cap.SYS_PTRACE, // signals to runs; whose process calls
		cap.DAC_OVERRIDE, cap.DAC_READ_SEARCH, // its own files, and the caller's working directory
		cap.CHOWN, cap.FOWNER, cap.MKNOD, // the socket's group, the run's pty and /dev
		cap.SYS_RESOURCE, cap.SYS_NICE, // the caller's limits and priority
		cap.NET_BIND_SERVICE, // an issuer at a low port
	}
}

// optional are those of kept without which the daemon does most things: limits and
// priorities of callers are then not raised, and low ports not listened on.
func optional() []cap.Value {
	return []cap.Value{cap.SYS_RESOURCE, cap.SYS_NICE, cap.NET_BIND_SERVICE}
}

// checkCapabilities refuses to start without the capabilities that runs need: a
// run would fail half-way, each in another place.
func checkCapabilities() error {
	have := cap.GetProc()
	var missing []string
	for _, v := range kept() {
		if ok, err := have.GetFlag(cap.Effective, v); (err != nil || !ok) && !slices.Contains(optional(), v) {
			missing = append(missing, v.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("root here lacks %s; start varveld with all of root's capabilities (systemd: CapabilityBoundingSet, docker: --privileged)", strings.Join(missing, ", "))
	}
	return nil
}

// dropCapabilities gives up what is not needed any more, in all threads.
func (n *node) dropCapabilities(context.Context) error {
	had := cap.GetProc()
	set := cap.NewSet()
	for _, v := range kept() {
		if ok, err := had.GetFlag(cap.Permitted, v); err != nil || !ok {
			continue
		}
		for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
			if err := set.SetFlag(flag, true, v); err != nil {
				return fmt.Errorf("prepare the set of capabilities: %w", err)
			}
		}
	}
	if err := set.SetProc(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	n.Log.Info("capabilities dropped", "kept", set.String())
	return nil
}
