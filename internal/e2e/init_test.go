package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// initOf returns the program of init of the only run.
func (n *node) initOf() (exe string) {
	n.t.Helper()
	_ = filepath.WalkDir(n.cgroup.Path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		pids, _ := os.ReadFile(path)
		for _, pid := range strings.Fields(string(pids)) {
			if cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline"); string(cmdline) == "varveld-init\x00" {
				exe, err = os.Readlink("/proc/" + pid + "/exe")
			}
		}
		return err
	})
	return exe
}

// binWith makes a folder with the programs in which a copy of varvel-init was
// changed.
func binWith(t *testing.T, change func(path string) error) {
	t.Helper()
	dir := tempDir(t)
	for _, name := range []string{"varveld", "varvel", "client"} {
		if err := os.Symlink(bin(name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// The daemon looks beside its own file, so that one has to be here.
	for _, name := range []string{"varveld", "varvel-init"} {
		text, err := os.ReadFile(bin(name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		_ = os.Remove(path)
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := change(filepath.Join(dir, "varvel-init")); err != nil {
		t.Fatal(err)
	}
	t.Setenv(binEnv, dir)
}

// TestProgramOfInit: runs begin with the small program beside varveld, if nobody
// but root can change it and it is of the same build. Else they begin with varveld,
// governed all the same, and the operator is told.
func TestProgramOfInit(t *testing.T) {
	tests := []struct {
		name   string
		change func(path string) error
		init   string
		status string
	}{
		{"as it is installed", func(string) error { return nil }, "varvel-init", "control varvel-init: on"},
		{"writable by its group", func(path string) error { return os.Chmod(path, 0o775) }, "varveld", "can be written by its group"},
		{"of another build", func(path string) error {
			return os.WriteFile(path, []byte("#!/bin/sh\necho varvel v0.0.1 go1.0 0\n"), 0o755)
		}, "varveld", "another build"},
		{"absent", os.Remove, "varveld", "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require(t)
			binWith(t, tt.change)
			n := cgroupNode(t)
			s := n.shell("bot")
			s.sends("tcp4/"+at(v4(hostListed)), "ok")
			s.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
			if got := n.initOf(); got != bin(tt.init) {
				t.Errorf("init is %q, want %s", got, bin(tt.init))
			}
			s.end()
			if said := n.must(root, n.varvel("status")...); !strings.Contains(said, tt.status) {
				t.Errorf("status says %q, want %q", said, tt.status)
			}
			log, err := os.ReadFile(n.log)
			if err != nil {
				t.Fatal(err)
			}
			if told := strings.Contains(string(log), "instead of varvel-init"); told != (tt.init == "varveld") {
				t.Errorf("the log tells of another init: %v", told)
			}
		})
	}
}
