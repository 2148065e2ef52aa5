package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const trust = "trust_domain: example.org\n"

// write makes a file below dir, with its directories.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Each case spoils a good configuration in the file system.
func TestUnreadable(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string // file:line: message, relative to dir
	}{
		"missing directory":  {func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }, ": the configuration cannot be read: no such file or directory"},
		"empty directory":    {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, nodeFile))) }, "/varvel.yaml: the file is missing"},
		"file as directory":  {func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)); write(t, filepath.Dir(dir), "conf", trust) }, ": this is not a directory"},
		"folder as file":     {func(t *testing.T, dir string) { write(t, dir, "agents.d", "agent: a\n") }, "/agents.d: the directory cannot be read: not a directory"},
		"file as folder":     {func(t *testing.T, dir string) { must(t, os.MkdirAll(filepath.Join(dir, "agents.d/a.yaml"), 0o755)) }, "/agents.d/a.yaml: the file cannot be read: it is not a regular file"},
		"folder in a folder": {func(t *testing.T, dir string) { must(t, os.MkdirAll(filepath.Join(dir, "tools.d/more"), 0o755)) }, "/tools.d/more: only files that end with .yaml or .yml are read here"},
		"link to itself":     {func(t *testing.T, dir string) { link(t, "a.yaml", dir, "agents.d/a.yaml") }, "/agents.d/a.yaml: the file cannot be read: too many levels of symbolic links"},
		"node link to itself": {func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, nodeFile)))
			link(t, nodeFile, dir, nodeFile)
		}, "/varvel.yaml: the file cannot be read: too many levels of symbolic links"},
		"link to nothing": {func(t *testing.T, dir string) { link(t, "/nonexistent/x", dir, "tools.d/t.yml") }, "/tools.d/t.yml: the file cannot be read: no such file or directory"},
		"named pipe":      {func(t *testing.T, dir string) { pipe(t, dir, "agents.d/a.yaml") }, "/agents.d/a.yaml: the file cannot be read: it is not a regular file"},
		"too large": {func(t *testing.T, dir string) {
			write(t, dir, "agents.d/a.yaml", strings.Repeat("#\n", maxFileSize/2)+"#")
		}, "/agents.d/a.yaml: the file cannot be read: it is larger than 1MiB"},
		"not UTF-8":         {func(t *testing.T, dir string) { write(t, dir, "agents.d/a.yaml", "# ok: \uFFFD\nagent: b\xfccher\n") }, "/agents.d/a.yaml:2: the file is not UTF-8"},
		"UTF-16":            {func(t *testing.T, dir string) { write(t, dir, "agents.d/a.yaml", "\xff\xfea\x00") }, "/agents.d/a.yaml:1: the file is not UTF-8"},
		"control character": {func(t *testing.T, dir string) { write(t, dir, "agents.d/a.yaml", "agent: a\x01\n") }, "/agents.d/a.yaml: this is not YAML: control characters are not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "conf")
			write(t, dir, nodeFile, trust)
			if _, err := Load(dir); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.spoil(t, dir)
			_, err := Load(dir)
			if err == nil {
				t.Fatal("no error")
			}
			ps := *asProblems(t, err)
			got, _, _ := strings.Cut(ps[0].String(), "\n")
			if len(ps) != 1 || got != dir+c.want || ps[0].Hint == "" {
				t.Errorf("got %v\nwant %s", err, dir+c.want)
			}
		})
	}
}

func link(t *testing.T, target, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.Symlink(target, path))
}

func pipe(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, syscall.Mkfifo(path, 0o644))
}

func TestPermissionDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads every file")
	}
	dir := t.TempDir()
	must(t, os.Chmod(write(t, dir, nodeFile, trust), 0))
	_, err := Load(dir)
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("got %v", err)
	}
}

// A file of exactly the limit, hidden files and good links are read or left
// alone.
func TestReadableOddities(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, nodeFile, trust)
	full := "agent: a\n"
	real := write(t, dir, "elsewhere/a.txt", full+strings.Repeat("#", maxFileSize-len(full)))
	link(t, real, dir, "agents.d/a.yml")
	write(t, dir, "agents.d/.b.yaml.swp", "not read")
	write(t, dir, "agents.d/empty.yaml", "# nothing\n---\n---\n")
	write(t, dir, "README", "not read")
	write(t, dir, "agents.d/bom.yaml", "\uFEFFagent: bom\r\nowner: x\r\n")
	cfg, err := Load(dir)
	must(t, err)
	if len(cfg.Agents) != 2 || cfg.Agents["a"] == nil || cfg.Agents["bom"] == nil {
		t.Errorf("agents: %v", cfg.Agents)
	}
}

func TestCAFile(t *testing.T) {
	tool := "tool: t\nhosts: [t.example:443]\nca_file: ca.pem\nactions: [{ name: a, http: { methods: [GET], path: / }, risk: read }]\n"
	dir := t.TempDir()
	write(t, dir, nodeFile, trust)
	write(t, dir, "tools.d/t.yaml", tool)
	write(t, dir, "ca.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	_, err := Load(dir)
	if err == nil || !strings.Contains(err.Error(), "has no certificate in PEM form") {
		t.Errorf("got %v", err)
	}
	write(t, dir, "ca.pem", testCA(t))
	cfg, err := Load(dir)
	must(t, err)
	if got := cfg.Tools["t"].CAFile; got != filepath.Join(dir, "ca.pem") {
		t.Errorf("ca_file: %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*/varvel.yaml", "testdata/*/*/*.d/*.y*ml"} {
		paths, _ := filepath.Glob(pattern)
		for _, p := range paths {
			data, err := os.ReadFile(p)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 8192 || os.WriteFile(filepath.Join(dir, nodeFile), data, 0o644) != nil {
			t.Skip()
		}
		cfg, err := Load(dir)
		if (err == nil) != (cfg != nil) {
			t.Fatalf("%v with %v", cfg, err)
		}
		if err != nil {
			asProblems(t, err)
			return
		}
		checkInvariants(t, cfg)
	})
}

// checkInvariants holds what the rest of Varvel relies on.
func checkInvariants(t *testing.T, cfg *Config) {
	t.Helper()
	for name, a := range cfg.Agents {
		if a.Name != name || name == "" || a.Mode == "" {
			t.Fatalf("agent %q: %+v", name, a)
		}
		for _, tool := range a.Tools {
			if cfg.Tools[tool] == nil {
				t.Fatalf("tool %q does not exist", tool)
			}
		}
		for _, r := range a.Egress {
			if (r.Name == "") == !r.CIDR.IsValid() || len(r.Ports) == 0 || r.Pos.Line == 0 {
				t.Fatalf("rule %+v", r)
			}
			if _, _, bad := ForbiddenAddress(r.CIDR.Addr()); r.CIDR.IsValid() && bad {
				t.Fatalf("rule %+v", r)
			}
		}
	}
	for name, tool := range cfg.Tools {
		if tool.Name != name || name == "" || len(tool.Hosts) == 0 || tool.Revision == "" {
			t.Fatalf("tool %q: %+v", name, tool)
		}
		for _, a := range tool.Actions {
			if a.Name == "" || a.Risk == "" || len(a.HTTP.Methods) == 0 || a.HTTP.Path == "" {
				t.Fatalf("action %+v", a)
			}
		}
	}
}
