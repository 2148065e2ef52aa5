// Package admin serves the operator's API: HTTP over a unix socket. Who asks is
// what the kernel says of the process that connected. A process in a run is
// refused everything; anybody else may do what their roles allow.
package admin

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/workload"
)

// Configs knows the configuration in force.
type Configs interface {
	Config() *config.Config
}

// Runs knows the live runs; *workload.Registry does.
type Runs interface {
	All() []*workload.Run
	ByID(id string) (*workload.Run, bool)
}

// PeerRuns says whether a process is in a run's cgroup, and in which. The
// process lives while it is asked about. An error means that it cannot be
// said, and the process is refused.
type PeerRuns interface {
	InRun(pid int) (runID string, in bool, err error)
}

// Approvals reads approvals; *approval.Store does.
type Approvals interface {
	List(f approval.Filter) []approval.Approval
	Get(id string) (approval.Approval, error)
}

// Voter takes people's answers; *approval.Store does.
type Voter interface {
	Approve(ctx context.Context, id string, by approval.Approver, reason string) (approval.Approval, error)
	Deny(ctx context.Context, id string, by approval.Approver, reason string) (approval.Approval, error)
}

// AuditLog is the record of the node; *audit.Log is one.
type AuditLog interface {
	Query(ctx context.Context, f audit.Filter) iter.Seq2[audit.Event, error]
	Follow(ctx context.Context, f audit.Filter) iter.Seq2[audit.Event, error]
	Append(ctx context.Context, e *audit.Event, p decision.Promise) error
}

// Explainer says what becomes of a run's connections to a destination;
// *explain.Explainer does.
type Explainer interface {
	Explain(run *workload.Run, to api.Destination) api.Why
	ExplainInbound(run *workload.Run, in api.Inbound) api.Why
}

// Reloader reads the configuration again and puts it into force. If it cannot,
// nothing changes. The error is shown to the operator: it says why, and holds
// no secret. It wraps *config.Problems if there are such.
type Reloader interface {
	Reload(ctx context.Context) (api.Reload, error)
}

// Revoker takes from a run all that it may reach. The record has it, and who
// asked, before it is done. An error means that something of it may still be
// open; the text is shown to the operator.
type Revoker interface {
	Revoke(ctx context.Context, run *workload.Run, by decision.LocalUser, r api.Revoke) (api.Revoked, error)
}

// Node is what the status says about this node and never changes.
type Node struct {
	Version string
	ID      string
	Boot    string
	Started time.Time
}

// Options are the parts of a Server. All are required, but for those that say
// otherwise.
type Options struct {
	Node      Node
	Configs   Configs
	Runs      Runs
	PeerRuns  PeerRuns
	Approvals Approvals
	Voter     Voter
	Audit     AuditLog
	Explainer Explainer
	Reloader  Reloader
	Revoker   Revoker
	Health    *health.Health
	Log       *slog.Logger

	AuditSeq       func() uint64        // the last event's number; optional
	PolicyRevision func() string        // optional
	Leases         func() []api.Lease   // optional
	Controls       func() []api.Control // optional
	// Ended finds a run that has ended lately, so that people can still ask why
	// it was refused something; optional.
	Ended func(id string) (*workload.Run, bool)
	// Refused is told each refusal of a request, by its code; optional.
	Refused func(code string)
}

func (o Options) check() error {
	for name, missing := range map[string]bool{
		"Configs": o.Configs == nil, "Runs": o.Runs == nil, "PeerRuns": o.PeerRuns == nil,
		"Approvals": o.Approvals == nil, "Voter": o.Voter == nil, "Audit": o.Audit == nil,
		"Explainer": o.Explainer == nil, "Reloader": o.Reloader == nil, "Revoker": o.Revoker == nil, "Health": o.Health == nil, "Log": o.Log == nil,
	} {
		if missing {
			return errors.New("admin server: " + name + " must be set")
		}
	}
	return nil
}
