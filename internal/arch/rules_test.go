package arch

import (
	"fmt"
	"slices"
	"strings"
)

// only says that a package may be imported by nobody but the importers: one
// place knows it, so one place changes when it does. Folders below a named
// folder count as it. An importer of nil means that nobody may.
type only struct {
	imported  string // an import path, or a folder of ours
	importers []string
	tests     bool // tests anywhere may import it as well
	reason    string
}

func onlyRules() []only {
	return []only{
		{imported: "github.com/cilium/ebpf", importers: []string{"internal/kernel"},
			reason: "kernel state has one owner; everything else speaks to it through small interfaces"},
		{imported: "github.com/vishvananda/netlink", importers: []string{"internal/hostnet"},
			reason: "sockets, links and namespaces of the host are changed in one place"},
		{imported: "github.com/vishvananda/netns", importers: []string{"internal/hostnet"},
			reason: "sockets, links and namespaces of the host are changed in one place"},
		{imported: "github.com/open-policy-agent/opa", importers: []string{"internal/policy"},
			reason: "policy answers with one fixed object; nobody else sees what OPA returns"},
		{imported: "github.com/hashicorp/vault", importers: []string{"internal/broker/vault"},
			reason: "Vault is one source of credentials among others, behind the broker"},
		{imported: "github.com/google/gopacket", importers: []string{"internal/capture"},
			reason: "the library is unmaintained; one place decodes refused packets with it"},
		{imported: "github.com/landlock-lsm/go-landlock", importers: []string{"internal/launch"},
			reason: "a run is confined by its launcher and by nothing else"},
		{imported: "github.com/elastic/go-seccomp-bpf", importers: []string{"internal/launch"},
			reason: "a run is confined by its launcher and by nothing else"},
		{imported: "go.yaml.in/yaml", importers: []string{"internal/config"}, tests: true,
			reason: "the strict decoder is the only door for what people write"},
		{imported: "github.com/alecthomas/kong", importers: []string{"cmd/varvel"},
			reason: "only the command line tool has a command tree"},
		{imported: "internal/node", importers: []string{"cmd/varveld"}, tests: true,
			reason: "wiring is done once, at the top; what is wired does not know it"},
		{imported: "internal/testutil", tests: true,
			reason: "help for tests is not shipped"},
		{imported: "cmd", importers: []string{"cmd"}, tests: true,
			reason: "commands are leaves"},
		{imported: "internal/rig", importers: []string{"internal/bench", "internal/chaos", "cmd/varvel-bench", "cmd/varvel-chaos"}, tests: true,
			reason: "harnesses are not shipped"},
		{imported: "unsafe", importers: []string{"internal/kernel", "internal/launch", "internal/keeper", "internal/hostnet"}, tests: true,
			reason: "memory is cast only where the kernel's ABI demands it"},
		{imported: "C", reason: "the binaries are static; they are built without cgo"},
		{imported: "log", reason: "a *slog.Logger is passed in"},
		{imported: "github.com/stretchr/testify", reason: "the standard library and go-cmp are enough"},
	}
}

// never says that a package, tests aside, may not import some others.
type never struct {
	pkg     string
	imports []string // import paths or folders of ours; "ours" is all of them, "ours but X" all except X, "foreign" all outside the standard library
	reason  string
}

func neverRules() []never {
	return []never{
		{"internal/decision", []string{"ours", "foreign"},
			"it is the leaf where all layers meet; standard library only"},
		{"internal/kernel", []string{"internal/egress", "internal/gateway", "internal/policy", "internal/config"},
			"the kernel satisfies its users' interfaces without knowing them"},
		{"internal/gateway", []string{"internal/policy", "internal/approval", "internal/audit"},
			"every action is judged by decision.Engine; nothing goes round it"},
		{"internal/endpoint", []string{"internal/policy", "internal/approval", "internal/audit"},
			"every action is judged by decision.Engine; nothing goes round it"},
		{"internal/egress", []string{"internal/policy", "internal/approval", "internal/audit", "internal/kernel"},
			"every action is judged by decision.Engine, and the datapath is an interface"},
		{"internal/policy", []string{"internal/approval", "internal/audit", "internal/gateway", "internal/endpoint", "internal/egress", "internal/kernel"},
			"policy answers a question; it does not act"},
		{"internal/audit", []string{"internal/policy", "internal/approval", "internal/gateway", "internal/endpoint", "internal/egress", "internal/kernel"},
			"the log is written by all and depends on none"},
		{"internal/approval", []string{"internal/policy", "internal/gateway", "internal/endpoint", "internal/egress", "internal/kernel"},
			"an approval is found by people, not by the layer that waits for it"},
		{"internal/tool", []string{"internal/gateway", "internal/broker", "internal/policy", "internal/audit"},
			"the catalogue says what there is; it does nothing"},
		{"internal/keeper", []string{"ours"},
			"it holds descriptors and knows nothing of what they are"},
		{"cmd/varvel", []string{"internal/kernel", "internal/hostnet", "internal/broker"},
			"the operator's tool asks the daemon; it has no power of its own"},
		{"internal/chaos", []string{"internal/kernel", "internal/node", "internal/launch", "internal/admin", "internal/egress", "internal/config"},
			"the harness sees Varvel as its users do: by its commands and signals, and by what receivers got"},
		{"internal/rig", []string{"ours"},
			"a harness stands on it, whatever it looks at"},
		{"cmd/varvel-init", []string{"ours but internal/launch", "foreign"},
			"it starts twice in each run, so it stays small"},
		{"cmd/varvel-demo", []string{"internal"},
			"the demo sees Varvel as its users do: by its commands, and by what servers received"},
	}
}

// broken returns a sentence for every import that breaks a rule.
func broken(files []file, onlys []only, nevers []never) []string {
	var found []string
	for _, f := range files {
		for _, imported := range f.imports {
			for _, r := range onlys {
				if r.breaks(f, imported) {
					found = append(found, fmt.Sprintf("%s imports %s, which %s: %s", f.path, imported, r.who(), r.reason))
				}
			}
			for _, r := range nevers {
				if r.breaks(f, imported) {
					found = append(found, fmt.Sprintf("%s imports %s, which %s must not: %s", f.path, imported, r.pkg, r.reason))
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

func (r only) breaks(f file, imported string) bool {
	if !matches(imported, r.imported) || (r.tests && f.test) {
		return false
	}
	// A package's own folder may always import what is below it.
	allowed := append(slices.Clone(r.importers), r.imported)
	return !slices.ContainsFunc(allowed, func(pkg string) bool { return within(f.pkg, pkg) })
}

func (r only) who() string {
	if len(r.importers) == 0 {
		return "nothing may"
	}
	return "only " + strings.Join(r.importers, ", ") + " may"
}

func (r never) breaks(f file, imported string) bool {
	if f.test || !within(f.pkg, r.pkg) {
		return false
	}
	folder, isOurs := ours(imported)
	return slices.ContainsFunc(r.imports, func(forbidden string) bool {
		but, except := strings.CutPrefix(forbidden, "ours but ")
		switch {
		case forbidden == "ours":
			return isOurs && !within(folder, r.pkg)
		case except:
			return isOurs && folder != but && !within(folder, r.pkg)
		case forbidden == "foreign":
			return !isOurs && !standard(imported)
		default:
			return matches(imported, forbidden)
		}
	})
}

// matches reports whether an import is what a rule names: a folder of ours or a
// module, with all below it (opa/v1/rego is opa), or one standard package.
func matches(imported, named string) bool {
	if folder, isOurs := ours(imported); isOurs {
		return within(folder, named)
	}
	if standard(imported) {
		return imported == named
	}
	return within(imported, named)
}
