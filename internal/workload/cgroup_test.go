package workload

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFindCgroup2(t *testing.T) {
	const hybrid = `24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
30 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
34 24 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`
	const unified = "30 22 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	for _, tt := range []struct{ name, mounts, path, want, problem string }{
		{"hybrid", hybrid, "", "/sys/fs/cgroup/unified", ""},
		{"unified", unified, "", "/sys/fs/cgroup", ""},
		{"below", hybrid, "/sys/fs/cgroup/unified/a/b", "/sys/fs/cgroup/unified", ""},
		{"beside", hybrid, "/sys/fs/cgroup/unifiedx", "", "is not in a cgroup v2 mount"},
		{"in v1", hybrid, "/sys/fs/cgroup/cpu", "", "is not in a cgroup v2 mount"},
		{"none", "24 1 0:22 / / rw - ext4 x rw\n", "", "", "no cgroup v2 is mounted"},
	} {
		file := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(file, []byte(tt.mounts), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := findCgroup2(file, tt.path)
		if got != tt.want || (tt.problem == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%s: got %q, %v; want %q, %q", tt.name, got, err, tt.want, tt.problem)
		}
	}
}

func openTestCgroups(t *testing.T) *Cgroups {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root; this process is not root")
	}
	c, err := OpenCgroups("", fmt.Sprintf("varvel-workload-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Remove(filepath.Dir(c.Runs)); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestLifeOfARunsCgroup(t *testing.T) {
	c := openTestCgroups(t)
	path, id, err := c.Create("run_x")
	if err != nil || id == 0 {
		t.Fatal(id, err)
	}
	if _, _, err := c.Create("run_x"); err == nil {
		t.Error("a cgroup was used twice")
	}
	cmd := sleepIn(t, path)
	if dir, err := c.RunOf(cmd.Process.Pid); err != nil || dir != path {
		t.Errorf("the process is in %q, %v; want %q", dir, err, path)
	}
	if dir, err := c.RunOf(os.Getpid()); err != nil || dir != "" {
		t.Errorf("this process is in %q, %v; want none", dir, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
	defer cancel()
	if err := WaitEmpty(ctx, path); err == nil {
		t.Error("a cgroup with a process counts as empty")
	}
	if left, err := c.Leftovers(); err != nil || len(left) != 1 || left[0] != path {
		t.Errorf("leftovers %v, %v", left, err)
	}
	if err := Kill(path); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := WaitEmpty(context.Background(), path); err != nil {
		t.Error(err)
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if err := WaitEmpty(context.Background(), path); err != nil {
		t.Errorf("a cgroup that is gone is not empty: %v", err)
	}
}

func sleepIn(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestLevelCountsFromTheRoot(t *testing.T) {
	c := &Cgroups{Root: "/sys/fs/cgroup", Runs: "/sys/fs/cgroup/varvel/runs"}
	if got := c.Level(); got != 3 {
		t.Errorf("level %d, want 3: /varvel/runs/run_x", got)
	}
	c.Runs = "/sys/fs/cgroup/a/b/varvel/runs"
	if got := c.Level(); got != 5 {
		t.Errorf("level %d, want 5", got)
	}
}

func TestCheckAlone(t *testing.T) {
	c := openTestCgroups(t)
	if err := c.CheckAlone(); err != nil {
		t.Errorf("its own cgroups: %v", err)
	}
	run, _, err := c.Create("run_x")
	if err != nil {
		t.Fatal(err)
	}
	below := &Cgroups{Root: c.Root, Daemon: filepath.Join(run, "varvel", "daemon"), Runs: filepath.Join(run, "varvel", "runs")}
	if err := below.CheckAlone(); err == nil || !strings.Contains(err.Error(), "inside the cgroups of another Varvel") {
		t.Errorf("below another: %v", err)
	}
	if err := c.CheckAlone(); err != nil {
		t.Errorf("with a run that has nothing in it: %v", err)
	}
	if err := below.Make(); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckAlone(); err == nil || !strings.Contains(err.Error(), "neither above nor below") {
		t.Errorf("above another: %v", err)
	}
}

func TestStateOfACgroup(t *testing.T) {
	c := openTestCgroups(t)
	run, id, err := c.Create("run_x")
	if err != nil {
		t.Fatal(err)
	}
	child := filepath.Join(run, "a", "b")
	if err := os.MkdirAll(child, 0o755); err != nil {
		t.Fatal(err)
	}
	ids, err := IDs(run)
	if err != nil || len(ids) != 3 || ids[0] != id {
		t.Errorf("ids %v, %v; want 3, the first %d", ids, err, id)
	}
	if last, err := Inode(child); err != nil || ids[2] != last {
		t.Errorf("ids %v, %v; want the last %d", ids, err, last)
	}
	if Frozen(run) {
		t.Error("a fresh cgroup is frozen")
	}
	if err := os.WriteFile(filepath.Join(run, "cgroup.freeze"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	for tries := 0; !Frozen(child) && tries < 100; tries++ {
		time.Sleep(10 * time.Millisecond)
	}
	if !Frozen(run) || !Frozen(child) {
		t.Error("a frozen cgroup, or one below it, is not known as such")
	}
	if Frozen(filepath.Join(c.Runs, "nothing")) {
		t.Error("what is not there is frozen")
	}
	if ids, err := IDs(filepath.Join(c.Runs, "nothing")); err != nil || len(ids) != 0 {
		t.Errorf("of nothing: %v, %v", ids, err)
	}
}
