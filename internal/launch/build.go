package launch

import (
	"embed"
	"fmt"
	"hash/fnv"
	"io/fs"
	"runtime/debug"
	"slices"
	"strings"
)

// sources is this package as it was compiled.
//
//go:embed *.go
var sources embed.FS

// build says which build this program is of, for [FindInit]: a line with the
// version, the Go release and a sum of this package's sources, and a line for
// each module that is linked. The sum tells builds apart that have no version,
// such as those of a working tree that changes. It is no protection: who can
// forge it can write to programs of root.
func build() (string, error) {
	sum := fnv.New128a()
	err := fs.WalkDir(sources, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := sources.ReadFile(name)
		fmt.Fprintln(sum, name, len(text))
		sum.Write(text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the embedded sources: %w", err)
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", fmt.Errorf("this program has no build information; build it with Go modules")
	}
	// Programs of go test have no version, those of a build without one "(devel)".
	version := strings.TrimSuffix(info.Main.Version, "(devel)")
	lines := []string{fmt.Sprintf("varvel %s %s %x", version, info.GoVersion, sum.Sum(nil))}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		lines = append(lines, m.Path+" "+m.Version+" "+m.Sum)
	}
	return strings.Join(lines, "\n"), nil
}

// sameBuild reports whether another program, which links some of the modules of
// this one, is of the same build. A program of go test, which does not know its
// modules, goes by the first line alone.
func sameBuild(ours, theirs string) bool {
	own, others := strings.Split(ours, "\n"), strings.Split(theirs, "\n")
	if len(own) > 1 {
		for _, line := range others {
			if !slices.Contains(own, line) {
				return false
			}
		}
	}
	return own[0] == others[0]
}
