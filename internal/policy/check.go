package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Check finds everything that is wrong with the default policy and the modules below
// dirs, their tests among them, and runs the tests if the policy itself is right. New
// ends at the first stage that fails; Check goes on with what the stage has left
// right. The problems are sorted by file and line. An error means that the
// tests could not be run.
func Check(ctx context.Context, dirs []string) ([]TestResult, Problems, error) {
	c := checker{good: map[string]*ast.Module{}}
	tests := c.read(dirs)
	c.compile()
	sound := !slices.ContainsFunc(c.problems, func(p Problem) bool { return !isTest(p.File) })
	for name, tree := range tests {
		c.good[name] = tree
	}
	compiler := c.compile()
	var results []TestResult
	var err error
	if sound && compiler != nil {
		results, err = runTests(ctx, compiler)
	}
	return results, c.sorted(), err
}

// checker collects problems. A module that has one is left out of what comes next.
type checker struct {
	good     map[string]*ast.Module // by file
	problems Problems
	partial  bool // something was left out, which others may have called
	tests    bool // modules with tests are among the good ones
}

// read loads and parses the modules, and returns those with tests.
func (c *checker) read(dirs []string) map[string]*ast.Module {
	modules, err := embedded()
	if err != nil {
		c.fault("", err)
	}
	for _, dir := range dirs {
		modules, _ = loadDir(modules, dir, c.fault)
	}
	tests := map[string]*ast.Module{}
	for _, m := range modules {
		tree, problems := parseModule(m)
		c.problems = append(c.problems, problems...)
		switch {
		case len(problems) > 0:
			c.partial = true
		case m.isTest:
			tests[m.file] = tree
		default:
			c.good[m.file] = tree
		}
	}
	return tests
}

// fault notes a file that cannot be read, and goes on.
func (c *checker) fault(file string, err error) error {
	c.problems = append(c.problems, Problem{File: file, Message: err.Error()})
	c.partial = true
	return nil
}

// compile compiles the good modules until none of them has a problem: a compiler ends
// at the first of its stages that fails, and others would be told only after what
// it names is put right. It returns nil if there is something wrong that is in no module.
func (c *checker) compile() *ast.Compiler {
	for {
		compiler, err := newCompiler(c.tests)
		if err != nil {
			_ = c.fault("", err)
			return nil
		}
		compiler.SetErrorLimit(0).Compile(c.good)
		if !compiler.Failed() {
			c.tests = true // the next ones
			return compiler
		}
		if !c.leaveOut(compiler.Errors) {
			return nil
		}
	}
}

// leaveOut notes errors and leaves their modules out. It reports whether there was one.
func (c *checker) leaveOut(errs ast.Errors) (left bool) {
	before := c.partial
	for _, e := range errs {
		if !before || !isMissingFunction(e) {
			c.problems = append(c.problems, problem(e.Location, e.Message))
		}
		if e.Location == nil {
			continue
		}
		if _, ok := c.good[e.Location.File]; ok {
			delete(c.good, e.Location.File)
			left, c.partial = true, true
		}
	}
	return left
}

// isMissingFunction reports whether an error may only tell that a module was left out.
func isMissingFunction(e *ast.Error) bool {
	return e.Code == ast.TypeErr && strings.Contains(e.Message, "undefined function data.")
}

func (c *checker) sorted() Problems {
	slices.SortStableFunc(c.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(c.problems)
}

// parseModule parses a module and checks that it is where it may be.
func parseModule(m module) (*ast.Module, Problems) {
	tree, err := ast.ParseModuleWithOpts(m.file, m.text, ast.ParserOptions{Capabilities: capabilities()})
	if err != nil {
		return nil, parseProblems(m, err)
	}
	return tree, placeProblems(m, tree)
}

// newCompiler returns a compiler with the input's schema: it takes part in type
// checking, so that a rule that reads a field which does not exist is an error and not
// a rule that never speaks.
func newCompiler(tests bool) (*ast.Compiler, error) {
	schemas, err := inputSchema()
	if err != nil {
		return nil, fmt.Errorf("compile the policy: %w", err)
	}
	return ast.NewCompiler().
		WithCapabilities(capabilities()).
		WithSchemas(schemas).
		WithUseTypeCheckAnnotations(true).
		WithEnablePrintStatements(!tests). // refused in rules; erased in tests
		WithStrict(true), nil
}
