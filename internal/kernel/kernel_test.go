package kernel

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/workload"
)

// testEnv is a kernel of its own for one test: cgroups, bpffs pins, programs.
type testEnv struct {
	*Kernel
	cgroups *workload.Cgroups
	cfg     Config
	ended   bool
}

func newTestEnv(t testing.TB) *testEnv {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loading programs into the kernel needs root; this process is not root")
	}
	mountBPFFS(t)
	privateNetNS(t)
	name := fmt.Sprintf("varvel-test-%d", os.Getpid())
	c, err := workload.OpenCgroups("", name)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.JoinDaemon(); err != nil {
		t.Fatal(err)
	}
	pins := filepath.Join("/sys/fs/bpf", name)
	if err := Unpin(pins); err != nil {
		t.Fatal(err)
	}
	e := &testEnv{cgroups: c, cfg: Config{
		Runs: c.Runs, Daemon: c.Daemon, Level: c.Level(), Pins: pins,
		Log: slog.New(slog.DiscardHandler),
	}}
	if e.Kernel, err = Open(e.cfg); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { e.end(t) })
	return e
}

// end takes everything away: at the end of the test, or before it makes another.
func (e *testEnv) end(t testing.TB) {
	t.Helper()
	if e.ended {
		return
	}
	e.ended = true
	e.Close()
	if err := Unpin(e.cfg.Pins); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(e.cgroups.Root, "cgroup.procs"), []byte("0"), 0); err != nil {
		t.Error(err)
	}
	if err := workload.Remove(filepath.Dir(e.cgroups.Runs)); err != nil {
		t.Error(err)
	}
}

// privateNetNS gives this goroutine's thread, and what is started from it, a
// network namespace with the addresses 192.0.2.1 and 2001:db8::1.
func privateNetNS(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"link set lo up", "link add veth0 type veth peer name veth1", "link set veth0 up", "link set veth1 up",
		"addr add 192.0.2.1/24 dev veth0", "addr add 2001:db8::1/64 dev veth0 nodad",
		"route add default dev veth0", "-6 route add default dev veth0",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
}

func mountBPFFS(t testing.TB) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/bpf", &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
}

// newRun makes a cgroup that the kernel knows as a run.
func (e *testEnv) newRun(t testing.TB, name string, observe bool) (path string, id uint64) {
	t.Helper()
	path, id, err := e.cgroups.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.AddRun(id, observe); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if e.ended {
			return
		}
		if err := e.RemoveRun(id); err != nil {
			t.Error(err)
		}
		if err := workload.Remove(path); err != nil {
			t.Error(err)
		}
	})
	return path, id
}

// in does something as a process of that cgroup, or of none; see testdata/act.
func in(t testing.TB, cgroup, action string, args ...string) string {
	t.Helper()
	cmd := exec.Command(actor(t), append([]string{action}, args...)...)
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", action, args, err, out)
	}
	return string(out)
}
