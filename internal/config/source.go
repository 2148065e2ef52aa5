package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFileSize is the most that one configuration file may have, in bytes.
const maxFileSize = 1 << 20

// nodeFile is the one file that every configuration has.
const nodeFile = "varvel.yaml"

// listFiles returns the configuration files of dir, the node's file first.
func listFiles(dir string, ps *Problems) []string {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		ps.add(Position{File: dir}, "give the directory that contains "+nodeFile, "the configuration cannot be read: %v", reason(err))
		return nil
	case !info.IsDir():
		ps.add(Position{File: dir}, "give the directory that contains "+nodeFile, "this is not a directory")
		return nil
	}
	var files []string
	path := filepath.Join(dir, nodeFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		ps.add(Position{File: path}, missingNodeHint(dir), "the file is missing")
	} else {
		files = append(files, path)
	}
	for _, sub := range []string{"agents.d", "tools.d"} {
		files = append(files, listFolder(filepath.Join(dir, sub), ps)...)
	}
	return files
}

func missingNodeHint(dir string) string {
	if _, err := os.Lstat(filepath.Join(dir, "varvel.yml")); err == nil {
		return "rename varvel.yml to " + nodeFile
	}
	return "create it with at least `trust_domain: example.org`"
}

// listFolder returns the YAML files of agents.d or tools.d, by name. Hidden
// entries are left out: editors and Kubernetes volumes have them.
func listFolder(folder string, ps *Problems) []string {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		ps.add(Position{File: folder}, "make it a directory that the daemon may read", "the directory cannot be read: %v", reason(err))
		return nil
	}
	var files []string
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch ext := filepath.Ext(path); {
		case strings.HasPrefix(e.Name(), "."):
		case ext == ".yaml" || ext == ".yml":
			files = append(files, path)
		default:
			ps.add(Position{File: path}, "rename it to end with .yaml, or move it elsewhere", "only files that end with .yaml or .yml are read here")
		}
	}
	return files
}

// readSource returns the content of one file that is safe to parse.
func readSource(path string, ps *Problems) ([]byte, bool) {
	data, err := readBounded(path)
	if err != nil {
		ps.add(Position{File: path}, readHint(err), "the file cannot be read: %v", reason(err))
		return nil, false
	}
	if i := invalidUTF8(data); i >= 0 {
		line := 1 + bytes.Count(data[:i], []byte("\n"))
		ps.add(Position{File: path, Line: line}, "save the file as UTF-8", "the file is not UTF-8")
		return nil, false
	}
	return data, true
}

// errNotRegular and errTooLarge describe files that are not configuration.
var (
	errNotRegular = errors.New("it is not a regular file")
	errTooLarge   = fmt.Errorf("it is larger than %s", ByteSize(maxFileSize))
)

// readBounded reads a regular file. It opens without blocking, so that a named
// pipe does not stop the daemon.
func readBounded(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(data) > maxFileSize {
		err = errTooLarge
	}
	return data, err
}

// reason strips the operation and the path, which the position tells.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func readHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "let the daemon's user read it"
	case errors.Is(err, fs.ErrNotExist):
		return "it is a link to a file that does not exist; repair or remove the link"
	case errors.Is(err, syscall.ELOOP):
		return "it is a link that leads back to itself; replace it by a file"
	case errors.Is(err, errTooLarge):
		return "split it into several files"
	}
	return "replace it by a plain file"
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// parseDocuments returns the root of each document that is not empty. What
// comes after a syntax error is not read.
func parseDocuments(path string, data []byte, ps *Problems) []*yaml.Node {
	var docs []*yaml.Node
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			syntaxProblem(path, err, ps)
			return docs
		}
		if root := doc.Content[0]; root.ShortTag() != "!!null" {
			docs = append(docs, root)
		}
	}
}

// syntaxProblem takes the line out of the text of a parser's error.
func syntaxProblem(path string, err error, ps *Problems) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	at := Position{File: path}
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if n, _ := fmt.Sscanf(rest, "%d:", &at.Line); n == 1 {
			_, message, _ = strings.Cut(rest, ": ")
		}
	}
	ps.add(at, syntaxHint(message), "this is not YAML: %s", message)
}

func syntaxHint(message string) string {
	switch {
	case strings.Contains(message, "cannot start any token"):
		return "indent with spaces, not tabs; quote text that begins with @, ` or %"
	case strings.Contains(message, "alphabetic or numeric character"):
		return `quote text that begins with an asterisk: "*.example.org"`
	case strings.Contains(message, "mapping values are not allowed"):
		return "check the indentation, and quote text that contains a colon and a space"
	}
	return "check indentation, quotes and brackets at and before this line"
}
