package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Sweep takes away what harnesses left behind that were killed: whatever in the
// given folders has a name of prefix and the id of a process that is no more.
func Sweep(prefix string, folders map[string]func(string) error) error {
	var errs []error
	for dir, remove := range folders {
		left, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
		errs = append(errs, err)
		for _, path := range left {
			if isDead(strings.TrimPrefix(filepath.Base(path), prefix)) {
				errs = append(errs, remove(path))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what an earlier %s has left: %w", strings.TrimSuffix(prefix, "-"), err)
	}
	return nil
}

func isDead(pid string) bool {
	if _, err := strconv.Atoi(pid); err != nil {
		return false // somebody else's
	}
	_, err := os.Stat(filepath.Join("/proc", pid))
	return errors.Is(err, os.ErrNotExist)
}
