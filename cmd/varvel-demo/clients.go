package main

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

//go:embed clients/attempts.py
var attemptsScript string

//go:embed clients/lookups.py
var lookupsScript string

//go:embed clients/fetch.js
var fetchScript string

// user is the ordinary user who starts agents on the node.
func (d *demo) user(argv ...string) invocation {
	return invocation{
		netns: d.ns.node, uid: nobody, dir: d.plan.File("home"), argv: argv,
		env: []string{
			"HOME=" + d.plan.File("home"),
			"NODE_EXTRA_CA_CERTS=" + d.plan.File("ca.pem"),
			"AWS_SECRET_ACCESS_KEY=" + d.canary,
		},
	}
}

// outside is a client of that user without Varvel: the control. The machine's
// own name server is out of reach from the demo's node, so it is not waited for.
func (d *demo) outside(argv ...string) invocation {
	i := d.user(argv...)
	i.env = append(i.env, "RES_OPTIONS=timeout:1 attempts:1")
	return i
}

// inside is the same client as a run of the demo's agent.
func (d *demo) inside(argv ...string) invocation {
	run := []string{d.plan.File("bin", "varvel"), "--socket", d.plan.File("run", "admin.sock"), "run", "--agent", "demo", "--"}
	return d.user(append(run, argv...)...)
}

// varvel is the command line tool in the hands of root, in no run.
func (d *demo) varvel(args ...string) invocation {
	return invocation{netns: d.ns.node, dir: d.plan.Dir, argv: append(
		[]string{d.plan.File("bin", "varvel"), "--socket", d.plan.File("run", "admin.sock")}, args...)}
}

// attempts is a client that tries to reach the unlisted host in every way.
func (d *demo) attempts(mark string) []string {
	to := d.plan.Unlisted
	return []string{"python3", "-c", attemptsScript, mark, to.V4.String(), to.V6.String(), strconv.Itoa(world.PortUnlisted)}
}

// lookups is a client that asks for unlisted names in every way.
func (d *demo) lookups(mark string) []string {
	at := d.plan.Names
	return []string{"python3", "-c", lookupsScript, mark, world.Exfil, at.V4.String(), at.V6.String()}
}

// curl is curl with the demo's authority; -s -S keeps it quiet but for errors.
func (d *demo) curl(args ...string) []string {
	return append([]string{"curl", "-sS", "-m", "20", "--cacert", d.plan.File("ca.pem")}, args...)
}

// makeRepository makes the repository that is cloned later.
func (d *demo) makeRepository(ctx context.Context) error {
	bare, work := d.plan.File("git", repository), d.plan.File("source")
	git := func(args ...string) invocation {
		return invocation{dir: d.plan.Dir, argv: append([]string{"git", "-c", "user.name=Demo", "-c", "user.email=demo@" + world.Domain, "-c", "init.defaultBranch=main"}, args...), env: []string{"HOME=" + d.plan.Dir}}
	}
	for _, args := range [][]string{
		{"init", "-q", work},
		{"-C", work, "commit", "-q", "--allow-empty", "-m", "The first flight"},
		{"clone", "-q", "--bare", work, bare},
	} {
		if r, err := git(args...).run(ctx); err != nil || r.code != 0 {
			return fmt.Errorf("git %s: %s %w", strings.Join(args, " "), r.stderr, err)
		}
	}
	r, err := git("-C", bare, "rev-parse", "HEAD").run(ctx)
	d.commit = strings.TrimSpace(r.stdout)
	return err
}

// repository is its name on the git server.
const repository = "falcon.git"
