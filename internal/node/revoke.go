package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/endpoint"
	"github.com/varvel/varvel/internal/hostnet"
	"github.com/varvel/varvel/internal/workload"
)

// Revoke takes from a run all that it may reach, for good. The record comes first;
// if it can't be kept, the run is revoked all the same, and the error says so:
// this is the one act that must not wait for a disk.
func (n *node) Revoke(ctx context.Context, run *workload.Run, by decision.LocalUser, r api.Revoke) (api.Revoked, error) {
	out := api.Revoked{Run: run.ID, Killed: r.Kill}
	ctx = context.WithoutCancel(ctx)
	n.changing.Lock()
	defer n.changing.Unlock()
	errs := []error{n.log.Append(ctx, revocation(run, by, r), decision.Durable)}
	if now, ok := n.runs.ByID(run.ID); ok {
		run = now
	}
	gone := *run
	gone.Revoked, gone.Tools = true, nil
	if !n.runs.Replace(&gone) {
		return out, fmt.Errorf("%s has just ended", run.ID)
	}
	errs = append(errs, n.states.Revoke(run.ID))
	n.broker.Revoke(run.ID)
	errs = append(errs, n.kernel.Revoke(run.CgroupID))
	n.cut(run)
	var err error
	out.Connections, err = n.namespaces.cut(run, hostnet.Socket.Connected)
	errs = append(errs, err, n.approvals.CancelRun(ctx, run.ID, "The run was revoked."))
	n.history.Add(run.CgroupID, endpoint.Refusal{
		Time: n.now(), Target: "everything", Rule: "revoked", Text: "An operator has revoked this run; trying again does not help.", Count: 1,
	})
	if r.Kill {
		errs = append(errs, workload.Kill(run.CgroupPath))
	}
	n.Log.Warn("run revoked", "run", run.ID, "by", by.UID, "connections", out.Connections, "killed", r.Kill)
	return out, errors.Join(errs...)
}

func revocation(run *workload.Run, by decision.LocalUser, r api.Revoke) *audit.Event {
	return aboutRun(audit.Event{
		Kind: audit.KindRunRevoke, Effect: decision.EffectDeny,
		Approval: &audit.Approval{By: &audit.User{UID: by.UID, Name: by.Name}, Reason: r.Reason},
		Message:  "Everything that the run might reach was taken from it.",
	}, run)
}
