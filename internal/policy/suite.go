package policy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/tester"
)

// testLimit bounds one Rego test.
const testLimit = 5 * time.Second

// TestResult is how one Rego test ended.
type TestResult struct {
	File    string
	Line    int
	Package string // without "data."
	Name    string // test_…
	Failure string // "" if it passed
}

// Passed reports whether the test held.
func (r TestResult) Passed() bool { return r.Failure == "" }

// String returns "file:line: package.name: ok", or the failure instead of ok.
func (r TestResult) String() string {
	outcome := "ok"
	if !r.Passed() {
		outcome = r.Failure
	}
	return fmt.Sprintf("%s:%d: %s.%s: %s", r.File, r.Line, r.Package, r.Name, outcome)
}

// RunTests runs the Rego tests (rules named test_…) of the default policy and
// of the modules below dirs, with the same built-in functions and the same
// type checking as in production. The results are in no particular order. An
// error means that the modules do not compile.
func RunTests(ctx context.Context, dirs []string) ([]TestResult, error) {
	modules, err := load(dirs)
	if err != nil {
		return nil, err
	}
	compiler, err := compile(modules, true)
	if err != nil {
		return nil, err
	}
	return runTests(ctx, compiler)
}

// runTests runs the tests among compiled modules.
func runTests(ctx context.Context, compiler *ast.Compiler) ([]TestResult, error) {
	results, err := tester.NewRunner().
		SetCompiler(compiler).
		SetModules(compiler.Modules).
		RaiseBuiltinErrors(true).
		SetTimeout(testLimit).
		RunTests(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("policy tests: %w", asProblems(err))
	}
	var all []TestResult
	for r := range results {
		all = append(all, testResult(r))
	}
	return all, nil
}

func testResult(r *tester.Result) TestResult {
	t := TestResult{
		File: r.Location.File, Line: r.Location.Row,
		Package: strings.TrimPrefix(r.Package, "data."), Name: r.Name,
	}
	switch {
	case r.Error != nil:
		t.Failure = fmt.Sprintf("error: %v", r.Error)
	case r.Fail:
		t.Failure = "failed"
	case r.Skip:
		t.Failure = "skipped: rename todo_test_ to test_ or delete it"
	}
	return t
}
