package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// newWorld starts the demo's world without Varvel, for clients that nothing confines.
func newWorld(t *testing.T) (context.Context, *demo) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces are made by root only")
	}
	t.Setenv("PATH", os.Getenv("PATH")) // prerequisites sets it; this sets it back
	if err := prerequisites(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	d := new(demo)
	t.Cleanup(func() {
		if err := d.end(false); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob("/run/netns/" + prefix + d.work.id + "*"); len(left) > 0 {
			t.Errorf("left behind: %s", left)
		}
	})
	if err := d.beginWorld(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx, d
}

// TestControls shows that every refusal of the demo has a control that arrives.
func TestControls(t *testing.T) {
	ctx, d := newWorld(t)
	run := func(i invocation) result {
		t.Helper()
		r, err := i.run(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Run("unlisted host", func(t *testing.T) {
		r := run(d.outside(d.attempts("control")...))
		ways := firstWords(r.stdout)
		entries, err := d.logs(world.LogUnlisted)
		if absent := missing(entries, "control", ways); err != nil || len(ways) != 8 || len(absent) > 0 {
			t.Errorf("did not arrive: %s %v\n%s", absent, err, r)
		}
		if n := connections(entries); n != 3 {
			t.Errorf("%d connections, want 3", n)
		}
		if absent := missing(entries, "inside", ways); len(absent) != 8 {
			t.Errorf("marks that nobody sent are taken for seen: %s", ways)
		}
	})
	t.Run("unlisted names", func(t *testing.T) {
		r := run(d.outside(d.lookups("control")...))
		entries, err := d.logs(world.LogNames)
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range []string{"udp-ipv4", "tcp-ipv4", "udp-ipv6", "tcp-ipv6"} {
			if !slices.ContainsFunc(entries, func(e world.Entry) bool { return e.Name == "control-"+way+"."+world.Exfil }) {
				t.Errorf("%s was not asked: %s", way, r)
			}
		}
	})
	t.Run("two names, one address", func(t *testing.T) {
		for _, name := range []string{world.NameAllowed, world.NameOther} {
			r := run(d.outside(d.curl("--resolve", name+":443:"+d.plan.Shared.V4.String(), "https://"+name+"/here")...))
			if got, err := d.requests(world.LogShared, name, "/here"); err != nil || len(got) != 1 {
				t.Errorf("%s: %d requests, %v: %s", name, len(got), err, r)
			}
		}
	})
	t.Run("fetch.js", func(t *testing.T) {
		r := run(d.outside("node", "-e", fetchScript, "https://"+d.plan.Shared.V4.String()+"/"))
		if r.code == 0 {
			t.Errorf("no certificate is for an address, but Node.js was content: %s", r)
		}
	})
	t.Run("clone without a token", func(t *testing.T) {
		o := new(outcome)
		if err := d.cloneControl(ctx, o); err != nil || !held(o) {
			t.Errorf("%v %+v", err, o.checks)
		}
	})
	t.Run("secret", func(t *testing.T) {
		o := new(outcome)
		if err := d.secretsControl(ctx, o); err != nil || !held(o) {
			t.Errorf("%v %+v", err, o.checks)
		}
	})
}

func held(o *outcome) bool {
	return len(o.checks) > 0 && !slices.ContainsFunc(o.checks, func(c check) bool { return !c.held })
}

// TestDeletionEvidence shows that a deletion that Varvel does not hold is seen
// by the demo in both of its ways.
func TestDeletionEvidence(t *testing.T) {
	ctx, d := newWorld(t)
	n, regions, err := d.whatIsDeleted(ctx)
	if err != nil || n != 0 || !slices.Contains(regions, region) || !slices.Contains(regions, kept) {
		t.Fatalf("before: %d deletions, regions %s, %v", n, regions, err)
	}
	url := fmt.Sprintf("http://%s%s?match[]=orders_total{region=%q}", d.prom.address(), deletePath, region)
	if r, err := d.outside("curl", "-fsSg", "-X", "POST", url).run(ctx); err != nil || r.code != 0 {
		t.Fatal(err, r)
	}
	n, regions, err = d.whatIsDeleted(ctx)
	if err != nil || n != 1 || slices.Contains(regions, region) || !slices.Contains(regions, kept) {
		t.Errorf("after: %d deletions, regions %s, %v", n, regions, err)
	}
	const text = "orders_total offset 10m"
	if r, err := d.outside("curl", "-fsSG", "http://"+d.prom.address()+"/api/v1/query", "--data-urlencode", "query="+text).run(ctx); err != nil || r.code != 0 {
		t.Fatal(err, r)
	}
	seen, err := d.prom.queries(text)
	if err != nil || len(seen) != 1 || seen[0].Request.ClientIP != d.plan.Node.V4.String() {
		t.Errorf("query log: %+v, %v", seen, err)
	}
}

// TestSweep shows that what a killed demo has left is removed, that a demo which
// runs is left alone, and that somebody else's folder is too.
func TestSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces are made by root only")
	}
	t.Setenv("TMPDIR", t.TempDir())
	ctx := t.Context()
	made := func() (*workdir, namespaces) {
		w, err := newWorkdir()
		if err != nil {
			t.Fatal(err)
		}
		ns := namesFor(w.id)
		t.Cleanup(func() { ns.remove(context.WithoutCancel(ctx)) })
		if err := ns.create(ctx, world.NewPlan(w.path)); err != nil {
			t.Fatal(err)
		}
		return w, ns
	}
	dead, deadNS := made()
	sleeper, err := invocation{netns: deadNS.node, argv: []string{"sleep", "600"}}.start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := cgroupFor(dead.id)
	if err != nil {
		t.Skip(err)
	}
	if err := os.MkdirAll(filepath.Join(cgroup, "runs", "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(context.WithoutCancel(ctx), dead.id) })
	governed, err := invocation{argv: []string{"sh", "-c", "echo 0 >" + cgroup + "/runs/one/cgroup.procs && exec sleep 600"}}.start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	joined := func() error {
		procs, err := os.ReadFile(filepath.Join(cgroup, "runs", "one", "cgroup.procs"))
		return errUnless(len(procs) > 0, "not yet in the cgroup", err)
	}
	if err := eventually(ctx, 5*time.Second, joined); err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // what the kernel does when a process is killed
	alive, aliveNS := made()
	foreign := filepath.Join(os.TempDir(), prefix+"foreign")
	if err := os.Mkdir(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(foreign, "lock"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(foreign, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := sweep(ctx); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		dead.path: false, cgroup: false, "/run/netns/" + deadNS.node: false, "/run/netns/" + deadNS.world: false,
		alive.path: true, "/run/netns/" + aliveNS.node: true, foreign: true,
	} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s exists: %t, want %t", path, err == nil, want)
		}
	}
	for _, p := range []*process{sleeper, governed} {
		if r, err := p.wait(); err != nil || r.code != -1 {
			t.Errorf("a leftover process was not killed: %v %+v", err, r)
		}
	}
	if err := alive.remove(); err != nil {
		t.Error(err)
	}
}

// TestNotRoot shows that the demo says what it needs.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("this is root")
	}
	if err := prerequisites(); err == nil || !strings.Contains(err.Error(), "needs root") {
		t.Errorf("got %v", err)
	}
}
