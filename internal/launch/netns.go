package launch

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/varvel/varvel/internal/hostnet/netns"
)

// Netns returns a handle of the peer's network namespace. It stays the same
// namespace whatever the peer does later. The caller closes it.
func (p Peer) Netns() (*os.File, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(p.PID) + "/ns/net")
	if err != nil {
		return nil, fmt.Errorf("look at the peer's network namespace: %w", err)
	}
	if err := p.alive(); err != nil { // else the number may have been another's
		f.Close()
		return nil, fmt.Errorf("the peer is gone: %w", err)
	}
	return f, nil
}

// startIn starts a program in a network namespace; nil is that of this process. A
// child is born in that of the thread which makes it (network_namespaces(7)).
func startIn(ns *os.File, cmd *exec.Cmd) error {
	if ns == nil {
		return cmd.Start()
	}
	return netns.In(ns, cmd.Start)
}
