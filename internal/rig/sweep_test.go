package rig

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// TestSweep takes away what is of the dead, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	// No process has an id above pid_max, which is at most 1<<22 (proc(5)).
	for _, name := range []string{"rig-" + strconv.Itoa(os.Getpid()), "rig-results", "rig-99999999", "other-99999999"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var gone []string
	remove := func(path string) error { gone = append(gone, filepath.Base(path)); return nil }
	if err := Sweep("rig-", map[string]func(string) error{dir: remove}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(gone, []string{"rig-99999999"}) {
		t.Errorf("it removed %s", gone)
	}
}
