package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/testutil"
	"github.com/varvel/varvel/internal/workload"
)

// rig is a node in this process: the real steps of the start up to the doors, with
// runs that have a cgroup, a record and rules in the kernel, but no process.
type rig struct {
	*node
	dir string
	t   testing.TB
}

// newRig starts a node with an agent "bot" of the given text.
func newRig(t testing.TB, agent string) *rig {
	t.Helper()
	testutil.RequireRoot(t)
	r := &rig{dir: t.TempDir(), t: t}
	cg := testutil.NewCgroup(t)
	for _, d := range []string{"config/agents.d", "state", "run", "bpf"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.configure("varvel.yaml", fmt.Sprintf("trust_domain: rig.test\nstate_dir: %[1]s/state\nrun_dir: %[1]s/run\nbpffs: %[1]s/bpf\ncgroup: %[2]s\ndns: { upstreams: [\"127.0.0.1:9\"] }\n", r.dir, cg.Path))
	r.configure("agents.d/bot.yaml", agent)
	cfg, err := config.Load(filepath.Join(r.dir, "config"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	r.node = &node{Options: Options{ConfigDir: filepath.Join(r.dir, "config"), Log: log}, started: time.Now(), runs: workload.NewRegistry()}
	r.cfg.Store(cfg)
	r.health = health.New(log, time.Now)
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(r.dir, "bpf"), unix.MNT_DETACH) })
	t.Cleanup(func() { r.takeDown(context.Background()) })
	for _, s := range r.steps() {
		if err := s.make(t.Context()); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if s.name == "prepare names and the gateway" {
			break
		}
	}
	return r
}

func (r *rig) configure(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "config", name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// start makes so many runs of an agent, with everything in force that governs them.
func (r *rig) start(agent string, count int) []*workload.Run {
	r.t.Helper()
	runs := make([]*workload.Run, count)
	for i := range runs {
		run, err := r.newRun(r.Config(), r.Config().Agents[agent], 65534, []string{"true"})
		if err != nil {
			r.t.Fatal(err)
		}
		if err := r.govern(r.t.Context(), run, true); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() {
			if err := r.release(run); err != nil {
				r.t.Error(err)
			}
		})
		runs[i] = run
	}
	return runs
}

// agentText is an agent with so many prefixes, at a port.
func agentText(rules, port int) string {
	text := "agent: bot\nlaunch: { users: [nobody] }\negress:\n  - { name: api.rig.test, ports: [443], opaque: true }\n"
	for i := range rules {
		text += fmt.Sprintf("  - { cidr: 198.51.%d.%d/32, ports: [%d] }\n", i/256, i%256, port)
	}
	return text
}

// BenchmarkReload changes the rules of 1,000 live runs of one agent.
func BenchmarkReload(b *testing.B) {
	for _, rules := range []int{10} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			r := newRig(b, agentText(rules, 1))
			r.start("bot", 1000)
			synced := r.log.Stats().Syncs
			for port := 2; b.Loop(); port++ {
				r.configure("agents.d/bot.yaml", agentText(rules, port))
				out, err := r.Reload(b.Context())
				if err != nil || out.Runs != 1000 {
					b.Fatalf("%d runs, %v", out.Runs, err)
				}
			}
			b.ReportMetric(float64(r.log.Stats().Syncs-synced)/float64(b.N), "fsyncs/op")
		})
	}
}
