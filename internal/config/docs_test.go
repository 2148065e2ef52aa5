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
