package config

import (
	"go.yaml.in/yaml/v3"

	"github.com/varvel/varvel/internal/tool"
)

// resolvConf is where the node's own name servers are listed (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// Load reads the configuration below dir: varvel.yaml, agents.d and tools.d.
// The error is a *Problems with everything that is wrong; there is no
// configuration then.
func Load(dir string) (*Config, error) {
	return load(dir, resolvConf)
}

func load(dir, resolvConf string) (*Config, error) {
	l := &loader{cfg: &Config{
		Dir: dir, Node: defaultNode(), Agents: map[string]*Agent{}, Tools: map[string]*tool.Tool{},
	}}
	for _, path := range listFiles(dir, &l.problems) {
		l.file(path)
	}
	l.requireNode(Position{File: joinDir(dir, nodeFile)})
	l.finish(resolvConf)
	if err := l.problems.err(); err != nil {
		return nil, err
	}
	return l.cfg, nil
}

// PolicyDirs returns the policy directories below dir's varvel.yaml that exist,
// also if the configuration has problems otherwise: so that who checks it can
// name the problems of the policy as well.
func PolicyDirs(dir string) []string {
	l := &loader{cfg: &Config{Dir: dir, Node: defaultNode(), Agents: map[string]*Agent{}, Tools: map[string]*tool.Tool{}}}
	l.file(joinDir(dir, nodeFile))
	return l.cfg.Node.Policy.Dirs
}

// loader puts the documents of all files together.
type loader struct {
	cfg      *Config
	nameless []*Agent // those whose name was refused; the rest of them is checked all the same
	problems Problems
}

func (l *loader) file(path string) {
	data, ok := readSource(path, &l.problems)
	if !ok {
		return
	}
	r := &reader{file: path, dir: l.cfg.Dir, problems: &l.problems}
	for _, root := range parseDocuments(path, data, &l.problems) {
		l.document(r, root)
	}
}

// requireNode reports that the node's file, which can be read, does not
// describe the node.
func (l *loader) requireNode(at Position) {
	for _, p := range l.problems {
		if p.File == at.File || p.File == l.cfg.Dir {
			return
		}
	}
	if l.cfg.Node.Pos.File == "" {
		l.problems.add(at, "write at least `trust_domain: example.org`", "the node is not described")
	}
}

// document reads one document. Its keys tell what it describes.
func (l *loader) document(r *reader, root *yaml.Node) {
	switch {
	case root.Kind != yaml.MappingNode:
		r.fail(root, "begin with `agent: NAME` or `tool: NAME`", "a document must be keys and values, not %s", describe(root))
	case valueOf(root, "agent") != nil:
		l.addAgent(r, r.agent(root))
	case valueOf(root, "tool") != nil:
		l.addTool(r, r.tool(root))
	case r.file != joinDir(l.cfg.Dir, nodeFile):
		r.fail(root, "begin with `agent: NAME` or `tool: NAME`; the node is described in "+nodeFile, "this document is neither an agent nor a tool")
	case l.cfg.Node.Pos.File != "":
		r.fail(root, "join the two documents", "the node is described twice; first in line %d", l.cfg.Node.Pos.Line)
	default:
		r.node(root, &l.cfg.Node)
	}
}

func (l *loader) addAgent(r *reader, a *Agent) {
	if a.Name == "" {
		l.nameless = append(l.nameless, a)
		return
	}
	if first, ok := l.cfg.Agents[a.Name]; ok {
		l.problems.add(a.Pos, "rename or remove one", "agent %q is defined twice; first at %s", a.Name, first.Pos)
		return
	}
	l.cfg.Agents[a.Name] = a
}

func (l *loader) addTool(r *reader, t *tool.Tool) {
	if t.Name == "" {
		return
	}
	if first, ok := l.cfg.Tools[t.Name]; ok {
		l.problems.add(t.Pos, "rename or remove one", "tool %q is defined twice; first at %s", t.Name, first.Pos)
		return
	}
	l.cfg.Tools[t.Name] = t
}

// finish fills in what depends on more than one document, and checks it.
func (l *loader) finish(resolvConf string) {
	l.cfg.Node.complete(resolvConf)
	for _, t := range l.cfg.Tools {
		l.completeTool(t)
	}
	l.check()
}

// completeTool fills in the token's lifetime, which defaults to the node's,
// and seals the definition.
func (l *loader) completeTool(t *tool.Tool) {
	if limit := l.cfg.Node.Issuer.TokenLifetime; t.Credential != nil {
		switch own := t.Credential.Issuer.Lifetime; {
		case own == 0:
			t.Credential.Issuer.Lifetime = limit
		case own > limit:
			l.problems.add(t.Pos, "shorten `lifetime` or raise `issuer.token_lifetime` in "+nodeFile, "the token of tool %q lives %s, longer than the node's limit of %s", t.Name, own, limit)
		}
	}
	if err := t.Seal(); err != nil {
		l.problems.add(t.Pos, "", "the definition has no canonical form: %v", err)
	}
}
