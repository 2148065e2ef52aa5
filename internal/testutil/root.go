package testutil

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// RequireRoot skips a test that only root can run, and says so.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run the tests as root to include it")
	}
}

// OnThread runs fn on an operating system thread of its own, which ends with
// fn. What fn changes about its thread, such as namespaces or capabilities,
// touches nothing else. Goroutines that fn starts run on other threads.
func OnThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fn()
	}()
	<-done
}

// WithCapabilities runs fn on a thread whose effective capabilities are those
// of capabilities that the process has, and no others: the constants of
// capabilities(7), such as unix.CAP_NET_ADMIN. It reports an error of its own
// or that of fn. The uid stays what it is.
func WithCapabilities(fn func() error, capabilities ...int) (err error) {
	OnThread(func() {
		if err = limitCapabilities(capabilities); err == nil {
			err = fn()
		}
	})
	return err
}

// limitCapabilities changes the effective set of the calling thread.
func limitCapabilities(capabilities []int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // capabilities 0-31, 32-63
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	sets[0].Effective, sets[1].Effective = 0, 0
	for _, c := range capabilities {
		sets[c/32].Effective |= 1 << (c % 32)
	}
	sets[0].Effective &= sets[0].Permitted
	sets[1].Effective &= sets[1].Permitted
	return os.NewSyscallError("capset", unix.Capset(&header, &sets[0]))
}
