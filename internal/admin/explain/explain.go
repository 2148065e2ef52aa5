// Package explain says in plain words what becomes of a run's connections to a
// destination, by which line of the configuration, and which line would change
// that. It reads the configuration that the run has; it judges nothing.
package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// Plans knows what policy has made of a run's rules; *egress.Controller does.
type Plans interface {
	Plan(cgroupID uint64) (*egress.Plan, bool)
}

// Configs knows the configuration in force.
type Configs interface {
	Config() *config.Config
}

// Explainer explains. It is safe for concurrent use.
type Explainer struct {
	plans   Plans
	configs Configs
}

// New returns an Explainer.
func New(plans Plans, configs Configs) *Explainer {
	return &Explainer{plans: plans, configs: configs}
}

// Explain says what becomes of run's connections to a destination that
// ParseDestination has made.
func (e *Explainer) Explain(run *workload.Run, to api.Destination) api.Why {
	w := &api.Why{Run: run.Run.ID, Agent: run.Run.Agent, Mode: run.Mode, Destination: to}
	switch {
	case run.Revoked:
		w.Verdict = api.Denied
		w.Sentence = "The run was revoked, so it may reach nothing, whatever its agent may. A new run of the agent has the agent's rules."
		return *w
	case isLocalhost(to.Name):
		loopback(w)
	case to.Name != "":
		e.name(w, run)
	default:
		e.address(w, run)
	}
	if w.Verdict == api.Denied && run.Mode == decision.ModeObserve {
		w.Notes = append(w.Notes, "The agent is in observe mode: the connection is recorded and happens all the same.")
	}
	return *w
}

func loopback(w *api.Why) {
	w.Verdict = api.Denied
	w.Sentence = "Loopback reaches only what the same run listens on, and that needs no rule."
}

// name explains a destination that is a name.
func (e *Explainer) name(w *api.Why, run *workload.Run) {
	to := w.Destination
	for _, t := range run.Tools {
		if hasHost(t, to) {
			byTool(w, t)
			return
		}
	}
	plan, known := e.plans.Plan(run.CgroupID)
	for i := range run.Agent.Egress {
		r := &run.Agent.Egress[i]
		if r.Name == "" || !config.MatchName(r.Name, to.Name) || !hasPort(r, to.Port) {
			continue
		}
		if known && refused(w, plan, r) {
			return
		}
		if known && plan.IsDirect(to.Name) != r.Direct {
			continue // another rule tells how the name is reached
		}
		byNameRule(w, r)
		return
	}
	w.Verdict = api.Denied
	w.Sentence = fmt.Sprintf("No tool and no egress rule of agent %s allows %s. ", run.Run.Agent, text(to))
	e.otherPorts(w, run)
	if len(w.Notes) > 0 {
		w.Sentence += "The name resolves, and the connection fails at once with EPERM."
	} else {
		w.Sentence += "The name is answered with NXDOMAIN and never leaves the node."
	}
	e.fixName(w, run)
}

func hasHost(t *tool.Tool, to api.Destination) bool {
	return slices.ContainsFunc(t.Reached(), func(h tool.Host) bool {
		return h.Name == to.Name && (to.Port == 0 || h.Port == to.Port)
	})
}

// hasPort reports whether a rule is about a TCP port; 0 is any.
func hasPort(r *config.EgressRule, port uint16) bool {
	return port == 0 || slices.ContainsFunc(r.Ports, func(p config.PortRange) bool { return p.Contains(port) })
}

func byTool(w *api.Why, t *tool.Tool) {
	w.By = &api.Source{Kind: "tool", Text: toolText(t), File: t.Pos.File, Line: t.Pos.Line}
	if t.Client == tool.ClientPass {
		w.Verdict = api.Allowed
		w.Sentence = fmt.Sprintf("Tool %s passes TLS connections to this name on.", t.Name)
		return
	}
	w.Verdict = api.Judged
	w.Sentence = fmt.Sprintf("Tool %s takes HTTP requests to this name. Each is judged by the tool's actions; what is none of them is denied.", t.Name)
	w.Notes = append(w.Notes, fmt.Sprintf("The program speaks plain HTTP to it, as in %s; with https:// the connection is refused.", plainURL(t, w.Destination)))
	for _, a := range t.Actions {
		w.Notes = append(w.Notes, fmt.Sprintf("action %s: %s %s (%s)", a.Name, strings.Join(a.HTTP.Methods, ","), a.HTTP.Path, a.Risk))
	}
}

// plainURL is how a program writes a tool's address.
func plainURL(t *tool.Tool, to api.Destination) string {
	port := to.Port
	for _, h := range t.Hosts {
		if port == 0 && h.Name == to.Name {
			port = h.Port
		}
	}
	return fmt.Sprintf("http://%s:%d/", to.Name, port)
}

func toolText(t *tool.Tool) string {
	hosts := make([]string, len(t.Hosts))
	for i, h := range t.Hosts {
		hosts[i] = h.String()
	}
	return fmt.Sprintf("tool %s: %s", t.Name, strings.Join(hosts, ", "))
}

func byNameRule(w *api.Why, r *config.EgressRule) {
	w.Verdict, w.By = api.Allowed, ruleSource(r)
	w.Sentence = "An egress rule allows this name over TCP."
	if r.Direct {
		w.Sentence = fmt.Sprintf("An egress rule allows this name over %s, directly: its real addresses are open for a while after each look-up.", protocols(r))
		w.Notes = append(w.Notes, "A connection long after the look-up fails with EPERM, reason lease-expired: look the name up again.")
	} else if !r.Opaque {
		w.Notes = append(w.Notes, "Only TLS whose server name is this name is passed on; `opaque: true` would pass other bytes, too.")
	}
	if len(r.Within) == 0 {
		w.Notes = append(w.Notes, "The name must resolve to public addresses; `within: [RANGE]` would let it lead to private ones.")
	}
}

func ruleSource(r *config.EgressRule) *api.Source {
	return &api.Source{Kind: "rule", Text: ruleText(r), File: r.Pos.File, Line: r.Pos.Line}
}

func ruleText(r *config.EgressRule) string {
	dest := r.Name
	if dest == "" {
		dest = r.CIDR.String()
	}
	s := fmt.Sprintf("%s, %s ports %s", dest, r.Protocol, portsText(r.Ports))
	if r.Why != "" {
		s += ", because: " + r.Why
	}
	return s
}

func portsText(ports []config.PortRange) string {
	list := make([]string, len(ports))
	for i, p := range ports {
		list[i] = p.String()
	}
	return strings.Join(list, ", ")
}

func text(to api.Destination) string {
	switch {
	case to.Name != "" && to.Port == 0:
		return to.Name
	case to.Name != "":
		return fmt.Sprintf("%s:%d", to.Name, to.Port)
	case to.Port == 0:
		return to.Address.String()
	}
	return netip.AddrPortFrom(to.Address, to.Port).String()
}
