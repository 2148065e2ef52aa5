package node

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/endpoint"
	"github.com/varvel/varvel/internal/gateway"
	"github.com/varvel/varvel/internal/runstate"
	"github.com/varvel/varvel/internal/workload"
)

// The types below turn what the layers have to tell into audit events.

// about fills in who acts.
func about(e audit.Event, run decision.Run, actor decision.Actor) *audit.Event {
	e.Run, e.Agent, e.Owner, e.Mode = run.ID, run.Agent, run.Owner, run.Mode
	e.Actor, e.Person = actor.Account, actor.Person
	if u := actor.StartedBy; u != nil {
		e.StartedBy = &audit.User{UID: u.UID, Name: u.Name}
	}
	return &e
}

func aboutRun(e audit.Event, run *workload.Run) *audit.Event { return about(e, run.Run, run.Actor) }

// approvalEvents keeps the steps of approvals, durably, before they take effect.
type approvalEvents struct{ n *node }

// Note implements approval.Events.
func (a approvalEvents) Note(ctx context.Context, c approval.Change) error {
	r := c.Approval.Request
	e := audit.FromDecision(r, decision.Decision{ID: r.ID, Reasons: c.Approval.Reasons, Revision: c.Approval.PolicyRevision})
	e.Kind, e.Activity, e.ApprovalID, e.Time = audit.KindApproval, activityOf(c.Event), c.Approval.ID, c.Time
	e.Approval = &audit.Approval{
		Kind: c.Approval.Need.Kind, Groups: c.Approval.Need.Groups, Quorum: c.Approval.Need.Quorum, Expires: c.Approval.Expires,
	}
	if v := c.Vote; v != nil {
		e.Approval.By = &audit.User{UID: v.UID, Name: v.Name}
		e.Approval.Presence, e.Approval.Reason = string(v.Presence), v.Reason
		e.Message = "The approver's process was found in no run: " + v.PeerCheck
	}
	if o := c.Approval.Outcome; o != nil {
		e.Approval.Outcome = outcomeText(o)
	}
	return a.n.log.Append(context.WithoutCancel(ctx), &e, decision.Durable)
}

// activityOf names the steps that the audit log has words for; the others keep
// their own.
func activityOf(k approval.EventKind) audit.Activity { return audit.Activity(k) }

func outcomeText(o *approval.Outcome) string {
	if o.Error != "" {
		return o.Error
	}
	if o.Status == 0 {
		return "done"
	}
	return fmt.Sprintf("status %d", o.Status)
}

// settler tells the approvals how an approved action ended.
type settler struct{ n *node }

// Settle implements gateway.Settler.
func (s settler) Settle(ctx context.Context, id string, o gateway.Outcome) error {
	out := approval.Outcome{Status: o.Status, Error: o.Error}
	if !o.Sent {
		out.Error = "nothing was sent: " + o.Error
	}
	return s.n.approvals.Settle(ctx, id, out)
}

// mintSettler tells the approvals how an approved mint ended.
type mintSettler struct{ n *node }

// Settle implements broker.Settler.
func (s mintSettler) Settle(ctx context.Context, id string, failure error) error {
	var out approval.Outcome
	if failure != nil {
		out.Error = "no token was made: " + failure.Error()
	}
	return s.n.approvals.Settle(ctx, id, out)
}

// mintJournal keeps mints, durably, before a token is given to anybody.
type mintJournal struct{ n *node }

// RecordMint implements broker.Journal.
func (j mintJournal) RecordMint(ctx context.Context, m broker.Mint) error {
	e := about(audit.Event{
		Kind: audit.KindCredential, Activity: "minted", Effect: decision.EffectAllow, Tool: m.Tool,
		DecisionID: m.DecisionID, Correlation: m.DecisionID, Digest: m.TokenHash,
		Credential: &audit.Credential{Audience: m.Audience, Expires: m.Expires},
	}, m.Run, m.Actor)
	if err := j.n.log.Append(context.WithoutCancel(ctx), e, decision.Durable); err != nil {
		return err
	}
	lease := runstate.Lease{Tool: m.Tool, Audience: m.Audience, Expires: m.Expires, Decision: m.DecisionID, Hash: m.TokenHash}
	if err := j.n.states.AddLease(m.Run.ID, lease); err != nil {
		return err
	}
	j.n.metrics.TokenMinted()
	return nil
}

// egressEvents keeps what the name server and the compiler have to tell.
type egressEvents struct{ n *node }

// RuleSet implements egress.Events: an allow in the kernel is covered by the
// durable record of its rule set.
func (g egressEvents) RuleSet(ctx context.Context, e egress.RuleSetEvent) error {
	ev := aboutRun(audit.Event{
		Kind: audit.KindRuleSet, Effect: decision.EffectAllow, RuleSet: e.ID,
		PolicyRevision: g.n.policy.Load().Revision(),
		Counts:         map[string]uint64{"prefixes": uint64(e.Entries), "names": uint64(e.Names), "direct": uint64(len(e.Direct)), "refused": uint64(len(e.Refused))},
	}, e.Run)
	if e.ListenEntries > 0 || len(e.ListenRefused) > 0 {
		ev.ListenSet = e.Listen
		ev.Counts["listen_prefixes"], ev.Counts["listen_refused"] = uint64(e.ListenEntries), uint64(len(e.ListenRefused))
	}
	for _, r := range e.ListenRefused {
		ev.Reasons = append(ev.Reasons, r.Reasons...)
	}
	for _, r := range e.Refused {
		ev.Reasons = append(ev.Reasons, r.Reasons...)
	}
	return g.n.log.Append(context.WithoutCancel(ctx), ev, decision.Durable)
}

// Name implements egress.Events.
func (g egressEvents) Name(ctx context.Context, e egress.NameEvent) error {
	if e.Effect == decision.EffectDeny || e.Would == decision.EffectDeny {
		g.n.metrics.Denied(e.Reason.Rule, 1)
		g.n.history.Add(e.Run.CgroupID, endpoint.Refusal{
			Time: g.n.now(), Target: strings.TrimSuffix(e.Name, "."), Rule: e.Reason.Rule, Text: e.Reason.Text, Count: 1,
			Observed: e.Would != "",
		})
	}
	if e.Reason.Rule == "name.datapath" {
		g.n.lookAtTables() // it may be for want of room
	}
	return g.n.log.Append(context.WithoutCancel(ctx), aboutRun(audit.Event{
		Kind: audit.KindDNS, Effect: e.Effect, Would: e.Would, Reasons: []decision.Reason{e.Reason},
		DNS:    &audit.DNS{Name: strings.TrimSuffix(e.Name, "."), Type: e.Type, Code: e.Code, Answers: e.Addresses},
		Target: &audit.Target{Name: strings.TrimSuffix(e.Name, ".")},
		Count:  e.Unrecorded + 1,
	}, e.Run), decision.Appended)
}

// gatewayEvents keeps outcomes, and refusals that came before any decision.
type gatewayEvents struct{ n *node }

// Append implements gateway.Events.
func (g gatewayEvents) Append(ctx context.Context, e gateway.Event) error {
	ev := about(audit.Event{
		Kind: kindOf(e.Kind), Activity: audit.Activity(e.Activity), Tool: e.Tool, Action: e.Action, Risk: e.Risk,
		Time: e.Time, Count: e.Count, DecisionID: e.DecisionID, Correlation: e.DecisionID, ApprovalID: e.ApprovalID,
		Digest: e.Digest, Message: e.Error,
		Target: &audit.Target{Name: e.Target.Name, Address: e.Target.Address, Port: e.Target.Port, Protocol: e.Target.Protocol},
		Counts: map[string]uint64{"sent": uint64(e.Sent), "received": uint64(e.Received), "milliseconds": uint64(e.Duration.Milliseconds())},
	}, e.Run, e.Actor)
	if e.HTTP != nil {
		ev.HTTP = &audit.HTTP{
			Method: e.HTTP.Method, Authority: e.HTTP.Authority, Path: e.HTTP.Path, Query: e.HTTP.Query, Status: e.Status,
			RequestBytes: e.Sent, ResponseBytes: e.Received,
		}
	}
	if e.Injected {
		ev.Obligations = append(ev.Obligations, decision.Obligation{Name: "credential-injected"})
	}
	if e.Stripped {
		ev.Obligations = append(ev.Obligations, decision.Obligation{Name: "client-credential-removed"})
	}
	if e.Scrubbed {
		ev.Obligations = append(ev.Obligations, decision.Obligation{Name: "credential-scrubbed"})
	}
	if e.Activity != gateway.ActivityOutcome {
		ev.Effect, ev.Reasons = decision.EffectDeny, []decision.Reason{e.Reason}
		g.n.metrics.Denied(e.Reason.Rule, max(e.Count, 1))
		g.remember(e)
	}
	return g.n.log.Append(context.WithoutCancel(ctx), ev, decision.Appended)
}

func (g gatewayEvents) remember(e gateway.Event) {
	if e.CgroupID == 0 {
		return
	}
	target := e.Target.Name
	if target == "" {
		target = netip.AddrPortFrom(e.Target.Address, e.Target.Port).String()
	}
	g.n.history.Add(e.CgroupID, endpoint.Refusal{
		Time: g.n.now(), Target: target, Rule: e.Reason.Rule, Text: e.Reason.Text, Count: max(e.Count, 1),
	})
}

func kindOf(k decision.Kind) audit.Kind {
	if k == decision.KindHTTP {
		return audit.KindHTTP
	}
	return audit.KindConnect
}

// endpointEvents keeps refusals of the credential endpoint.
type endpointEvents struct{ n *node }

// Refused implements endpoint.Events.
func (p endpointEvents) Refused(ctx context.Context, e endpoint.Event) error {
	p.n.metrics.Denied(e.Reason.Rule, 1)
	return p.n.log.Append(context.WithoutCancel(ctx), aboutRun(audit.Event{
		Kind: audit.KindCredential, Activity: "refused", Effect: decision.EffectDeny, Tool: e.Tool,
		Reasons: []decision.Reason{e.Reason},
	}, e.Run), decision.Appended)
}

// Record implements decision.Recorder: it keeps the decision, and remembers what
// was refused for the program that asks why.
func (n *node) Record(ctx context.Context, r decision.Request, d decision.Decision, p decision.Promise) error {
	if err := n.log.Record(ctx, r, d, p); err != nil {
		return err
	}
	if run, ok := n.runs.ByID(r.Run.ID); ok && (!d.Allowed() || d.Would != "") && len(d.Reasons) > 0 {
		n.history.Add(run.CgroupID, refusalOf(r, d))
	}
	return nil
}

func refusalOf(r decision.Request, d decision.Decision) endpoint.Refusal {
	last := d.Reasons[len(d.Reasons)-1]
	out := endpoint.Refusal{Time: r.Time, Target: r.Target.Name, Rule: last.Rule, Text: last.Text, Count: 1, Observed: d.Would != ""}
	if r.HTTP != nil {
		out.Detail = r.HTTP.Method + " " + r.HTTP.Path
	}
	if d.Effect == decision.EffectHold {
		out.Approval = d.ApprovalID
	}
	return out
}
