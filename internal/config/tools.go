package config

import (
	"crypto/x509"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
)

// maxBodyLimit is the largest body that the gateway buffers, in bytes.
const maxBodyLimit = 64 << 20

// tool reads a tool's document.
func (r *reader) tool(n *yaml.Node) *tool.Tool {
	t := &tool.Tool{Client: tool.ClientHTTP, Pos: r.at(n)}
	found := r.object(n, "tool", fields{
		"tool": func(key string, v *yaml.Node) {
			t.Pos = r.at(v)
			r.text(keep(&t.Name, parseName))(key, v)
		},
		"hosts":      r.list(r.text(collect(&t.Hosts, tool.ParseHost))),
		"client":     r.text(keep(&t.Client, parseClient)),
		"upstream":   r.text(keep(&t.Upstream, oneOf(tool.UpstreamTLS, tool.UpstreamPlain))),
		"within":     r.list(r.text(collect(&t.Within, parseCIDR))),
		"via":        r.text(keep(&t.Via, parseVia)),
		"ca_file":    r.text(keep(&t.CAFile, r.caFile)),
		"credential": r.credential(t),
		"actions":    r.list(func(_ string, item *yaml.Node) { t.Actions = append(t.Actions, r.action(item)) }),
	})
	r.checkTool(n, found, t)
	return t
}

// parseVia reads from where names are dialled; the node is the default.
func parseVia(s string) (string, error) {
	const node = "node"
	s, err := oneOf(node, tool.ViaWorkload)(s)
	if s == node {
		s = ""
	}
	return s, err
}

func parseClient(s string) (string, error) {
	if s == "intercept" {
		return "", problem("use `client: http`, where the program speaks plain HTTP and the gateway TLS, or `client: pass`", "`client: intercept` is not available in this version of Varvel")
	}
	return oneOf(tool.ClientHTTP, tool.ClientPass)(s)
}

// checkTool judges what depends on more than one key.
func (r *reader) checkTool(n *yaml.Node, found map[string]*yaml.Node, t *tool.Tool) {
	if emptyList(n, "hosts") {
		r.fail(n, "add `hosts: [api.example.org:443]`", "tool %q has no `hosts`", t.Name)
	}
	if t.Client == tool.ClientPass {
		r.checkPass(found)
	} else {
		r.checkHTTP(n, found, t)
	}
	r.checkGrants(n, "within", t.Within, t.Upstream == tool.UpstreamPlain)
	r.checkActions(t)
}

// checkPass refuses what needs a look into the connection.
func (r *reader) checkPass(found map[string]*yaml.Node) {
	for _, key := range []string{"actions", "credential", "upstream", "ca_file"} {
		if found[key] != nil {
			r.fail(found[key], "remove it, or use `client: http`", "`%s` has no effect with `client: pass`, which passes bytes that it cannot read", key)
		}
	}
}

func (r *reader) checkHTTP(n *yaml.Node, found map[string]*yaml.Node, t *tool.Tool) {
	if t.Upstream == "" {
		t.Upstream = tool.UpstreamTLS
	}
	if emptyList(n, "actions") {
		r.fail(n, "add `actions: [{ name: read, http: { methods: [GET], path: /** }, risk: read }]`", "tool %q has no `actions`, so every request would be refused", t.Name)
	}
	if t.Upstream != tool.UpstreamPlain {
		return
	}
	if emptyList(n, "within") {
		r.fail(found["upstream"], "add `within: [127.0.0.0/8]`, or the range in which the service is", "`upstream: plain` needs `within`, because nothing else proves who answers")
	}
	if found["ca_file"] != nil {
		r.fail(found["ca_file"], "remove it, or use `upstream: tls`", "`ca_file` has no effect with `upstream: plain`")
	}
}

// checkActions finds two actions with one name, or for the same requests.
func (r *reader) checkActions(t *tool.Tool) {
	for i, a := range t.Actions {
		for _, b := range t.Actions[:i] {
			if a.Name == b.Name && a.Name != "" {
				r.problems.add(a.Pos, "rename one", "tool %q has two actions %q; first at %s", t.Name, a.Name, b.Pos)
			}
			if method := commonMethod(a, b); method != "" && a.HTTP.Path == b.HTTP.Path && a.HTTP.Path != "" {
				r.problems.add(a.Pos, "remove the method or the path from one of them", "actions %q and %q of tool %q overlap: both are %s %s; first at %s", b.Name, a.Name, t.Name, method, a.HTTP.Path, b.Pos)
			}
		}
	}
}

func commonMethod(a, b tool.Action) string {
	for _, x := range a.HTTP.Methods {
		for _, y := range b.HTTP.Methods {
			if x == y {
				return x
			}
		}
	}
	return ""
}

func (r *reader) credential(t *tool.Tool) field {
	return func(key string, n *yaml.Node) {
		c := &tool.Credential{}
		t.Credential = c
		found := r.object(n, "credential", fields{
			"issuer": r.tokenIssuer(&c.Issuer),
			"attach": r.attach(c),
		})
		if n.Kind == yaml.MappingNode && found["issuer"] == nil && found["vault"] == nil {
			r.fail(n, "add `issuer: { audience: … }`", "`credential` does not say where the token comes from")
		}
	}
}

func (r *reader) tokenIssuer(to *tool.Issuer) field {
	return func(key string, n *yaml.Node) {
		found := r.object(n, "credential.issuer", fields{
			"audience": r.text(keep(&to.Audience, parseAudience)),
			"lifetime": r.scalar("a duration", keep(&to.Lifetime, durationIn(minLifetime, maxLifetime))),
		})
		if n.Kind == yaml.MappingNode && found["audience"] == nil {
			r.fail(n, "add `audience: …`, the name by which the service knows itself", "`audience` is missing")
		}
	}
}

func (r *reader) attach(c *tool.Credential) field {
	return func(key string, n *yaml.Node) {
		c.Attach = &tool.Attach{}
		found := r.object(n, "attach", fields{
			"header": r.text(keep(&c.Attach.Header, tool.ParseHeader)),
			"value": r.text(func(s string) error {
				c.Attach.Value = s
				return tool.CheckAttachValue(s)
			}),
		})
		for _, key := range []string{"header", "value"} {
			if n.Kind == yaml.MappingNode && found[key] == nil {
				r.fail(n, `write { header: Authorization, value: "Bearer {{ token }}" }`, "`%s` is missing in `attach`", key)
			}
		}
	}
}

func parseAudience(s string) (string, error) {
	if s == "" || len(s) > 1024 || strings.ContainsFunc(s, func(c rune) bool { return unicode.IsControl(c) || unicode.IsSpace(c) }) {
		return "", problem("write one name or URL, without spaces", "%q is not an audience", s)
	}
	return s, nil
}

// caFile resolves a file that must contain at least one certificate.
func (r *reader) caFile(s string) (string, error) {
	path := joinDir(r.dir, s)
	data, err := readBounded(path)
	if err != nil {
		return "", problem("give a PEM file that the daemon may read; a relative path starts at the configuration's directory", "file %s cannot be read: %v", path, reason(err))
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return "", problem("give a file with certificates between BEGIN CERTIFICATE and END CERTIFICATE", "file %s has no certificate in PEM form", path)
	}
	return path, nil
}

// action reads one action.
func (r *reader) action(n *yaml.Node) tool.Action {
	a := tool.Action{Threshold: 1, MaxBody: tool.DefaultMaxBody, Pos: r.at(n)}
	found := r.object(n, "action", fields{
		"name":           r.text(keep(&a.Name, parseName)),
		"http":           r.http(&a.HTTP),
		"risk":           r.text(keep(&a.Risk, oneOf(decision.RiskRead, decision.RiskWrite, decision.RiskIrreversible))),
		"threshold":      r.scalar("a number from 0 to 1", keep(&a.Threshold, parseThreshold)),
		"approval":       r.text(keep(&a.Approval, oneOf(decision.FourEyes, decision.Confirm))),
		"digest_headers": r.list(r.text(collect(&a.DigestHeaders, tool.ParseHeader))),
		"max_body":       r.scalar("a size", keep(&a.MaxBody, parseBodySize)),
	})
	if n.Kind == yaml.MappingNode {
		r.checkAction(n, found, a)
	}
	return a
}

func (r *reader) checkAction(n *yaml.Node, found map[string]*yaml.Node, a tool.Action) {
	if found["mcp"] == nil && found["sql"] == nil && found["http"] == nil {
		r.fail(n, "add `http: { methods: [GET], path: /** }`", "`http` is missing in an action")
	}
	for key, hint := range map[string]string{"name": "add `name: things.read`", "risk": "add `risk: read`, `write` or `irreversible`"} {
		if found[key] == nil {
			r.fail(n, hint, "`%s` is missing in an action", key)
		}
	}
	if found["threshold"] != nil && a.Risk != decision.RiskWrite && a.Risk != "" {
		r.fail(found["threshold"], "remove it", "`threshold` has no effect on an action with `risk: %s`, only on a write", a.Risk)
	}
	if found["approval"] != nil && a.Risk == decision.RiskRead {
		r.fail(found["approval"], "remove it, or give the action another risk", "`approval` has no effect on an action with `risk: read`, which is allowed")
	}
}

func (r *reader) http(to *tool.HTTP) field {
	return func(key string, n *yaml.Node) {
		found := r.object(n, key, fields{
			"methods": r.list(r.text(collect(&to.Methods, parseMethod))),
			"path":    r.text(keep(&to.Path, tool.ParseTemplate)),
		})
		if n.Kind != yaml.MappingNode {
			return
		}
		if emptyList(n, "methods") {
			r.fail(n, "add `methods: [GET]`", "`methods` is missing in `http`")
		}
		if found["path"] == nil {
			r.fail(n, "add `path: /**`, or a narrower path", "`path` is missing in `http`")
		}
	}
}

// parseMethod adds the nearest method to the error of an unknown one.
func parseMethod(s string) (string, error) {
	err := tool.CheckMethod(s)
	var value *tool.ValueError
	if errors.As(err, &value) && value.Hint == "" {
		return "", problem(didYouMean(s, tool.Methods()), "%s", value.Message)
	}
	return s, err
}

func parseThreshold(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 1 {
		return 0, problem("write a number such as 0.9", "%q is not a number from 0 to 1", s)
	}
	return f, nil
}

func parseBodySize(s string) (int64, error) {
	n, err := sizeIn(0, maxBodyLimit)(s)
	return int64(n), err
}
