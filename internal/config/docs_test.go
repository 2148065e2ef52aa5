package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const reference = "../../docs/configuration.md"

// The example of the reference is a configuration without problems.
func TestReferenceExample(t *testing.T) {
	text, err := os.ReadFile(reference)
	must(t, err)
	dir, files := t.TempDir(), 0
	for _, block := range strings.Split(string(text), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		name, _, _ := strings.Cut(strings.TrimPrefix(block, "# "), "\n")
		write(t, dir, name, block)
		files++
	}
	cfg, err := Load(dir)
	must(t, err)
	if files != 4 || len(cfg.Agents) != 1 || len(cfg.Tools) != 2 {
		t.Errorf("%d files, %d agents, %d tools", files, len(cfg.Agents), len(cfg.Tools))
	}
}

// Every key that the code reads has a row in the reference.
func TestReferenceIsComplete(t *testing.T) {
	text, err := os.ReadFile(reference)
	must(t, err)
	keys := append(knownKeys(t), Roles()...)
	if len(keys) < 60 {
		t.Errorf("only %d keys found in the code", len(keys))
	}
	for _, key := range keys {
		if !strings.Contains(string(text), "\n| `"+key+"` |") {
			t.Errorf("`%s` is not documented", key)
		}
	}
}

// knownKeys collects the keys of all fields literals in this package.
func knownKeys(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	must(t, err)
	var keys []string
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		must(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if name, ok := literal.Type.(*ast.Ident); !ok || name.Name != "fields" {
				return true
			}
			for _, e := range literal.Elts {
				key, err := strconv.Unquote(e.(*ast.KeyValueExpr).Key.(*ast.BasicLit).Value)
				must(t, err)
				keys = append(keys, key)
			}
			return true
		})
	}
	return keys
}

// TestReadmeExample loads the files that the README shows.
func TestReadmeExample(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	must(t, err)
	dir, before, files := t.TempDir(), "", 0
	for _, block := range strings.Split(string(text), "```yaml\n") {
		if before != "" {
			_, name, _ := strings.Cut(before[strings.LastIndex(before, "\n\n")+1:], "`/etc/varvel/")
			name, _, ok := strings.Cut(name, "`:")
			if !ok {
				t.Fatalf("nothing says which file this is:\n%s", block)
			}
			yaml, _, _ := strings.Cut(block, "```")
			write(t, dir, name, yaml)
			files++
		}
		before = strings.TrimRight(block, "\n")
	}
	cfg, err := Load(dir)
	must(t, err)
	if files != 3 || len(cfg.Agents) != 1 || len(cfg.Tools) != 1 {
		t.Errorf("%d files, %d agents, %d tools", files, len(cfg.Agents), len(cfg.Tools))
	}
}

// TestPolicyExample loads the line that docs/policy.md shows.
func TestPolicyExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	must(t, err)
	_, line, _ := strings.Cut(string(text), "```yaml\n")
	line, _, _ = strings.Cut(line, "```")
	dir, rego := t.TempDir(), t.TempDir()
	write(t, dir, nodeFile, "trust_domain: example.org\n"+strings.ReplaceAll(line, "/etc/varvel/policy", rego))
	cfg, err := Load(dir)
	must(t, err)
	if len(cfg.Node.Policy.Dirs) != 1 || cfg.Node.Policy.Dirs[0] != rego {
		t.Errorf("dirs: %v", cfg.Node.Policy.Dirs)
	}
}

// TestEveryYAMLIsLoaded fails when a page gets an example that no test knows.
func TestEveryYAMLIsLoaded(t *testing.T) {
	known := map[string]int{"README.md": 3, "configuration.md": 4, "policy.md": 1}
	pages, err := filepath.Glob("../../docs/*.md")
	must(t, err)
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		must(t, err)
		if n := strings.Count(string(text), "```yaml\n"); n != known[filepath.Base(page)] {
			t.Errorf("%s has %d YAML examples, and the tests load %d", page, n, known[filepath.Base(page)])
		}
	}
}
