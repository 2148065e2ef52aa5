package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/varvel/varvel/policy"
)

// Bounds of what is read from the operator's directories.
const (
	maxModules    = 1000
	maxModuleSize = 1 << 20 // bytes
)

// module is one Rego file.
type module struct {
	name   string // below its directory, with slashes: what the revision covers
	file   string // as a person finds it
	text   string
	extra  bool // the operator's, not the default policy's
	isTest bool
}

// load reads the default policy and the modules below dirs.
func load(dirs []string) ([]module, error) {
	modules, err := embedded()
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if modules, err = loadDir(modules, dir, stop); err != nil {
			return nil, err
		}
	}
	return modules, nil
}

// stop is the fault of a load that ends at the first file that cannot be read.
func stop(_ string, err error) error { return err }

// embedded returns the default policy.
func embedded() ([]module, error) {
	names, err := fs.Glob(policy.Modules, "*.rego")
	if err != nil {
		return nil, fmt.Errorf("default policy: %w", err)
	}
	var modules []module
	for _, name := range names {
		text, err := policy.Modules.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("default policy: %w", err)
		}
		modules = append(modules, module{
			name: "varvel/" + name, file: "varvel/" + name, text: string(text), isTest: isTest(name),
		})
	}
	return modules, nil
}

// loadDir appends the modules below dir. Hidden files and directories are
// skipped: what mounts configuration keeps its own there. A link to a file is
// followed, a link to a directory is not. What cannot be read is put to fault, and passed over
// if that returns nil.
func loadDir(modules []module, dir string, fault func(file string, err error) error) ([]module, error) {
	root := filepath.Clean(dir)
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fault(file, fmt.Errorf("policy directory %s cannot be read: %w", dir, err))
		case file != root && strings.HasPrefix(entry.Name(), "."):
			return skip(entry)
		case entry.IsDir():
			return nil
		case len(modules) >= maxModules:
			return cmp.Or(fault(dir, fmt.Errorf("policy directory %s: more than %d modules; put fewer files there", dir, maxModules)), fs.SkipAll)
		}
		m, ok, err := loadFile(root, file)
		if ok {
			modules = append(modules, m)
		}
		if err != nil {
			return fault(file, err)
		}
		return nil
	})
	return modules, err
}

func skip(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// loadFile reads one file; ok is false for one that is no policy.
func loadFile(dir, file string) (m module, ok bool, err error) {
	switch filepath.Ext(file) {
	case ".rego":
	case ".json", ".yaml", ".yml":
		return module{}, false, fmt.Errorf("%s: data files are not read; write the data as a Rego rule, or move the file away", file)
	default:
		return module{}, false, nil
	}
	text, err := readBounded(file)
	if err != nil {
		return module{}, false, err
	}
	rel, err := filepath.Rel(dir, file)
	if err != nil {
		return module{}, false, fmt.Errorf("policy file %s: %w", file, err)
	}
	name := path.Join("custom", filepath.ToSlash(rel))
	return module{name: name, file: file, text: text, extra: true, isTest: isTest(name)}, true, nil
}

// readBounded reads a regular file of at most maxModuleSize bytes.
func readBounded(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("policy file %s cannot be read: %w", file, err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("policy file %s is not a regular file; move it away", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("policy file %s cannot be read: %w", file, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxModuleSize+1))
	if err != nil {
		return "", fmt.Errorf("policy file %s cannot be read: %w", file, err)
	}
	if len(text) > maxModuleSize {
		return "", fmt.Errorf("policy file %s is larger than %d bytes; split it", file, maxModuleSize)
	}
	return string(text), nil
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.rego") }

// revision is the digest of the modules that are evaluated, sorted by name.
func revision(modules []module) string {
	sorted := slices.DeleteFunc(slices.Clone(modules), func(m module) bool { return m.isTest })
	slices.SortStableFunc(sorted, func(a, b module) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.text, b.text)
	})
	h := sha256.New()
	for _, m := range sorted {
		fmt.Fprintf(h, "%d:%s%d:%s", len(m.name), m.name, len(m.text), m.text)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}
