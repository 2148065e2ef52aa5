package workload

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Frozen reports whether an operator has stopped a cgroup by its cgroup.freeze,
// or by that of one above it. What is frozen runs no instruction, and can be
// killed. A cgroup that is gone is not frozen.
func Frozen(path string) bool {
	raw, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
	return err == nil && bytes.Contains(raw, []byte("frozen 1"))
}

// IDs returns the ids of a cgroup and of all below it, which an operator may have
// made: what is born there belongs to the run as well.
func IDs(path string) ([]uint64, error) {
	var ids []uint64
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed while we looked
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		id, err := Inode(p)
		if err == nil {
			ids = append(ids, id)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for the cgroups of a run: %w", err)
	}
	return ids, nil
}

// CheckAlone refuses a place above or below the cgroups of another Varvel. The
// programs of the upper one would refuse everything to the runs of the lower one,
// and its daemon would take them for its own leftovers.
func (c *Cgroups) CheckAlone() error {
	top := filepath.Dir(c.Runs)
	for dir := filepath.Dir(top); len(dir) >= len(c.Root); dir = filepath.Dir(dir) {
		if isTop(dir) {
			return fmt.Errorf("%s would be inside the cgroups of another Varvel, at %s, which govern everything below them; set `cgroup` to a directory outside", top, dir)
		}
	}
	return filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("look for another Varvel: %w", err)
		case d.IsDir() && p != top && isTop(p):
			return fmt.Errorf("the cgroups of another Varvel, at %s, are inside %s; set `cgroup` to a directory that is neither above nor below them", p, top)
		}
		return nil
	})
}

// isTop knows the cgroup of a Varvel by what is in it.
func isTop(dir string) bool {
	for _, name := range []string{"daemon", "runs"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || !fi.IsDir() {
			return false
		}
	}
	return true
}
