package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// holdings is what a node has because of its runs.
type holdings struct {
	daemon, keeper       int // descriptors
	cgroups, states      int
	pins, mounts         int
	listeners, processes int
}

func (n *node) holdings() holdings {
	count := func(pattern string) int {
		found, _ := filepath.Glob(pattern)
		return len(found)
	}
	return holdings{
		daemon:  count(fmt.Sprintf("/proc/%d/fd/*", n.pid())),
		keeper:  count(fmt.Sprintf("/proc/%d/fd/*", n.keeperPID())),
		cgroups: count(filepath.Join(n.cgroup.Path, "varvel", "runs", "run_*")),
		states:  count(filepath.Join(n.dir, "run", "runs", "*")),
		pins:    len(n.pins()), mounts: strings.Count(n.mountinfo(), "\n"),
		listeners: len(n.listeners()), processes: len(n.processes()),
	}
}

// TestChurn starts and ends many runs, some of them over a change of daemons, and
// then looks for what they have left behind while the daemon lives.
func TestChurn(t *testing.T) {
	runs, batch := 200, 20
	if long() {
		runs = 2000
	}
	n := survivor(t)
	n.must(alice, n.run("bot", "true")...)
	n.eventually("the first run has ended", func() bool { return len(n.runIDs()) == 0 })
	before := n.holdings()
	if before.keeper == 0 || before.daemon == 0 || before.pins == 0 {
		t.Fatalf("nothing is seen: %+v", before)
	}
	x, _ := n.steady()
	if during := n.holdings(); during.keeper <= before.keeper || during.states != 1 || during.cgroups != 1 {
		t.Errorf("a run is not seen: %+v, without it %+v", during, before)
	}
	for i := 0; i < runs; i += batch {
		var group sync.WaitGroup
		for range batch {
			b := n.begin(alice, n.run("bot", "true")...)
			group.Go(func() {
				if err := b.cmd.Wait(); err != nil {
					t.Errorf("a run failed: %v: %s", err, b.stderr.String())
				}
				b.cancel()
			})
		}
		group.Wait()
	}
	x.in.Close()
	x.ends(5)
	var after holdings
	n.eventually("what the runs had is gone", func() bool {
		after = n.holdings()
		return len(n.runIDs()) == 0 && after.cgroups == 0 && after.states == 0 && after.keeper == before.keeper && after.processes == before.processes
	})
	// The daemon may keep a few idle descriptors, such as of a poller or a log.
	if after.daemon > before.daemon+4 {
		t.Errorf("the daemon has %d descriptors, and had %d", after.daemon, before.daemon)
	}
	before.daemon, after.daemon = 0, 0
	if after != before {
		t.Errorf("%d runs left %+v, before them there was %+v", runs, after, before)
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid())); err == nil {
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "Threads") {
				t.Logf("the daemon after %d runs: %s", runs, strings.TrimSpace(line))
			}
		}
	}
}
