package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// start starts the daemon and waits until it is ready.
func (n *node) start() {
	n.t.Helper()
	n.launch()
	n.eventually("the daemon is ready", func() bool {
		if !n.alive() {
			n.t.Fatalf("the daemon has ended: %s", n.tail())
		}
		b, _ := os.ReadFile(n.log)
		return strings.Contains(string(b), "varveld is ready")
	})
}

// launch starts the daemon.
func (n *node) launch() {
	n.t.Helper()
	out, err := os.Create(n.log)
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	n.daemon = n.command(context.Background(), root, bin("varveld"), "--config", filepath.Join(n.dir, "config"))
	n.daemon.Stdout, n.daemon.Stderr = out, out
	n.fork(n.daemon)
	cmd, ended := n.daemon, make(chan struct{})
	n.ended = ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
}

// try starts a daemon that is not expected to live, and returns what it says.
func (n *node) try(as user, args ...string) result {
	n.t.Helper()
	if len(args) == 0 {
		args = []string{"--config", filepath.Join(n.dir, "config")}
	}
	return n.do(as, append([]string{"timeout", "20", bin("varveld")}, args...)...)
}

func (n *node) alive() bool {
	select {
	case <-n.ended:
		return false
	default:
		return n.daemon != nil
	}
}

// kill ends the daemon without a chance to do anything.
func (n *node) kill() {
	n.t.Helper()
	_ = n.daemon.Process.Kill()
	<-n.ended
	n.daemon = nil
}

// stop ends the daemon in order, and expects that it succeeds.
func (n *node) stop() { n.t.Helper(); n.endBy(syscall.SIGTERM) }

// handOver ends the daemon as before an upgrade.
func (n *node) handOver() { n.t.Helper(); n.endBy(syscall.SIGUSR2) }

func (n *node) endBy(sig syscall.Signal) {
	n.t.Helper()
	cmd := n.daemon
	n.daemon = nil
	_ = cmd.Process.Signal(sig)
	select {
	case <-n.ended:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-n.ended
		n.t.Fatalf("the daemon did not end within %s:\n%s", patience, n.tail())
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		n.t.Errorf("the daemon ended with %d:\n%s", code, n.tail())
	}
}

// end stops the daemon if it runs, and looks for what is left.
func (n *node) end() {
	if n.taken != nil {
		n.taken.Close()
	}
	if n.daemon != nil {
		n.stop()
	}
	if n.t.Failed() {
		n.t.Logf("the daemon's log:\n%s", n.tail())
		n.clear()
		return
	}
	n.nothingLeft()
	n.clear()
}

// clear takes away what a test that has failed may have left.
func (n *node) clear() {
	_ = os.WriteFile(filepath.Join(n.cgroup.Path, "cgroup.kill"), []byte("1"), 0)
	n.eventually("the node is cleared", func() bool {
		var dirs []string
		_ = filepath.WalkDir(n.cgroup.Path, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && path != n.cgroup.Path {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			_ = os.Remove(dir)
		}
		return len(dirs) == 0
	})
}

// nothingLeft fails the test if anything of Varvel is left on the node.
func (n *node) nothingLeft() {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	left := n.leftovers()
	for len(left) > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
		left = n.leftovers()
	}
	if len(left) > 0 {
		n.t.Errorf("left behind:\n\t%s", strings.Join(left, "\n\t"))
	}
}

func (n *node) leftovers() []string {
	var left []string
	_ = filepath.WalkDir(n.cgroup.Path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != n.cgroup.Path {
			left = append(left, "cgroup "+path)
		}
		return nil
	})
	left = append(left, n.processes()...)
	left = append(left, n.listeners()...)
	for line := range strings.Lines(n.mountinfo()) {
		// The bpffs that the daemon has mounted is the machine's from then on.
		if !strings.Contains(n.before, line) && !strings.Contains(line, " "+filepath.Join(n.dir, "bpf")+" ") {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	for _, pin := range n.pins() {
		left = append(left, "pin "+pin)
	}
	doors, _ := filepath.Glob(filepath.Join(n.dir, "run", "*.sock"))
	return append(left, doors...)
}

// pins is what Varvel has in its bpffs.
func (n *node) pins() []string {
	n.t.Helper()
	// Every bpffs has the two files that end with .debug (kernel/bpf/inode.c).
	b := n.begin(root, "find", filepath.Join(n.dir, "bpf"), "-mindepth", "1", "!", "-name", "*.debug")
	return strings.Fields(n.await(b).stdout)
}

// processes are those in the node's network namespace.
func (n *node) processes() []string {
	var want string
	var found []string
	_ = n.realm.node.Do(func() (err error) {
		want, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		// The first thread of this program may have been in the namespace.
		if dir == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		if ns, err := os.Readlink(dir + "/ns/net"); err == nil && ns == want {
			line, _ := os.ReadFile(dir + "/cmdline")
			found = append(found, fmt.Sprintf("process %s: %s", filepath.Base(dir), strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return found
}

// listeners are the sockets on the node that somebody could reach.
func (n *node) listeners() []string {
	var found []string
	_ = n.realm.node.Do(func() error {
		for name, state := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) > 3 && f[3] == state {
					found = append(found, fmt.Sprintf("%s listener %s", name, f[1]))
				}
			}
		}
		return nil
	})
	return found
}
