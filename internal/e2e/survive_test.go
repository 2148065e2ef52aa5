package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/testutil"
)

// away ends the daemon in some way, lets something happen, and starts another. A
// command can act before the daemon has noted that it has begun; that is waited for.
func (n *node) away(end func(), meanwhile func()) {
	n.t.Helper()
	n.allBegun()
	end()
	if meanwhile != nil {
		meanwhile()
	}
	n.start()
}

// allBegun waits until every run has begun: from then on it outlives the daemon.
func (n *node) allBegun() {
	n.t.Helper()
	n.eventually("every run is noted as started", func() bool {
		files, _ := filepath.Glob(filepath.Join(n.dir, "run", "runs", "*", "run.json"))
		for _, file := range files {
			if b, err := os.ReadFile(file); err == nil && !strings.Contains(string(b), `"stage":"started"`) {
				return false
			}
		}
		return true
	})
}

// ends are the ways in which a daemon is followed by another.
func (n *node) ways() map[string]func() {
	return map[string]func(){"killed": n.kill, "handed over": n.handOver}
}

// survivor is a node with an agent that may reach the listed machine and a name.
func survivor(t *testing.T) *node {
	t.Helper()
	return newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": killAgent}})
}

// adoptions are the events that say that a run goes on.
func (n *node) adoptions(run string) []audit.Event {
	n.t.Helper()
	return n.events("--kind", "run.adopt", "--run", run)
}

// TestNamesWaitForTheNextDaemon: what a run asks for, and where it connects to by
// name, while no daemon is there, works when one is. What is denied is denied at once.
func TestNamesWaitForTheNextDaemon(t *testing.T) {
	n := survivor(t)
	for how, end := range n.ways() {
		payload := "late-" + how[:4]
		x := n.talk(alice, n.run("bot", bin("client"), "act", "later", payload, "exact.e2e.test:7000")...)
		x.says("resolved")
		id := n.onlyRun()
		n.away(end, func() {
			x.tell("go")
			x.says("trying")
			n.eventually("the connection waits", func() bool { return n.waitingAtDoors() > 0 })
			if n.sink.count(at(v4(hostNamed)), payload) > 0 {
				t.Errorf("%s: without a daemon it arrived", how)
			}
		})
		x.says("worked")
		x.says("trying")
		x.says("worked")
		x.says("ok")
		x.ends(0)
		if got := n.sink.count(at(v4(hostNamed)), payload) + n.sink.count(at(v6(hostNamed)), payload); got != 2 {
			t.Errorf("%s: %d arrived", how, got)
		}
		if got := n.adoptions(id); len(got) != 1 || got[0].Actor != "spiffe://e2e.test/agent/bot" || got[0].StartedBy == nil || got[0].StartedBy.UID != uint32(alice.id) {
			t.Errorf("%s: adopted %+v", how, got)
		}
		n.eventually("the run's end is recorded", func() bool { return len(n.events("--kind", "run.end", "--run", id)) == 1 })
		for _, e := range n.events("--run", id) {
			if e.Actor != "spiffe://e2e.test/agent/bot" {
				t.Errorf("%s: an event of the run has the actor %q: %+v", how, e.Actor, e)
			}
		}
	}
}

// waitingAtDoors counts connections that nobody has accepted: of a listener the
// second number is the length of its backlog (proc_net_tcp, rx_queue).
func (n *node) waitingAtDoors() int { return waitingAtDoors(n.realm.node) }

func waitingAtDoors(at *testutil.NetNS) int {
	total := 0
	_ = at.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			b, _ := os.ReadFile("/proc/thread-self/net/" + name)
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if len(f) > 4 && f[3] == "0A" {
					_, rx, _ := strings.Cut(f[4], ":")
					k, _ := strconv.ParseInt(rx, 16, 64)
					total += int(k)
				}
			}
		}
		return nil
	})
	return total
}

// TestRulesHoldWithoutADaemon and with the next one.
func TestRulesHoldWithoutADaemon(t *testing.T) {
	n := survivor(t)
	script := `echo ready; while read what to; do ` + bin("client") + ` act send "$what" "$to"; done; exit 5`
	x := n.talk(alice, n.run("bot", "sh", "-c", script)...)
	x.says("ready")
	try := func(when string) {
		for _, target := range targets(hostListed) {
			x.tell(when + " " + target)
			x.says(target + " ok")
			x.says("ok")
		}
		for _, target := range targets(hostUnlisted) {
			x.tell(when + " " + target)
			x.says(target + " EPERM")
			x.says("EPERM")
		}
	}
	id := n.onlyRun()
	try("before")
	for how, end := range n.ways() {
		n.away(end, func() { try("while-" + how[:4]) })
		if got := n.onlyRun(); got != id {
			t.Errorf("%s: the run is %s now", how, got)
		}
		try("after-" + how[:4])
	}
	if n.sink.unlisted() > 0 {
		t.Error("something unlisted has arrived")
	}
	x.in.Close()
	x.ends(5)
	denied := 0
	for _, e := range n.events("--kind", "connect", "--run", id) {
		if e.Effect == "deny" && e.Agent == "bot" {
			denied += int(max(e.Count, 1))
		}
	}
	// What a daemon has read and not yet written when it is killed is lost in detail,
	// but not in number.
	want := 5 * len(targets(hostUnlisted))
	if denied < want/2 || denied > want {
		t.Errorf("%d denials are recorded, and %d attempts were denied", denied, want)
	}
	n.eventually("the end is recorded", func() bool { return len(n.events("--kind", "run.end", "--run", id)) == 1 })
	counted := 0
	for name, count := range n.events("--kind", "run.end", "--run", id)[0].Counts {
		if strings.HasPrefix(name, "refused.") {
			counted += int(count)
		}
	}
	if counted != want {
		t.Errorf("%d denials are counted, and %d attempts were denied", counted, want)
	}
}

// TestATerminalOutlivesTheDaemon: keys, size, Ctrl-C and the exit status.
func TestATerminalOutlivesTheDaemon(t *testing.T) {
	n := survivor(t)
	for how, end := range n.ways() {
		x := n.terminal(alice, n.run("bot", "sh", "-c",
			`trap 'echo interrupted' INT; echo ready; read a; echo "got $a"; b=; while [ -z "$b" ]; do read b; done; echo "got $b"; while read c; do [ "$c" = end ] && exit 42; stty size; done`)...)
		x.sees("ready")
		n.away(end, func() {
			x.types("one\r")
			x.sees("got one")
		})
		x.types("\x03")
		x.sees("interrupted")
		if err := unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
			t.Fatal(err)
		}
		_ = x.cmd.Process.Signal(syscall.SIGWINCH) // as the kernel does to the foreground group
		x.types("two\r")
		x.sees("got two")
		// Sizes and keys come by different ways.
		n.eventually(how+": the size arrives", func() bool {
			x.types("size\r")
			time.Sleep(50 * time.Millisecond)
			return strings.Contains(x.text(), "33 77")
		})
		x.types("end\r")
		if r := x.end(); r.code != 42 {
			t.Errorf("%s: %s", how, r)
		}
	}
}

// TestWhatHappensWhileNoDaemonIsThere: the next one makes up for it.
func TestWhatHappensWhileNoDaemonIsThere(t *testing.T) {
	n := survivor(t)
	for how, end := range n.ways() {
		x := n.talk(alice, n.run("bot", "sh", "-c", `echo ready; read x; exit 9`)...)
		x.says("ready")
		n.away(end, func() { x.tell("go") })
		x.ends(9)

		x = n.talk(alice, n.run("bot", "sh", "-c", `echo ready; read x; kill -USR1 $$; sleep 60`)...)
		x.says("ready")
		n.away(end, func() { x.tell("go") })
		x.ends(128 + int(syscall.SIGUSR1))

		x = n.talk(alice, n.run("bot", "sh", "-c", `trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.1; done`)...)
		x.says("ready")
		n.away(end, func() { _ = x.cmd.Process.Signal(syscall.SIGTERM) })
		x.says("told")
		x.ends(3)

		x = n.talk(alice, n.run("bot", "sh", "-c", `trap '' PIPE; echo ready; while :; do sleep 0.1; done`)...)
		x.says("ready")
		id := n.onlyRun()
		n.away(end, func() {
			_ = x.cmd.Process.Kill()
			_ = x.cmd.Wait()
		})
		n.eventually(how+": a run for which nobody waits is hung up", func() bool { return len(n.runIDs()) == 0 })
		if got := n.adoptions(id); len(got) != 1 {
			t.Errorf("%s: adopted %v", how, got)
		}
	}
}

// TestStoppedDaemon: a daemon that is stopped for a while denies and allows as
// before, and what waits for it goes on.
func TestStoppedDaemon(t *testing.T) {
	n := survivor(t)
	x := n.talk(alice, n.run("bot", "sh", "-c", `echo ready; read x; `+bin("client")+` act later stopped exact.e2e.test:7000; exit 6`)...)
	x.says("ready")
	x.tell("go")
	x.says("resolved")
	pid := n.pid()
	_ = unix.Kill(pid, unix.SIGSTOP)
	x.tell("go")
	x.says("trying")
	n.eventually("the connection waits", func() bool { return n.waitingAtDoors() > 0 })
	_ = unix.Kill(pid, unix.SIGCONT)
	x.says("worked")
	x.says("trying")
	_ = unix.Kill(n.pid(), unix.SIGSTOP)
	n.away(n.kill, nil) // stopped, then killed
	x.says("worked")
	x.says("ok")
	x.ends(6)
}

// pid is the daemon's, whose parent may be nsenter's.
func (n *node) pid() int { return n.daemon.Process.Pid }

// TestTheKeeperDies: the daemon starts another and gives it everything.
func TestTheKeeperDies(t *testing.T) {
	n := survivor(t)
	x := n.talk(alice, n.run("bot", "sh", "-c", `echo ready; read x; `+bin("client")+` act later keeper exact.e2e.test:7000; exit 4`)...)
	x.says("ready")
	first := n.keeperPID()
	n.killKeeper()
	n.eventually("there is another keeper", func() bool { return n.keeperPID() != first && n.keeperPID() != 0 })
	n.eventually("it holds everything", func() bool {
		said := n.events("--kind", "health")
		return len(said) >= 2 && said[len(said)-1].Activity == "well"
	})
	x.tell("go")
	x.says("resolved")
	n.away(n.kill, func() {
		x.tell("go")
		x.says("trying")
	})
	x.says("worked")
	x.says("trying")
	x.says("worked")
	x.says("ok")
	x.ends(4)
}

// keeperPID is that of the keeper, or 0.
func (n *node) keeperPID() int {
	b, _ := os.ReadFile(filepath.Join(n.cgroup.Path, "varvel", "keeper", "cgroup.procs"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// TestDaemonAndKeeperDie: nobody holds the run's ends, so its command is hung up.
// What ignores that goes on governed, and is ended by the next daemon, which says so.
func TestDaemonAndKeeperDie(t *testing.T) {
	n := survivor(t)
	x := n.talk(alice, n.run("bot", "nohup", bin("client"), "act", "flood", filepath.Join(n.dir, "shared", "progress"), "both",
		"tcp4/"+at(v4(hostUnlisted)), "tcp4/"+at(v4(hostListed)))...)
	n.eventually("the flood flows", func() bool { _, worked := n.progress(filepath.Join(n.dir, "shared", "progress")); return worked > 3 })
	id := n.onlyRun()
	n.stopKeeper() // so that it is not replaced in between
	n.kill()
	n.killKeeper()
	_, before := n.progress(filepath.Join(n.dir, "shared", "progress"))
	n.eventually("the flood goes on", func() bool {
		_, worked := n.progress(filepath.Join(n.dir, "shared", "progress"))
		return worked > before+3
	})
	n.start()
	x.ends(125) // the pipe that it has is the flood's too
	if n.sink.unlisted() > 0 {
		t.Error("something unlisted has arrived")
	}
	ended := n.events("--kind", "run.end", "--run", id)
	if len(ended) != 1 || ended[0].Activity != "daemon-restarted" || !strings.Contains(ended[0].Message, "the keeper had ended too") || ended[0].Agent != "bot" {
		t.Errorf("the end is recorded as %+v", ended)
	}
	if ids := n.runIDs(); len(ids) > 0 {
		t.Errorf("live runs: %v", ids)
	}
}

func (n *node) stopKeeper() {
	n.t.Helper()
	pid := n.keeperPID()
	if pid == 0 {
		n.t.Fatal("there is no keeper")
	}
	_ = unix.Kill(pid, unix.SIGSTOP)
}

func (n *node) killKeeper() {
	n.t.Helper()
	pid := n.keeperPID()
	if pid == 0 {
		n.t.Fatal("there is no keeper")
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	n.eventually("the keeper has ended", func() bool { return n.keeperPID() != pid })
}
