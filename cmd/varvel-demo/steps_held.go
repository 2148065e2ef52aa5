package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// heldDeletion is a run that asks for the same deletion three times, and waits.
type heldDeletion struct {
	run      *process
	approval string
}

func (h *heldDeletion) stop() {
	if h != nil {
		h.run.stop(3 * time.Second)
	}
}

// deletion is the request: the history of one region, beside one that stays.
func (d *demo) deletion() invocation {
	ask := fmt.Sprintf(`curl -sS -g -m 30 -X POST -o /dev/null -w "%%{http_code} " 'http://%s:%d%s?match[]=orders_total{region="%s"}'`,
		world.NamePrometheus, world.PortPrometheus, deletePath, region)
	// Two at a time, and once more when both are answered.
	return d.inside("sh", "-c", ask+" & "+ask+" & wait; "+ask)
}

// waits: an irreversible request is not sent until somebody says so.
func (d *demo) waits(ctx context.Context, o *outcome) error {
	before, err := d.prom.regions(ctx)
	if err != nil {
		return err
	}
	o.expect(slices.Contains(before, region) && slices.Contains(before, kept), "the database has both regions", before)
	// It goes on after this step; the end of the demo stops it at the latest.
	run, err := d.deletion().start(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	d.held = &heldDeletion{run: run}
	var pending pendingApproval
	err = eventually(ctx, 5*time.Second, func() error {
		var err error
		pending, err = d.pending(ctx)
		return err
	})
	if err != nil {
		return err
	}
	d.held.approval, d.runs.deletion = pending.ID, pending.Request.Run.ID
	deletions, regions, err := d.whatIsDeleted(ctx)
	if err != nil {
		return err
	}
	o.expect(run.alive() && deletions == 0 && slices.Contains(regions, region), "the program waits, and Prometheus has received no deletion", fmt.Sprint(deletions, regions))
	o.note("Prometheus: %d deletions received, regions %s", deletions, strings.Join(regions, " "))
	return d.approveOneself(ctx, o)
}

// approveOneself: who started the run is an approver, but may not approve what
// that run has asked for, neither outside nor from inside a run.
func (d *demo) approveOneself(ctx context.Context, o *outcome) error {
	looks, err := d.outside(d.varvel("approvals").argv...).run(ctx)
	if err != nil {
		return err
	}
	o.expect(looks.code == 0 && strings.Contains(looks.stdout, d.held.approval), "who asked is an approver, and sees what waits", looks)
	args := d.varvel("approve", "--yes", d.held.approval).argv
	for where, try := range map[string]invocation{"outside a run": d.outside(args...), "inside a run": d.inside(args...)} {
		r, err := try.run(ctx)
		if err != nil {
			return err
		}
		o.expect(r.code != 0, "who asked cannot approve, "+where, r)
	}
	deletions, _, err := d.whatIsDeleted(ctx)
	o.expect(deletions == 0, "Prometheus has received no deletion after that", deletions)
	return err
}

// pendingApproval is what the demo reads of `varvel approvals`.
type pendingApproval struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Request struct {
		Run struct {
			ID string `json:"id"`
		} `json:"run"`
	} `json:"request"`
}

// pending returns the one approval that waits.
func (d *demo) pending(ctx context.Context) (pendingApproval, error) {
	r, err := d.varvel("approvals", "--output", "json").run(ctx)
	if err != nil {
		return pendingApproval{}, err
	}
	var all []pendingApproval
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		return pendingApproval{}, fmt.Errorf("varvel approvals: %w: %s", err, r)
	}
	all = slices.DeleteFunc(all, func(a pendingApproval) bool { return a.State != "pending" })
	if len(all) != 1 {
		return pendingApproval{}, fmt.Errorf("%d approvals wait, not one: %s", len(all), r)
	}
	return all[0], nil
}

// whatIsDeleted asks Prometheus itself: how many deletions it has answered, and
// which regions it still has.
func (d *demo) whatIsDeleted(ctx context.Context) (int, []string, error) {
	n, err := d.prom.deletions(ctx)
	if err != nil {
		return 0, nil, err
	}
	regions, err := d.prom.regions(ctx)
	return n, regions, err
}

// approved: somebody else approves, the waiting request goes through, and the
// same request does not run a second time.
func (d *demo) approved(ctx context.Context, o *outcome) error {
	if d.held == nil || d.held.approval == "" {
		return fmt.Errorf("no deletion waits")
	}
	r, err := d.varvel("approve", "--yes", d.held.approval, "--reason", "the eu orders were imported twice").run(ctx)
	if err != nil {
		return err
	}
	o.expect(r.code == 0, "root could approve", r)
	ended, err := d.held.run.wait()
	if err != nil {
		return err
	}
	deletions, regions, err := d.whatIsDeleted(ctx)
	if err != nil {
		return err
	}
	codes := strings.Fields(ended.stdout)
	o.expect(deletions == 1, "Prometheus has received exactly one deletion", fmt.Sprintf("%d deletions; %s", deletions, ended))
	o.expect(!slices.Contains(regions, region) && slices.Contains(regions, kept), "one region is gone, and the other is still there", regions)
	o.expect(len(codes) == 3 && count(codes, "204") == 1, "one of three equal requests was answered as done", ended)
	o.note("Prometheus: %d deletion received, regions %s; the three requests were answered %s", deletions, strings.Join(regions, " "), strings.Join(codes, " "))
	return nil
}

func count(list []string, s string) int {
	n := 0
	for _, e := range list {
		if e == s {
			n++
		}
	}
	return n
}
