package node

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/admin/metrics"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/broker/issuer"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/policy"
)

// maxApprovals bounds the open approvals of all runs together.
const maxApprovals = 4096

// openAudit opens the record, and the metrics that count it.
func (n *node) openAudit(context.Context) (err error) {
	n.registry = prometheus.NewRegistry()
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	if err := errors.Join(n.registry.Register(collectors.NewGoCollector()), n.registry.Register(process)); err != nil {
		return err
	}
	n.metrics, err = metrics.New(n.registry, metrics.BuildOf(n.Version), n.sources())
	if err != nil {
		return err
	}
	a := n.Config().Node.Audit
	n.log, err = audit.Open(filepath.Join(n.Config().Node.StateDir, "audit"), audit.Options{
		Node: n.id, Boot: n.boot, SegmentSize: int64(a.SegmentSize), Reserve: int64(a.Reserve), MaxSize: int64(a.MaxSize),
		Log:      n.Log,
		Observer: audit.Observer{Appended: n.metrics.AuditAppended, Synced: n.metrics.AuditSynced},
	})
	if err != nil {
		return err
	}
	n.onStop(n.log.Close)
	n.addTask("audit health", n.watchAudit)
	return nil
}

func (n *node) loadPolicy(context.Context) error {
	p, err := policy.New(policy.Config{Dirs: n.Config().Node.Policy.Dirs, Log: n.Log})
	if err != nil {
		return err
	}
	n.policy.Store(p)
	return nil
}

// Evaluate asks the policy that is in force at that moment.
func (n *node) Evaluate(ctx context.Context, r decision.Request) (decision.Verdict, error) {
	return n.policy.Load().Evaluate(ctx, r)
}

// openApprovals opens the approvals and makes the engine that uses them.
func (n *node) openApprovals(ctx context.Context) (err error) {
	cfg := n.Config().Node
	n.approvals, err = approval.Open(ctx, approval.Config{
		Dir: filepath.Join(cfg.StateDir, "approvals"), InBand: cfg.Approval.InBand, Expires: cfg.Approval.Expires,
		MaxPerRun: cfg.Approval.MaxPending, MaxTotal: maxApprovals,
		Events: approvalEvents{n}, Runs: liveRuns{n}, Log: n.Log,
		Hooks: approval.Hooks{Resolved: func(s approval.State, waited time.Duration) {
			n.metrics.ApprovalResolved(string(s), waited)
		}},
	})
	if err != nil {
		return err
	}
	n.onStop(n.approvals.Close)
	n.addTask("approvals", n.approvals.Run)
	n.addTask("approval health", n.watchApprovals)
	n.engine = &decision.Engine{
		Evaluator: n, Approver: n.approvals, Recorder: metrics.Recorder{Next: n, Metrics: n.metrics},
		NewID: newDecisionID, Now: time.Now, Log: n.Log,
	}
	return nil
}

// openIssuer opens the token issuer, and the broker that hands its tokens out.
func (n *node) openIssuer(context.Context) (err error) {
	cfg := n.Config().Node
	n.issuer, err = issuer.New(issuer.Options{
		URL: cfg.Issuer.URL, Dir: filepath.Join(cfg.StateDir, "issuer"), Log: n.Log,
		KeyLifetime: cfg.Issuer.KeyLifetime, TokenLifetime: cfg.Issuer.TokenLifetime,
	})
	if err != nil {
		return err
	}
	n.addTask("issuer", n.issuer.Run)
	n.broker = broker.New(broker.Options{Decider: n.engine, Minter: n.issuer, Journal: mintJournal{n}, Settler: mintSettler{n}, Log: n.Log})
	n.onStop(func() error { n.broker.Close(); return nil })
	return n.serveIssuer(cfg.Issuer.Listen)
}

// liveRuns tells the approvals what is in force now.
type liveRuns struct{ n *node }

// Alive reports whether the run exists.
func (l liveRuns) Alive(runID string) bool {
	_, ok := l.n.runs.ByID(runID)
	return ok
}

// Current returns the revisions of the policy and of a run's tool.
func (l liveRuns) Current(runID, name string) (policyRevision, toolRevision string) {
	if r, ok := l.n.runs.ByID(runID); ok {
		if t, ok := r.Tool(name); ok {
			toolRevision = t.Revision
		}
	}
	return l.n.policy.Load().Revision(), toolRevision
}

// record keeps an event that does not gate anything. If that fails, it is said
// loudly: in the log, and by the health of the node.
func (n *node) record(ctx context.Context, e *audit.Event, p decision.Promise) {
	if err := n.log.Append(context.WithoutCancel(ctx), e, p); err != nil {
		n.Log.Error("an event was not recorded", "kind", e.Kind, "run", e.Run, "error", err)
		n.health.Set(health.EventsLost, err.Error()) // not degraded: that would record again
	}
}
