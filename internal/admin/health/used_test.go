package health

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryCodeIsSet finds codes that nobody sets. They would be shown, and
// scraped, as something that is well.
func TestEveryCodeIsSet(t *testing.T) {
	used := codesUsed(t, "../../../internal/node")
	own, err := parser.ParseFile(token.NewFileSet(), "catalogue.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(own, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) == 0 {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != "Code" {
			return true
		}
		found++
		if name := spec.Names[0].Name; !used[name] {
			t.Errorf("nobody sets health.%s; remove it from the catalogue, or set it", name)
		}
		return true
	})
	if found != len(Catalogue()) {
		t.Errorf("%d codes, but %d entries in the catalogue", found, len(Catalogue()))
	}
}

// codesUsed returns the names of this package that the code in dir uses.
func codesUsed(t *testing.T, dir string) map[string]bool {
	t.Helper()
	used := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "health" {
					used[sel.Sel.Name] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}
