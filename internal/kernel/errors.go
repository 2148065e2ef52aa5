package kernel

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

// ErrFull is returned when a map of the kernel has no room left. Nothing is
// evicted to make some.
var ErrFull = ruleset.ErrFull

// ErrShare is returned when a run has as many entries of a map as one run may have.
// Others still have room.
var ErrShare = ruleset.ErrShare

// full explains E2BIG, which is what maps answer when they are full.
func full(err error, table string) error {
	if errors.Is(err, syscall.E2BIG) || errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: %s", ErrFull, table)
	}
	return err
}

// absent makes "it was not there" a success.
func absent(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// patiently does something again while the kernel has no memory for it. Entries for
// each CPU are made from memory that the kernel only prepares in the background
// (mm/percpu.c), so many new runs at once can be faster than it.
func patiently(do func() error) (err error) {
	const tries, pause = 40, 5 * time.Millisecond
	for range tries {
		if err = do(); !errors.Is(err, syscall.ENOMEM) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}
