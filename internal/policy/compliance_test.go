package policy

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/test/cases/testdata"
	"github.com/open-policy-agent/opa/v1/util"
)

// TestCompliance shows that Rego means here what it means in OPA, although
// some built-in functions are missing: it runs OPA's own cases. One that uses a
// missing function is left out.
func TestCompliance(t *testing.T) {
	var ran, left int
	for _, c := range complianceCases(t) {
		if usesForbidden(c) || needsHarness(c) {
			left++
			continue
		}
		ran++
		result, err := evalCase(t, c)
		if problem := compare(c, result, err); problem != "" {
			t.Errorf("%s: %s", c.Note, problem)
		}
	}
	t.Logf("%d cases ran, %d were left out", ran, left)
	if ran < 1000 {
		t.Errorf("only %d cases ran", ran)
	}
}

// usesForbidden reports whether the case needs a function that is not allowed.
func usesForbidden(c cases.TestCase) bool {
	text := c.Query + strings.Join(c.Modules, " ")
	return slices.ContainsFunc(ast.CapabilitiesForThisVersion().Builtins, func(b *ast.Builtin) bool {
		return forbidden(b) && b.Name != "print" && strings.Contains(text, b.Name)
	})
}

// needsHarness reports whether the case needs something of OPA's own test
// program: a function that sleeps, or data that hides a rule, which a store
// given beforehand refuses.
func needsHarness(c cases.TestCase) bool {
	return c.Note == "time/time caching" || c.Note == "baseandvirtualdocs/base/virtual: conflicts"
}

func complianceCases(t *testing.T) []cases.TestCase {
	t.Helper()
	var all []cases.TestCase
	err := fs.WalkDir(testdata.V1, "v1", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := testdata.V1.ReadFile(path)
		if err != nil {
			return err
		}
		var set cases.Set
		if err := util.Unmarshal(text, &set); err != nil {
			return err
		}
		for _, c := range set.Cases {
			if c.Env == nil && !c.ExperimentalKeywords {
				all = append(all, c)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// evalCase evaluates with the options of prepare.
func evalCase(t *testing.T, c cases.TestCase) (rego.ResultSet, error) {
	t.Helper()
	options := []func(*rego.Rego){
		rego.Query(c.Query), rego.Capabilities(capabilities()), rego.StrictBuiltinErrors(c.StrictError),
	}
	for i, text := range c.Modules {
		options = append(options, rego.Module("m"+string(rune('a'+i))+".rego", text))
	}
	if c.Data != nil {
		options = append(options, rego.Store(inmem.NewFromObject(*c.Data)))
	}
	query, err := rego.New(options...).PrepareForEval(t.Context())
	if err != nil {
		return nil, err
	}
	var input []rego.EvalOption
	switch {
	case c.InputTerm != nil:
		input = append(input, rego.EvalParsedInput(ast.MustParseTerm(*c.InputTerm).Value))
	case c.Input != nil:
		input = append(input, rego.EvalInput(*c.Input))
	}
	return query.Eval(t.Context(), input...)
}

// compare says how the answer differs from the case's, or "".
func compare(c cases.TestCase, got rego.ResultSet, err error) string {
	wantsError := c.WantError != nil || c.WantErrorCode != nil
	switch {
	case wantsError && err == nil:
		return "no error where there should be one"
	case wantsError && c.WantErrorCode != nil && !strings.Contains(errorText(err), *c.WantErrorCode):
		return "another error: " + err.Error()
	case wantsError:
		return ""
	case err != nil:
		return "error: " + err.Error()
	case c.WantDefined != nil && *c.WantDefined != (len(got) > 0):
		return "defined where it should not be, or the other way round"
	case c.WantResult == nil:
		return ""
	}
	return compareBindings(c, got)
}

func errorText(err error) string {
	var many rego.Errors
	text := err.Error()
	if errors.As(err, &many) {
		for _, e := range many {
			text += " " + e.Error()
		}
	}
	return text
}

func compareBindings(c cases.TestCase, got rego.ResultSet) string {
	want := *c.WantResult
	if len(want) != len(got) {
		return "another number of results"
	}
	var left, right []ast.Value
	for i := range want {
		w, err1 := ast.InterfaceToValue(want[i])
		bindings := map[string]any{}
		for name, value := range got[i].Bindings {
			bindings[name] = sorted(value, c.SortBindings)
		}
		g, err2 := ast.InterfaceToValue(bindings)
		if err1 != nil || err2 != nil {
			return "a value cannot be compared"
		}
		left, right = append(left, w), append(right, g)
	}
	slices.SortFunc(left, ast.Value.Compare)
	slices.SortFunc(right, ast.Value.Compare)
	for i := range left {
		if left[i].Compare(right[i]) != 0 {
			return "got " + right[i].String() + ", want " + left[i].String()
		}
	}
	return ""
}

// sorted orders a list whose order means nothing in the case.
func sorted(value any, sort bool) any {
	list, ok := value.([]any)
	if !ok || !sort {
		return value
	}
	slices.SortFunc(list, util.Compare)
	return list
}
