package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
)

// The hard limits of the house. The usual sizes are far below: a function of
// about ten lines, a file of one to three hundred.
const (
	maxFileLines        = 600
	maxFunctionLines    = 80
	maxInterfaceMethods = 3
)

// oversized returns a sentence for everything that is beyond a limit, and for
// every init function. Generated code is left out, and so are functions of
// tests, whose tables are long.
func oversized(files []file) []string {
	var found []string
	for _, f := range files {
		if f.made {
			continue
		}
		if f.lines > maxFileLines {
			found = append(found, fmt.Sprintf("%s has %d lines; the limit is %d", f.path, f.lines, maxFileLines))
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if s := f.judge(n); s != "" {
				found = append(found, s)
			}
			return true
		})
	}
	slices.Sort(found)
	return found
}

func (f file) judge(n ast.Node) string {
	switch n := n.(type) {
	case *ast.FuncDecl:
		return f.judgeFunction(n)
	case *ast.TypeSpec:
		methods, ok := n.Type.(*ast.InterfaceType)
		if ok && methods.Methods.NumFields() > maxInterfaceMethods {
			return fmt.Sprintf("%s: interface %s has %d methods; the limit is %d, because interfaces belong to their consumer",
				f.at(n), n.Name.Name, methods.Methods.NumFields(), maxInterfaceMethods)
		}
	}
	return ""
}

func (f file) judgeFunction(fn *ast.FuncDecl) string {
	lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
	switch {
	case fn.Name.Name == "init" && fn.Recv == nil:
		return fmt.Sprintf("%s: init runs code because a package is imported; call a function instead", f.at(fn))
	case lines > maxFunctionLines && !f.test:
		return fmt.Sprintf("%s: %s has %d lines; the limit is %d", f.at(fn), fn.Name.Name, lines, maxFunctionLines)
	}
	return ""
}

func (f file) at(n interface{ Pos() token.Pos }) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(n.Pos()).Line)
}
