package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gowebpki/jcs"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// grant is what a tool's definition says about its token.
type grant struct {
	tool, revision, audience string
	lifetime                 time.Duration
}

func grantOf(t *tool.Tool) (grant, error) {
	if t.Credential == nil {
		return grant{}, fmt.Errorf("%w: %q; add credential to its definition", ErrNoCredential, t.Name)
	}
	g := grant{tool: t.Name, revision: t.Revision, audience: t.Credential.Issuer.Audience, lifetime: t.Credential.Issuer.Lifetime}
	if g.lifetime <= 0 || g.lifetime > DefaultLifetime {
		g.lifetime = DefaultLifetime
	}
	return g, nil
}

// mint decides, makes the token, and settles the approval if there was one.
func (b *Broker) mint(ctx context.Context, run *workload.Run, g grant) (Lease, error) {
	d, err := b.decide(ctx, run, g)
	if err != nil {
		return Lease{}, err
	}
	lease, err := b.make(ctx, run, g, d)
	if d.ApprovalID != "" {
		b.settle(context.WithoutCancel(ctx), d.ApprovalID, err)
	}
	return lease, err
}

func (b *Broker) settle(ctx context.Context, approvalID string, minted error) {
	err := errors.New("the broker has no settler")
	if b.opts.Settler != nil {
		err = b.opts.Settler.Settle(ctx, approvalID, minted)
	}
	if err != nil {
		b.opts.Log.Error("outcome of an approved mint not kept", "approval", approvalID, "error", err)
	}
}

// make makes the token and keeps the event, in this order.
func (b *Broker) make(ctx context.Context, run *workload.Run, g grant, d decision.Decision) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, mintTimeout)
	defer cancel()
	token, expires, err := b.opts.Minter.Mint(ctx, MintRequest{
		Run: run.Run, Actor: run.Actor, Tool: g.tool, Audience: g.audience, Lifetime: g.lifetime,
	})
	if err == nil {
		err = b.sane(token, expires, g)
	}
	if err != nil {
		b.opts.Log.Warn("token not minted", "run", run.ID, "tool", g.tool, "error", err)
		return Lease{}, fmt.Errorf("mint a token for tool %q: %w", g.tool, err)
	}
	event := Mint{
		Run: run.Run, Actor: run.Actor, Tool: g.tool, Audience: g.audience,
		DecisionID: d.ID, TokenHash: token.Hash(), Expires: expires,
	}
	if err := b.opts.Journal.RecordMint(ctx, event); err != nil {
		b.opts.Log.Error("mint not recorded, token thrown away", "run", run.ID, "tool", g.tool, "error", err)
		return Lease{}, fmt.Errorf("record the token of tool %q: %w", g.tool, err)
	}
	return Lease{Token: token, Audience: g.audience, Expires: expires, DecisionID: d.ID}, nil
}

// decide asks whether the run may have the token. Only an allow, or observe
// mode's allow, goes on.
func (b *Broker) decide(ctx context.Context, run *workload.Run, g grant) (decision.Decision, error) {
	digest, err := g.digest()
	if err != nil {
		return decision.Decision{}, err
	}
	d, err := b.opts.Decider.Decide(ctx, decision.Request{
		Kind: decision.KindCredential, Run: run.Run, Actor: run.Actor,
		Tool: g.tool, Action: "token", Risk: decision.RiskRead, Threshold: 1,
		Credential: &decision.Credential{Audience: g.audience, Lifetime: g.lifetime},
		Digest:     digest, ToolRevision: g.revision,
		Preview: fmt.Sprintf("token for tool %q, audience %q, %s", g.tool, g.audience, g.lifetime),
	})
	if err != nil {
		b.opts.Log.Error("credential decision failed", "run", run.ID, "tool", g.tool, "decision", d.ID, "error", err)
	}
	if !d.Allowed() {
		return d, &Refused{Decision: d}
	}
	return d, nil
}

// digest is the canonical form of "this token", for an approval to bind to.
func (g grant) digest() (string, error) {
	raw, err := json.Marshal(map[string]string{
		"kind": string(decision.KindCredential), "tool": g.tool, "audience": g.audience, "lifetime": g.lifetime.String(),
	})
	if err != nil {
		return "", fmt.Errorf("digest of the token request: %w", err)
	}
	canonical, err := jcs.Transform(raw)
	if err != nil {
		return "", fmt.Errorf("digest of the token request: %w", err)
	}
	sum := sha256.Sum256(canonical)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// sane holds a minter to its contract.
func (b *Broker) sane(token Secret, expires time.Time, g grant) error {
	now := b.opts.Now()
	switch {
	case token.Empty():
		return errors.New("the minter returned an empty token")
	case !expires.After(now):
		return errors.New("the minter returned a token that has expired")
	case expires.After(now.Add(g.lifetime + time.Second)):
		return errors.New("the minter returned a token that lives longer than asked for")
	}
	return nil
}
