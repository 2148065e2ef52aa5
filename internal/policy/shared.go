package policy

import (
	"context"
	"slices"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/varvel/varvel/internal/decision"
)

// Shared answers for many runs at one moment, such as a reload, and asks the policy
// once for requests between which it cannot tell: those that differ in the id of
// their run and their time only, if no rule reads that id. It is safe for concurrent
// use.
type Shared struct {
	engine *Engine
	perRun bool // the policy may read the id of a run, so every request is its own

	mu    sync.Mutex
	known map[shape]decision.Verdict
}

// shape is all that encode gives to the policy about a connection, but the run's id
// and the time.
type shape struct {
	run                decision.Run
	account            string
	person             decision.Person
	startedBy          decision.LocalUser
	hasPerson, hasUser bool
	tool, action       string
	risk               decision.Risk
	target             decision.Target
	threshold          float64
	approval           decision.ApprovalKind
}

// Shared returns an evaluator for one moment.
func (e *Engine) Shared() *Shared {
	return &Shared{engine: e, perRun: e.current.Load().perRun, known: map[shape]decision.Verdict{}}
}

// Evaluate implements decision.Evaluator.
func (s *Shared) Evaluate(ctx context.Context, r decision.Request) (decision.Verdict, error) {
	key, ok := shapeOf(r)
	if !ok || s.perRun {
		return s.engine.Evaluate(ctx, r)
	}
	s.mu.Lock()
	v, ok := s.known[key]
	s.mu.Unlock()
	if ok {
		return detached(v), nil
	}
	v, err := s.engine.Evaluate(ctx, r)
	if err != nil || v.Effect == decision.EffectHold {
		return v, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[key] = detached(v)
	return v, nil
}

// shapeOf reports false for requests whose answers are not shared: those that carry
// more than a target, or that the policy would refuse to look at.
func shapeOf(r decision.Request) (shape, bool) {
	if r.Kind != decision.KindConnect || r.HTTP != nil || r.Credential != nil || r.Confidence != nil || check(r) != nil {
		return shape{}, false
	}
	s := shape{
		run: r.Run, account: r.Actor.Account, tool: r.Tool, action: r.Action, risk: r.Risk,
		target: r.Target, threshold: r.Threshold, approval: r.ApprovalKind,
	}
	s.run.ID = ""
	if r.Actor.Person != nil {
		s.person, s.hasPerson = *r.Actor.Person, true
	}
	if r.Actor.StartedBy != nil {
		s.startedBy, s.hasUser = *r.Actor.StartedBy, true
	}
	return s, true
}

// detached shares no list with v, because a decision adds to its reasons.
func detached(v decision.Verdict) decision.Verdict {
	v.Reasons, v.Obligations = slices.Clone(v.Reasons), slices.Clone(v.Obligations)
	return v
}

// readsRunID reports whether a rule of compiled modules may read input.run.id: by
// that name, as a part of something larger, or by a name that is computed.
func readsRunID(modules map[string]*ast.Module) bool {
	reads := false
	for _, m := range modules {
		ast.WalkRefs(m, func(r ast.Ref) bool {
			reads = reads || r.HasPrefix(ast.InputRootRef) && meets(r[1:], "run", "id")
			return false
		})
	}
	return reads
}

// meets reports whether a path may lead to a field, or to something around it.
func meets(path ast.Ref, field ...string) bool {
	for i, name := range field {
		if i == len(path) {
			return true
		}
		text, ok := path[i].Value.(ast.String)
		if !ok {
			return true
		}
		if string(text) != name {
			return false
		}
	}
	return true
}
