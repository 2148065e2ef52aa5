package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// module is the path that every import of ours begins with.
const module = "github.com/varvel/varvel"

// file is one Go file of the tree.
type file struct {
	path    string // slash-separated, from the module's root
	pkg     string // its folder: "internal/decision", "." for the root
	test    bool
	imports []string
	lines   int
	made    bool // generated
	fset    *token.FileSet
	syntax  *ast.File
}

// readTree parses every Go file below root, whatever its build constraints say,
// so that a rule holds on every platform.
func readTree(root fs.FS) ([]file, error) {
	var files []file
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipped(d.Name()):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		f, err := readFile(root, name)
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	return files, err
}

// skipped reports folders that the go command leaves out as well.
func skipped(name string) bool {
	return name != "." && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_"))
}

func readFile(root fs.FS, name string) (file, error) {
	src, err := fs.ReadFile(root, name)
	if err != nil {
		return file{}, err
	}
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return file{}, err
	}
	f := file{
		path: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
		lines: bytes.Count(src, []byte("\n")), made: ast.IsGenerated(syntax), fset: fset, syntax: syntax,
	}
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file{}, err
		}
		f.imports = append(f.imports, imported)
	}
	return f, nil
}

// within reports whether the import path or folder p is root or below it.
func within(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

// standard reports whether an import is of the standard library: those have no
// dot in their first element.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// ours turns an import of this module into its folder.
func ours(imported string) (pkg string, ok bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}
