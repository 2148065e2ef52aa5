package launch

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
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
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace of the run: %w", err)
			return
		}
		done <- cmd.Start()
	}()
	return <-done
}
