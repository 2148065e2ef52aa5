// Package policy answers what the policy says about an action. It is the only
// importer of OPA: it compiles the default policy of package policy and the
// operator's Rego with a reduced set of built-in functions, gives it an input of
// one shape, and accepts an answer of one shape. Anything else is an error, and
// the decision engine denies.
package policy

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/varvel/varvel/internal/decision"
)

// Config says what an Engine compiles.
type Config struct {
	// Dirs hold the operator's Rego files, read recursively. A directory that
	// cannot be read is an error.
	Dirs []string
	Log  *slog.Logger
}

// Engine evaluates the policy. It implements decision.Evaluator and is safe for
// concurrent use; Reload replaces the policy between two evaluations.
type Engine struct {
	cfg     Config
	steps   int // that one evaluation may take
	current atomic.Pointer[compiled]
}

// compiled is one policy revision, ready to run.
type compiled struct {
	query    rego.PreparedEvalQuery
	revision string
	perRun   bool // a rule may read the id of a run
}

// New compiles the default policy and the modules below cfg.Dirs. What is wrong
// with them is reported as Problems, all at once.
func New(cfg Config) (*Engine, error) {
	e := &Engine{cfg: cfg, steps: maxSteps}
	if err := e.Reload(context.Background()); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload reads and compiles the policy again. Evaluations that have begun end
// with the policy they began with. If it fails, nothing changes.
func (e *Engine) Reload(ctx context.Context) error {
	modules, err := load(e.cfg.Dirs)
	if err != nil {
		return err
	}
	next, err := prepare(ctx, modules)
	if err != nil {
		return err
	}
	old := e.current.Swap(next)
	if old == nil || old.revision != next.revision {
		e.cfg.Log.Info("policy loaded", "revision", next.revision, "modules", len(modules))
	}
	return nil
}

// Revision names the policy in force: "sha256:" and the hex digest of its
// modules. It depends on their names below their directory and their content.
func (e *Engine) Revision() string { return e.current.Load().revision }

// Evaluate asks the policy about r. An error means that there is no answer:
// the request is not one that the policy knows, a built-in function failed, the
// limits of one evaluation are reached, or the answer is not of the one known form.
func (e *Engine) Evaluate(ctx context.Context, r decision.Request) (decision.Verdict, error) {
	input, err := encode(r)
	if err != nil {
		return decision.Verdict{}, fmt.Errorf("policy input: %w", err)
	}
	p := e.current.Load()
	b := newBudget(ctx, e.steps)
	results, err := p.query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalTime(r.Time), rego.EvalExternalCancel(b))
	if err != nil || b.spent != nil {
		return decision.Verdict{}, p.failed(b.spent, err)
	}
	v, err := decode(results)
	if err != nil {
		return decision.Verdict{}, fmt.Errorf("policy %s: the answer is malformed: %w", p.revision, err)
	}
	v.Revision = p.revision
	return v, nil
}

// failed says why an evaluation gave no answer: its budget was spent, or it
// went wrong.
func (p *compiled) failed(spent, err error) error {
	if spent != nil {
		return fmt.Errorf("policy %s: stopped before it had an answer: %w", p.revision, spent)
	}
	return fmt.Errorf("policy %s: %w", p.revision, asProblems(err))
}

// prepare compiles modules into a query that can be run.
func prepare(ctx context.Context, modules []module) (*compiled, error) {
	compiler, err := compile(modules, false)
	if err != nil {
		return nil, err
	}
	query, err := rego.New(
		rego.Query("data.varvel.decision"),
		rego.Compiler(compiler),
		rego.Capabilities(capabilities()),
		rego.StrictBuiltinErrors(true),
		rego.GenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return t.Value, nil }),
	).PrepareForEval(ctx)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", asProblems(err))
	}
	return &compiled{query: query, revision: revision(modules), perRun: readsRunID(compiler.Modules)}, nil
}
