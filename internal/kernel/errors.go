package kernel

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
)

// ErrFull is returned when a map of the kernel has no room left. Nothing is
// evicted to make some.
var ErrFull = errors.New("the kernel's table is full")

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
