package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// namespaces are the demo's two machines: the node that Varvel governs, and
// the world outside, with one wire between them.
type namespaces struct{ node, world string }

// namesFor returns the namespaces of the demo with an id.
func namesFor(id string) namespaces {
	return namespaces{node: prefix + id + "-node", world: prefix + id + "-world"}
}

// create makes both namespaces. What was made before a failure is left for remove.
func (n namespaces) create(ctx context.Context, p world.Plan) error {
	for _, argv := range [][]string{
		{"ip", "netns", "add", n.node},
		{"ip", "netns", "add", n.world},
		{"ip", "link", "add", "wire", "netns", n.node, "type", "veth", "peer", "name", "wire", "netns", n.world},
	} {
		if err := command(ctx, argv...); err != nil {
			return err
		}
	}
	if err := configure(ctx, n.world, p.Servers()...); err != nil {
		return err
	}
	if err := configure(ctx, n.node, p.Node); err != nil {
		return err
	}
	if err := command(ctx, "ip", "-n", n.node, "route", "add", "default", "via", p.Router.V4.String()); err != nil {
		return err
	}
	return command(ctx, "ip", "-n", n.node, "-6", "route", "add", "default", "via", p.Router.V6.String())
}

// configure gives a namespace its addresses.
func configure(ctx context.Context, netns string, hosts ...world.Host) error {
	// A machine may have IPv6 switched off for new namespaces.
	enable := invocation{netns: netns, argv: []string{"sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6"}}
	if r, err := enable.run(ctx); err != nil || r.code != 0 {
		return fmt.Errorf("this kernel has no IPv6, which the demo needs: %s %w", r.stderr, err)
	}
	steps := [][]string{{"link", "set", "lo", "up"}, {"link", "set", "wire", "up"}}
	for _, h := range hosts {
		steps = append(steps,
			[]string{"address", "add", h.V4.String() + "/24", "dev", "wire"},
			// Nobody else is on the wire, so there is no duplicate to wait for.
			[]string{"address", "add", h.V6.String() + "/64", "dev", "wire", "nodad"})
	}
	for _, s := range steps {
		if err := command(ctx, append([]string{"ip", "-n", netns}, s...)...); err != nil {
			return err
		}
	}
	return nil
}

// remove kills whatever still runs in the namespaces and removes them. What
// does not exist is no error.
func (n namespaces) remove(ctx context.Context) error {
	var failed error
	for _, name := range []string{n.node, n.world} {
		if _, err := os.Stat("/run/netns/" + name); err != nil {
			continue
		}
		killAll(ctx, name)
		if err := command(ctx, "ip", "netns", "delete", name); err != nil {
			failed = err
		}
	}
	return failed
}

// killAll ends every process in a namespace that only the demo uses.
func killAll(ctx context.Context, netns string) {
	r, err := invocation{argv: []string{"ip", "netns", "pids", netns}}.run(ctx)
	if err != nil {
		return
	}
	for field := range strings.FieldsSeq(r.stdout) {
		if pid, err := strconv.Atoi(field); err == nil {
			// One that has just ended is none the less gone.
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// command runs a program that has to succeed.
func command(ctx context.Context, argv ...string) error {
	r, err := invocation{argv: argv}.run(ctx)
	if err == nil && r.code != 0 {
		err = fmt.Errorf("exit status %d: %s", r.code, strings.TrimSpace(r.stderr))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return nil
}
