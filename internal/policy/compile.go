package policy

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/varvel/varvel/policy"
)

// compile parses and compiles modules; test modules too if tests is true.
func compile(modules []module, tests bool) (*ast.Compiler, error) {
	parsed, err := parse(modules, tests)
	if err != nil {
		return nil, err
	}
	compiler, err := newCompiler(tests)
	if err != nil {
		return nil, err
	}
	if compiler.Compile(parsed); compiler.Failed() {
		return nil, asProblems(compiler.Errors)
	}
	return compiler, nil
}

// parse returns the modules by file name.
func parse(modules []module, tests bool) (map[string]*ast.Module, error) {
	parsed := make(map[string]*ast.Module, len(modules))
	var problems Problems
	for _, m := range modules {
		if m.isTest && !tests {
			continue
		}
		tree, found := parseModule(m)
		problems = append(problems, found...)
		parsed[m.file] = tree
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return parsed, nil
}

func parseProblems(m module, err error) Problems {
	if ps, ok := asProblems(err).(Problems); ok {
		return ps
	}
	return Problems{{File: m.file, Message: err.Error()}}
}

// placeProblems checks that an operator's module extends the policy only where
// it is meant to be extended, with rules of the right kind.
func placeProblems(m module, tree *ast.Module) Problems {
	if !m.extra {
		return nil
	}
	name := strings.TrimPrefix(tree.Package.Path.String(), "data.")
	if name != "varvel" && !strings.HasPrefix(name, "varvel.") {
		return nil // a library of the operator's
	}
	if m.isTest && name == "varvel.custom_test" {
		return nil
	}
	if name != "varvel.custom" {
		return Problems{problem(tree.Package.Location, fmt.Sprintf(
			"package %s is Varvel's own; write rules in package varvel.custom, and helpers there or in a package outside varvel", name))}
	}
	var problems Problems
	for _, rule := range tree.Rules {
		if text := ruleProblem(rule); text != "" {
			problems = append(problems, problem(rule.Location, text))
		}
	}
	return problems
}

// ruleProblem says what is wrong with a rule of package varvel.custom, or "".
func ruleProblem(rule *ast.Rule) string {
	switch name := rule.Head.Ref()[0].Value.String(); name {
	case "deny", "hold":
		if rule.Head.RuleKind() != ast.MultiValue || len(rule.Head.Ref()) != 1 {
			return fmt.Sprintf("%s must be a set of reasons; write: %s contains {\"rule\": \"my.rule\", \"text\": \"A sentence.\"} if ...", name, name)
		}
	case "allow":
		return "package varvel.custom has no allow: it can only make the policy stricter; write deny or hold"
	}
	return ""
}

// inputSchema returns the schema of the input for the type checker.
func inputSchema() (*ast.SchemaSet, error) {
	var schema any
	if err := json.Unmarshal(policy.InputSchema, &schema); err != nil {
		return nil, fmt.Errorf("input schema: %w", err)
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, schema)
	return set, nil
}
