package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/audit"
)

// file is one of a run's cgroup, or below it.
func (n *node) cgroupFile(run string, name ...string) string {
	return filepath.Join(append([]string{n.cgroup.Path, "varvel", "runs", run}, name...)...)
}

// put writes to a file of a cgroup, as an operator does.
func (n *node) put(file, text string) {
	n.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0); err != nil {
		n.t.Fatal(err)
	}
}

// freeze stops or continues a run, and waits until the kernel has done so.
func (n *node) freeze(run string, frozen bool) {
	n.t.Helper()
	digit := map[bool]string{true: "1", false: "0"}[frozen]
	n.put(n.cgroupFile(run, "cgroup.freeze"), digit)
	n.eventually("the run is frozen: "+digit, func() bool {
		b, err := os.ReadFile(n.cgroupFile(run, "cgroup.events"))
		return err == nil && strings.Contains(string(b), "frozen "+digit)
	})
}

func (n *node) isFrozen(run string) bool {
	n.t.Helper()
	return strings.Contains(n.must(root, n.varvel("runs", run, "-o", "json")...), `"frozen":true`) ||
		strings.Contains(n.must(root, n.varvel("runs", run, "-o", "json")...), `"frozen": true`)
}

// ends waits until no run is live, and looks for the one event of its end.
func (n *node) ends(run string) {
	n.t.Helper()
	n.eventually("the run is over", func() bool { return len(n.runIDs()) == 0 })
	n.eventually("its end is recorded", func() bool { return len(n.events("--run", run, "--kind", string(audit.KindRunEnd))) == 1 })
	if _, err := os.Stat(n.cgroupFile(run)); !os.IsNotExist(err) {
		n.t.Errorf("the cgroup of the run is still there: %v", err)
	}
}

func cgroupNode(t *testing.T) *node {
	t.Helper()
	return newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": killAgent}})
}

// TestFrozenRun: an operator stops a run. It is shown, and what ends a run ends it.
func TestFrozenRun(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(n *node, id string, h *held)
	}{
		{"revoked and killed", func(n *node, id string, _ *held) { n.must(root, n.varvel("revoke", "--kill", id)...) }},
		{"killed by its cgroup", func(n *node, id string, _ *held) { n.put(n.cgroupFile(id, "cgroup.kill"), "1") }},
		{"its command line is killed, then it is continued", func(n *node, id string, h *held) {
			_ = syscall.Kill(-h.cli.cmd.Process.Pid, syscall.SIGKILL)
			n.freeze(id, false)
		}},
		{"terminated, then continued", func(n *node, id string, h *held) {
			_ = h.cli.cmd.Process.Signal(syscall.SIGTERM)
			time.Sleep(100 * time.Millisecond) // a signal that killed it while frozen would have by now
			if ids := n.runIDs(); len(ids) != 1 {
				n.t.Errorf("runs: %v", ids)
			}
			n.freeze(id, false)
		}},
		{"the daemon stops", func(n *node, _ string, _ *held) { n.stop(); n.start() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := cgroupNode(t)
			h := n.hold("bot", "tcp4/"+at(v4(hostListed)))
			id := n.onlyRun()
			if n.isFrozen(id) {
				t.Error("control: it is shown as frozen")
			}
			n.freeze(id, true)
			if !n.isFrozen(id) {
				t.Error("it is not shown as frozen")
			}
			n.must(alice, n.run("bot", "true")...) // others are not concerned
			tt.end(n, id, h)
			n.ends(id)
			n.must(alice, n.run("bot", "true")...)
		})
	}
}

// TestRevokeFrozenRun: a revocation takes everything at once, and the run finds
// that out when it continues.
func TestRevokeFrozenRun(t *testing.T) {
	n := cgroupNode(t)
	h := n.hold("bot", "tcp4/"+at(v4(hostListed)), "tcp6/"+at(v6(hostListed)))
	id := n.onlyRun()
	n.freeze(id, true)
	n.must(root, n.varvel("revoke", id)...)
	for _, address := range []string{at(v4(hostListed)), at(v6(hostListed))} {
		n.eventually("a reset at "+address, func() bool { return n.resets(address) == 1 })
	}
	n.freeze(id, false)
	h.becomes(0, "ECONNABORTED")
	h.becomes(1, "ECONNABORTED")
	h.again(0, "EPERM")
}

// TestCgroupKill: the kernel's own way to end a cgroup ends the run, with the
// status that a shell gives it.
func TestCgroupKill(t *testing.T) {
	n := cgroupNode(t)
	b := n.begin(alice, n.run("bot", "sleep", "1000")...)
	id := n.onlyRun()
	n.childOf(id, "sleep") // it has begun
	n.eventually("the daemon knows it", func() bool { return strings.Contains(n.tail(), "run started") })
	if err := os.Remove(n.cgroupFile(id)); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the cgroup of a live run can be removed: %v", err)
	}
	n.put(n.cgroupFile(id, "cgroup.kill"), "1")
	if r := n.await(b); r.code != 137 {
		t.Errorf("want 137: %s", r)
	}
	n.ends(id)
	n.must(alice, n.run("bot", "true")...)
}

// TestChildCgroups: cgroups that an operator makes inside a run's are the run.
func TestChildCgroups(t *testing.T) {
	n := cgroupNode(t)
	bot := n.shell("bot")
	id := n.onlyRun()
	if err := os.MkdirAll(n.cgroupFile(id, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.put(n.cgroupFile(id, "a", "b", "cgroup.procs"), n.childOf(id, "sh"))
	before := n.sink.unlisted()
	for _, target := range targets(hostListed) {
		bot.sends(target, "ok")
	}
	for _, target := range targets(hostUnlisted) {
		bot.sends(target, "EPERM")
	}
	if n.sink.unlisted() != before {
		t.Error("something unlisted has arrived")
	}
	n.eventually("the refusal is the run's", func() bool { return n.refusedAt(id, v4(hostUnlisted).String()) })
	file := filepath.Join(n.dir, "shared", "held-child")
	fmt.Fprintf(bot.in, "%s act hold %s tcp4/%s &\n", bin("client"), file, at(v4(hostListed)))
	n.eventually("a connection", func() bool { b, _ := os.ReadFile(file); return string(b) == "open" })
	n.must(root, n.varvel("revoke", id)...)
	n.eventually("it is cut", func() bool { b, _ := os.ReadFile(file); return string(b) == "ECONNABORTED" })
	n.must(root, n.varvel("revoke", "--kill", id)...)
	n.ends(id)
}

// childOf is the pid of the run's process of that name.
func (n *node) childOf(run, name string) string {
	n.t.Helper()
	var found string
	n.eventually(name+" in the run", func() bool {
		b, err := os.ReadFile(n.cgroupFile(run, "cgroup.procs"))
		if err != nil {
			n.t.Fatal(err)
		}
		for _, pid := range strings.Fields(string(b)) {
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			if strings.TrimSpace(string(comm)) == name {
				found = pid
			}
		}
		return found != ""
	})
	return found
}

// TestMovedIn: root moves a process into a run. What it makes from then on is the
// run's, and it ends with the run.
func TestMovedIn(t *testing.T) {
	n := cgroupNode(t)
	b := n.begin(alice, n.run("bot", "sleep", "1000")...)
	id := n.onlyRun()
	file := filepath.Join(n.dir, "shared", "moved")
	moved := n.begin(alice, bin("client"), "act", "keep", file, "tcp4/"+at(v4(hostUnlisted)), file+"2", "udp4/"+at(v4(hostUnlisted)))
	n.becomes(kept{"control", file}, "ok")
	n.becomes(kept{"control", file + "2"}, "ok")
	n.put(n.cgroupFile(id, "cgroup.procs"), strconv.Itoa(moved.cmd.Process.Pid))
	n.becomes(kept{"a socket from before", file}, "ok") // it is not the run's
	if r := n.do(root, "sh", "-c", "echo $$ >"+n.cgroupFile(id, "cgroup.procs")+"; exec "+bin("client")+" act send x tcp4/"+at(v4(hostUnlisted))); !strings.Contains(r.stdout, "EPERM") {
		t.Errorf("a socket from after: %s", r)
	}
	n.eventually("the refusal is the run's", func() bool { return n.refusedAt(id, v4(hostUnlisted).String()) })
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGTERM)
	n.await(b)
	n.ends(id)
	if r := n.await(moved); r.code != -1 && r.code != 137 {
		t.Errorf("the process that was moved in outlives the run: %s", r)
	}
}

// TestMovedOut: root moves a process out of its run. Its sockets stay the run's;
// what it makes from then on is nobody's. It ends with its run all the same,
// because it is in the run's PID namespace.
func TestMovedOut(t *testing.T) {
	n := cgroupNode(t)
	kept := n.keep("bot", "udp4/"+at(v4(hostListed)))
	n.becomes(kept[0], "ok")
	id := n.onlyRun()
	before := n.sink.unlisted()
	pid := n.childOf(id, "client")
	n.put(filepath.Join(n.cgroup.Path, "cgroup.procs"), pid)
	n.becomes(kept[0], "ok")
	n.must(root, n.varvel("revoke", id)...)
	n.eventually("its socket is cut or refused", func() bool {
		b, _ := os.ReadFile(kept[0].file)
		return !strings.HasSuffix(string(b), " ok")
	})
	n.must(root, n.varvel("revoke", "--kill", id)...)
	n.ends(id)
	if err := syscall.Kill(atoi(pid), 0); err == nil {
		n.eventually("it has ended with its run", func() bool { return syscall.Kill(atoi(pid), 0) != nil })
	}
	if n.sink.unlisted() != before {
		t.Error("something unlisted has arrived")
	}
}

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

// TestCallerInACgroupNamespace: what the caller sees of the cgroups changes
// nothing; the run is made by the daemon, and governed.
func TestCallerInACgroupNamespace(t *testing.T) {
	n := cgroupNode(t)
	before := n.sink.unlisted()
	argv := append([]string{"unshare", "--cgroup", "--"}, n.run("bot", bin("client"), "act", "send", "x", "tcp4/"+at(v4(hostUnlisted)), "tcp4/"+at(v4(hostListed)))...)
	r := n.do(root, argv...)
	contains(t, "the run", r.stdout, "tcp4/"+at(v4(hostUnlisted))+" EPERM", "tcp4/"+at(v4(hostListed))+" ok")
	if n.sink.unlisted() != before {
		t.Error("something unlisted has arrived")
	}
}
