package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// problemsOf checks files, and returns what is wrong, without their folder.
func problemsOf(t *testing.T, files map[string]string) (found []string, tests int) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	results, problems, err := Check(t.Context(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		found = append(found, strings.ReplaceAll(p.Error(), dir+"/", ""))
	}
	return found, len(results)
}

const (
	goodLibrary = "package lib\n\nis_odd(x) if x % 2 == 1\n"
	goodTest    = "package varvel.custom_test\n\nimport data.lib\n\ntest_odd if lib.is_odd(3)\n"
)

// TestCheckTellsAllAtOnce: one file for each stage at which a policy can fail.
func TestCheckTellsAllAtOnce(t *testing.T) {
	found, tests := problemsOf(t, map[string]string{
		"a_data.json":        "{}",
		"b_syntax.rego":      "package varvel.custom\n\ndeny contains",
		"c_place.rego":       "package varvel.mine\n\nx := 1\n",
		"d_allow.rego":       "package varvel.custom\n\nallow := true\n",
		"e_unsafe.rego":      "package varvel.custom\n\ndeny contains r if {\n\tr := y\n}\n",
		"f_field.rego":       "package varvel.custom\n\ndeny contains {\"rule\": \"x\", \"text\": \"y\"} if input.no_such_field == 1\n",
		"g_import.rego":      "package other\n\nimport data.lib\n\nx := 1\n",
		"h_lib.rego":         goodLibrary,
		"i_test.rego":        goodTest,
		"j_test.rego":        "package varvel.custom_test\n\ntest_x if { z == 1 }\n",
		"k_syntax_test.rego": "package varvel.custom_test\n\ntest_y if {\n",
		"l_calls.rego":       "package another\n\nimport data.varvel.mine\n\nx if mine.f(1)\n",
	})
	for _, want := range []string{
		"a_data.json: ", "b_syntax.rego:", "c_place.rego:1: ", "d_allow.rego:3: ", "e_unsafe.rego:4: ", "f_field.rego:3: ", "g_import.rego:3: ",
		"j_test.rego:3: ", "k_syntax_test.rego:",
	} {
		if !slices.ContainsFunc(found, func(p string) bool { return strings.HasPrefix(p, want) }) {
			t.Errorf("%s is not told", want)
		}
	}
	for _, p := range found {
		// What only misses another file is not told before that is put right.
		if strings.HasPrefix(p, "h_") || strings.HasPrefix(p, "i_") || strings.HasPrefix(p, "l_") {
			t.Errorf("told, although nothing is wrong with it: %s", p)
		}
	}
	if !slices.IsSorted(found) || len(slices.Compact(slices.Clone(found))) != len(found) || tests != 0 {
		t.Errorf("%d tests; %s", tests, strings.Join(found, "\n"))
	}
}

// TestCheckRunsWhatItCan: a broken test doesn't keep the others from being run.
func TestCheckRunsWhatItCan(t *testing.T) {
	_, own := problemsOf(t, nil)
	found, tests := problemsOf(t, map[string]string{
		"h_lib.rego": goodLibrary, "i_test.rego": goodTest, "k_test.rego": "package varvel.custom_test\n\ntest_y if {\n",
	})
	if len(found) != 1 || !strings.HasPrefix(found[0], "k_test.rego:") || tests != own+1 || own == 0 {
		t.Errorf("%d tests, %d of Varvel's: %q", tests, own, found)
	}
	// A function that nobody has is a problem, if nothing is left out that may have had it.
	found, tests = problemsOf(t, map[string]string{"i_test.rego": goodTest})
	if len(found) != 1 || !strings.HasPrefix(found[0], "i_test.rego:5: ") || tests != own {
		t.Errorf("%d tests: %q", tests, found)
	}
}

// TestCheckTellsOfMany: more than the ten that a compiler tells by default.
func TestCheckTellsOfMany(t *testing.T) {
	text := "package other\n\n"
	for range 25 {
		text += "x contains y if z == 1\n"
	}
	found, _ := problemsOf(t, map[string]string{"many.rego": text})
	lines := map[string]bool{}
	for _, p := range found {
		line, _, _ := strings.Cut(strings.TrimPrefix(p, "many.rego:"), ":")
		lines[line] = true
	}
	if len(lines) != 25 {
		t.Errorf("%d lines: %q", len(lines), found)
	}
}

// TestCheckAgreesWithNew: what New accepts has no problem, and what it refuses has.
func TestCheckAgreesWithNew(t *testing.T) {
	for _, text := range []string{goodLibrary, "package varvel.custom\n\ndeny contains", "package varvel.custom\n\nallow := true\n", "package p\n\nx := nosuch(1)\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.rego"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		modules, err := load([]string{dir})
		if err != nil {
			t.Fatal(err)
		}
		_, refused := compile(modules, false)
		_, problems, err := Check(t.Context(), []string{dir, filepath.Join(dir, "none")})
		if err != nil || len(problems) == 0 || !strings.Contains(problems.Error(), "none") {
			t.Errorf("%q: a directory that is not there: %v %v", text, problems, err)
		}
		if (len(problems) > 1) != (refused != nil) {
			t.Errorf("%q: New says %v, Check %v", text, refused, problems)
		}
	}
}
