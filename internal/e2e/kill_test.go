package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/audit"
)

// killAgent may reach one machine by address and one by name.
const killAgent = `agent: bot
egress:
  - { cidr: 192.0.2.10/32, ports: [7000], protocol: any }
  - { cidr: "2001:db8::a/128", ports: [7000], protocol: any }
  - { name: exact.e2e.test, ports: [7000], opaque: true }
launch: { users: [nobody] }
`

// targets are all the ways to a machine.
func targets(h byte) []string {
	a, b := at(v4(h)), at(v6(h))
	return []string{
		"tcp4/" + a, "tcp6/" + b, "mapped/" + a,
		"udp4/" + a, "udp6/" + b, "sendto4/" + a, "sendto6/" + b,
	}
}

// TestControls shows that every attempt of the kill test arrives if nothing
// governs it: as an unrelated process on the same node, while a daemon runs.
func TestControls(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": killAgent}})
	for _, target := range append(targets(hostUnlisted), targets(hostListed)...) {
		n.must(alice, bin("client"), "act", "send", "control", target)
	}
	n.must(alice, bin("client"), "act", "send", "control.exfil.test", "dns4/192.0.2.53:53", "dns6/[2001:db8::35]:53")
	if n.sink.unlisted() == 0 || n.asked(t, "control.exfil.test") != 2 {
		t.Error("the receivers have not seen the controls")
	}
	for _, target := range targets(hostListed) {
		n.must(alice, n.run("bot", bin("client"), "act", "send", "listed", target)...)
	}
	before := n.sink.unlisted()
	for _, target := range targets(hostUnlisted) {
		r := n.do(alice, n.run("bot", bin("client"), "act", "send", "x", target)...)
		if r.code != 1 || !strings.Contains(r.stdout, "EPERM") {
			t.Errorf("%s: %s", target, r)
		}
	}
	if n.sink.unlisted() != before {
		t.Error("something unlisted has arrived")
	}
}

// TestKilledDaemon kills the daemon at random moments while a run makes allowed
// and denied attempts, and brings it back. A run whose command had begun goes on.
func TestKilledDaemon(t *testing.T) {
	kills := 20
	if long() {
		kills = 200
	}
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": killAgent}})
	var made, worked int
	for i := range kills {
		m, w := n.killOnce(i)
		made, worked = made+m, worked+w
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills: after them, without a daemon, the runs made %d attempts, of which %d worked", kills, made, worked)
	if made == 0 || worked == 0 {
		t.Error("no run made an attempt without the daemon: the test shows nothing")
	}
	n.eachRunEnds()
	n.must(alice, n.run("bot", bin("client"), "act", "send", "again", "tcp4/"+at(v4(hostListed)))...)
	n.must(root, n.varvel("audit", "verify", "--dir", filepath.Join(n.dir, "state", "audit"))...)
}

// TestKilledWhileStarting: what a daemon has half done is no obstacle for the next.
func TestKilledWhileStarting(t *testing.T) {
	kills := 10
	if long() {
		kills = 100
	}
	n := newRealm(t).newNode(t, options{manual: true, files: map[string]string{"agents.d/bot.yaml": killAgent}})
	for range kills {
		n.launch()
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		n.kill()
	}
	n.start()
	n.nothingRuns()
	n.must(alice, n.run("bot", bin("client"), "act", "send", "again", "tcp4/"+at(v4(hostListed)), "tcp/exact.e2e.test:7000")...)
	n.must(root, n.varvel("audit", "verify", "--dir", filepath.Join(n.dir, "state", "audit"))...)
}

// killOnce starts a run that floods, kills the daemon, and starts another. It
// reports how many attempts the run made in between, and how many of them worked.
func (n *node) killOnce(i int) (made, worked int) {
	n.t.Helper()
	progress := filepath.Join(n.dir, "shared", fmt.Sprintf("progress-%d", i))
	flood := []string{bin("client"), "act", "flood", progress, "flood.exfil.test", "tcp/exact.e2e.test:7000",
		"dns4/192.0.2.53:53", "dns6/[2001:db8::35]:53", "dns4/192.0.2.66:53"}
	if i%5 > 0 { // the others would obey a hang-up
		flood = append([]string{"nohup"}, flood...)
	}
	flood = append(append(flood, targets(hostUnlisted)...), targets(hostListed)...)
	cli := n.command(context.Background(), alice, n.run("bot", flood...)...)
	n.fork(cli) // without pipes, which would outlive it
	flows := i%2 == 0
	if flows {
		// In full flight; otherwise somewhere in the start of the run.
		n.eventually("the flood flows", func() bool { _, worked := n.progress(progress); return worked > 10 })
	}
	time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
	n.kill()
	madeBefore, workedBefore := n.progress(progress)
	time.Sleep(time.Duration(100+rand.IntN(200)) * time.Millisecond)
	made, worked = n.progress(progress)
	n.nothingUnlisted()
	n.start()
	n.afterRestart(progress, flows)
	_ = cli.Process.Signal(unix.SIGTERM)
	_ = cli.Wait()
	n.nothingRuns()
	return made - madeBefore, worked - workedBefore
}

// progress is how many attempts a flood has made, and how many worked.
func (n *node) progress(file string) (made, worked int) {
	b, _ := os.ReadFile(file)
	_, _ = fmt.Sscan(string(b), &made, &worked)
	return made, worked
}

func (n *node) nothingUnlisted() {
	n.t.Helper()
	if got := n.sink.unlisted(); got > 0 {
		n.t.Errorf("%d unlisted attempts arrived", got)
	}
	if got := n.asked(n.t, "flood.exfil.test"); got > 0 {
		n.t.Errorf("%d unlisted questions arrived", got)
	}
}

// afterRestart checks that the new daemon has the run, if its command had begun,
// and that what it may reach by name works again.
func (n *node) afterRestart(progress string, flows bool) {
	n.t.Helper()
	ids := n.runIDs()
	if flows && len(ids) != 1 {
		n.t.Errorf("the new daemon has the runs %v\n%s", ids, n.tail())
		return
	}
	if len(ids) == 1 {
		n.eventually("the run goes on", func() bool {
			before := n.sink.count(at(v4(hostNamed)), "flood") + n.sink.count(at(v6(hostNamed)), "flood")
			time.Sleep(50 * time.Millisecond)
			return n.sink.count(at(v4(hostNamed)), "flood")+n.sink.count(at(v6(hostNamed)), "flood") > before
		})
	}
	n.nothingUnlisted()
}

// nothingRuns checks that every run ends, with all that it had.
func (n *node) nothingRuns() {
	n.t.Helper()
	n.eventually("there is no run", func() bool { return len(n.runIDs()) == 0 })
	runs, err := os.ReadDir(filepath.Join(n.cgroup.Path, "varvel", "runs"))
	if err != nil {
		n.t.Error(err)
	}
	for _, r := range runs {
		if r.IsDir() {
			n.t.Errorf("the cgroup %s of a run is left", r.Name())
		}
	}
	for _, p := range n.processes() {
		if strings.Contains(p, "flood") && !strings.Contains(p, "varvel") {
			n.t.Errorf("a process of a run is left: %s", p)
		}
	}
}

// eachRunEnds checks that the log has the end of each run whose start it has.
func (n *node) eachRunEnds() {
	n.t.Helper()
	starts, ends, adopted := map[string]int{}, map[string]int{}, 0
	for _, e := range n.events() {
		switch e.Kind {
		case audit.KindRunStart:
			starts[e.Run]++
		case audit.KindRunEnd:
			ends[e.Run]++
		case audit.KindRunAdopt:
			adopted++
		}
	}
	for run, count := range starts {
		if count != 1 || ends[run] != 1 {
			n.t.Errorf("%s has %d starts and %d ends in the log", run, count, ends[run])
		}
	}
	if adopted == 0 {
		n.t.Error("no event says that a run went on with another daemon")
	}
}
