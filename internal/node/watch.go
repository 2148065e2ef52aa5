package node

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/egress"
)

// watchInterval is how often a part that cannot call is asked how it is.
const watchInterval = time.Second

// every calls look at once, and then at the interval until ctx ends.
func every(ctx context.Context, interval time.Duration, look func()) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		look()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watchAudit turns the state of the record into the health of the node.
func (n *node) watchAudit(ctx context.Context) error {
	return every(ctx, watchInterval, func() {
		err := n.log.Health()
		n.finding(health.AuditBroken, err, err != nil && !audit.OutOfSpace(err))
		n.finding(health.AuditLow, err, err != nil && audit.OutOfSpace(err))
	})
}

// watchApprovals turns the state of the approvals into the health of the node.
func (n *node) watchApprovals(ctx context.Context) error {
	return every(ctx, watchInterval, func() {
		err := n.approvals.Health(ctx)
		n.finding(health.ApprovalJournal, err, err != nil)
		unknown := n.approvals.List(approval.Filter{State: approval.OutcomeUnknown})
		n.finding(health.OutcomeUnknown, idsOf(unknown), len(unknown) > 0)
	})
}

// finding says that code is wrong because of detail, or well.
func (n *node) finding(code health.Code, detail error, wrong bool) {
	if wrong {
		n.degraded(code, detail.Error())
		return
	}
	n.well(code)
}

// idsOf names approvals.
func idsOf(list []approval.Approval) error {
	ids := make([]string, len(list))
	for i, a := range list {
		ids[i] = a.ID
	}
	return errors.New(strings.Join(ids, ", "))
}

// watchedResolver tells the health of the node whether its name servers answer.
type watchedResolver struct {
	*egress.Resolver
	n *node
}

// Resolve implements gateway.Resolver.
func (w watchedResolver) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := w.Resolver.Resolve(ctx, host)
	switch {
	case err == nil, errors.Is(err, egress.ErrNoSuchName), errors.Is(err, egress.ErrNoAddress):
		w.n.well(health.DNSUpstream)
	case ctx.Err() == nil:
		w.n.degraded(health.DNSUpstream, err.Error())
	}
	return addrs, err
}
