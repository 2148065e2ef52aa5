package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// demo is everything that is started, in the order of the fields.
type demo struct {
	work    *workdir
	plan    world.Plan
	ns      namespaces
	servers *process
	prom    *prometheus
	commit  string // what a clone has to arrive with
	daemon  *process
	canary  string // a secret in the environment of who starts the agent

	held *heldDeletion // set by the step that asks for the deletion
	runs runIDs
}

// runIDs are the runs that the servers and approvals have told of.
type runIDs struct{ clone, deletion string }

// begin sets everything up. Whatever happens, end must be called afterwards.
func (d *demo) begin(ctx context.Context, bin string) error {
	if err := d.beginWorld(ctx); err != nil {
		return err
	}
	for _, program := range []string{"varveld", "varvel"} {
		if err := d.install(filepath.Join(bin, program), program); err != nil {
			return err
		}
	}
	return d.startDaemon(ctx)
}

// beginWorld sets up everything but Varvel.
func (d *demo) beginWorld(ctx context.Context) error {
	var err error
	if d.work, err = newWorkdir(); err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	d.plan, d.ns = world.NewPlan(d.work.path), namesFor(d.work.id)
	d.canary = "canary-" + d.work.id
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := d.install(self, "varvel-demo"); err != nil {
		return err
	}
	if err := d.ns.create(ctx, d.plan); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{d.makeRepository, d.startServers, d.startPrometheus} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// install puts a program where every user can run it; a checkout in root's home
// is closed to others.
func (d *demo) install(from, name string) error {
	b, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no %s; run make build first", from)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(d.plan.File("bin", name), b, 0o755)
}

// startServers starts the world's servers and waits until all listen.
func (d *demo) startServers(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	servers := invocation{netns: d.ns.world, dir: d.plan.Dir, argv: []string{d.plan.File("bin", "varvel-demo"), "-servers", d.plan.Dir}}
	d.servers, err = servers.serveTo(ctx, d.plan.LogFile("servers"), w)
	w.Close()
	if err != nil {
		return err
	}
	if line, _ := bufio.NewReader(r).ReadString('\n'); line != readyLine {
		return fmt.Errorf("the servers did not start: %s", tail(d.plan.LogFile("servers")))
	}
	return nil
}

func (d *demo) startPrometheus(ctx context.Context) error {
	var err error
	d.prom, err = startPrometheus(ctx, d.plan, d.ns.world)
	return err
}

// startDaemon starts Varvel on the node and waits until it answers.
func (d *demo) startDaemon(ctx context.Context) error {
	cgroup, err := cgroupFor(d.work.id)
	if err != nil {
		return err
	}
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		return fmt.Errorf("make a cgroup for the demo: %w", err)
	}
	if err := writeConfig(d.plan, cgroup); err != nil {
		return err
	}
	daemon := invocation{netns: d.ns.node, argv: []string{d.plan.File("bin", "varveld"), "--config", d.plan.File("config")}}
	if d.daemon, err = daemon.serve(ctx, d.plan.LogFile("varveld")); err != nil {
		return err
	}
	return eventually(ctx, 30*time.Second, func() error {
		if !d.daemon.alive() {
			return fmt.Errorf("varveld has ended: %s", tail(d.plan.LogFile("varveld")))
		}
		r, err := d.varvel("status").run(ctx)
		if err == nil && r.code != 0 {
			err = fmt.Errorf("varvel status: %s", r)
		}
		return err
	})
}

// end stops and removes everything that was started. With keep, the folder with
// the logs stays.
func (d *demo) end(keep bool) error {
	if d.work == nil {
		return nil
	}
	// The demo's own context may have ended; cleaning up is done all the same.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	d.held.stop()
	d.daemon.stop(10 * time.Second)
	if d.prom != nil {
		d.prom.proc.stop(5 * time.Second)
	}
	d.servers.stop(3 * time.Second)
	err := errors.Join(removeCgroup(ctx, d.work.id), d.ns.remove(ctx))
	if keep {
		return errors.Join(err, d.work.keep())
	}
	return errors.Join(err, d.work.remove())
}

// logs returns what a server has written down so far.
func (d *demo) logs(name string) ([]world.Entry, error) {
	return world.ReadLog(d.plan.LogFile(name))
}
