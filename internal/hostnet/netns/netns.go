// Package netns does things in other network namespaces.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// In runs fn in a network namespace, on a thread of its own that ends with it. A
// socket that fn opens stays in the namespace wherever it is used, and a process
// that fn starts is born in it. fn must not leave that to another goroutine, and
// should not wait: its thread waits with it.
func In(ns *os.File, fn func() error) error {
	done := make(chan error, 1)
	go onThread(done, func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return fn()
	})
	return <-done
}

// onThread leaves its thread locked, so that the runtime ends it. It cannot end
// the process's first one, and that would stay in the namespace: /proc/self would
// tell everybody of the wrong one. So fn is never run there.
func onThread(done chan<- error, fn func() error) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		done <- fn()
		return
	}
	defer runtime.UnlockOSThread()
	elsewhere := make(chan error, 1)
	go onThread(elsewhere, fn) // this thread is taken, so it is another
	done <- <-elsewhere
}
