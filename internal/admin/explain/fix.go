package explain

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// defaultPort is what a fix opens if no port was asked about.
const defaultPort = 443

// otherPorts says at which other ports the destination can be reached.
func (e *Explainer) otherPorts(w *api.Why, run *workload.Run) {
	to := w.Destination
	if to.Port == 0 {
		return
	}
	for _, t := range run.Tools {
		for _, h := range t.Reached() {
			if h.Name == to.Name {
				w.Notes = append(w.Notes, fmt.Sprintf("Tool %s reaches this name at port %d.", t.Name, h.Port))
			}
		}
	}
	for i := range run.Agent.Egress {
		if r := &run.Agent.Egress[i]; covers(r, to) {
			w.Notes = append(w.Notes, fmt.Sprintf("The rule at %s allows other ports: %s.", r.Pos, portsText(r.Ports)))
		}
	}
}

func covers(r *config.EgressRule, to api.Destination) bool {
	if to.Name != "" {
		return r.Name != "" && config.MatchName(r.Name, to.Name)
	}
	return r.Name == "" && r.CIDR.Contains(to.Address)
}

// fixName says how to allow a name: with a tool that there is, else with a rule.
func (e *Explainer) fixName(w *api.Why, run *workload.Run) {
	to := w.Destination
	cfg := e.configs.Config()
	for _, name := range slices.Sorted(maps.Keys(cfg.Tools)) {
		if t := cfg.Tools[name]; hasHost(t, to) {
			fixTool(w, run, t)
			return
		}
	}
	fixRule(w, run, fmt.Sprintf("name: %s", to.Name))
}

func fixTool(w *api.Why, run *workload.Run, t *tool.Tool) {
	at, _ := place(run.Agent, "tools")
	names := append(slices.Clone(run.Agent.Tools), t.Name)
	w.Fix = &api.Fix{File: at.File, Line: at.Line, Key: "tools", YAML: fmt.Sprintf("tools: [%s]", strings.Join(names, ", "))}
	w.Notes = append(w.Notes, fmt.Sprintf("Tool %s has this name; the agent does not list it.", t.Name))
}

func fixAddress(w *api.Why, run *workload.Run) {
	addr := w.Destination.Address
	fixRule(w, run, fmt.Sprintf("cidr: %q", netip.PrefixFrom(addr, addr.BitLen())))
}

// fixRule makes the line of an egress rule.
func fixRule(w *api.Why, run *workload.Run, dest string) {
	port := w.Destination.Port
	if port == 0 {
		port = defaultPort
	}
	at, has := place(run.Agent, "egress")
	line := fmt.Sprintf("  - { %s, ports: [%d], why: \"say why\" }", dest, port)
	if !has {
		line = "egress:\n" + line
	}
	w.Fix = &api.Fix{File: at.File, Line: at.Line, Key: "egress", YAML: line}
}

// place returns where a key of the agent is, and whether it is there. Without
// the key it is where the agent begins.
func place(a *config.Agent, key string) (config.Position, bool) {
	at := a.Where(key)
	return at, at != a.Pos
}
