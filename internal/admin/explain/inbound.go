package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/workload"
)

// ParsePeer reads who would come to a run, and to which of its ports over which
// protocol, "tcp" or "udp". Errors say to people what is wrong.
func ParsePeer(from, port, protocol string) (api.Inbound, error) {
	addr, err := netip.ParseAddr(strings.Trim(from, "[]"))
	switch {
	case err != nil:
		return api.Inbound{}, fmt.Errorf("%.80q is not an address; names say nothing about who connects", from)
	case addr.Zone() != "":
		return api.Inbound{}, errors.New("an address with a zone is link-local, and who has one never comes in")
	case protocol != config.ProtocolTCP && protocol != config.ProtocolUDP:
		return api.Inbound{}, fmt.Errorf("%.20q is neither tcp nor udp", protocol)
	}
	n, err := parsePort(port)
	if err != nil {
		return api.Inbound{}, err
	}
	return api.Inbound{From: addr.Unmap(), Port: n, Protocol: protocol}, nil
}

// ExplainInbound says what becomes of those who come to a port of a run.
func (e *Explainer) ExplainInbound(run *workload.Run, in api.Inbound) api.Why {
	w := api.Why{Run: run.Run.ID, Agent: run.Run.Agent, Mode: run.Mode, Inbound: &in, Verdict: api.Denied}
	switch {
	case run.Revoked:
		w.Sentence = "The run was revoked, so nobody may reach it."
		return w
	case in.From.IsLinkLocalUnicast() && in.From.Is6():
		w.Sentence = "The peer has a link-local address, and who has one never comes in."
		return w
	default:
		e.listen(&w, run, in)
	}
	if w.Verdict == api.Denied && run.Mode == decision.ModeObserve {
		w.Notes = append(w.Notes, "The agent is in observe mode: the connection is recorded and happens all the same.")
	}
	return w
}

func (e *Explainer) listen(w *api.Why, run *workload.Run, in api.Inbound) {
	if in.From.IsLoopback() {
		w.Notes = append(w.Notes, "The run itself reaches its listeners on loopback without a rule; this is about other programs of the host.")
	}
	plan, known := e.plans.Plan(run.CgroupID)
	for i := range run.Agent.Listen {
		r := &run.Agent.Listen[i]
		if !r.Grants(in.From, in.Port) || r.Protocol != in.Protocol && r.Protocol != config.ProtocolAny {
			continue
		}
		if known && listenRefused(w, plan, r) {
			return
		}
		w.Verdict, w.By = api.Allowed, listenSource(r)
		w.Sentence = fmt.Sprintf("A listen rule grants port %d to this peer over %s.", in.Port, strings.ToUpper(in.Protocol))
		return
	}
	w.Sentence = fmt.Sprintf("No listen rule of agent %s grants port %d to %s over %s. Its packets are dropped; no program of the run sees them.",
		run.Run.Agent, in.Port, in.From, strings.ToUpper(in.Protocol))
	fixListen(w, run, in)
}

func listenRefused(w *api.Why, plan *egress.Plan, r *config.ListenRule) bool {
	for _, f := range plan.ListenRefused {
		if f.Rule.Pos != r.Pos {
			continue
		}
		w.By = listenSource(r)
		w.Sentence = "A listen rule names this peer and port, but policy does not let it be used."
		for _, reason := range f.Reasons {
			w.Notes = append(w.Notes, fmt.Sprintf("policy %s: %s", reason.Rule, reason.Text))
		}
		w.Notes = append(w.Notes, "decision "+f.DecisionID)
		return true
	}
	return false
}

func listenSource(r *config.ListenRule) *api.Source {
	return &api.Source{Kind: "rule", Text: fmt.Sprintf("listen rule for port %s", r.Port), File: r.Pos.File, Line: r.Pos.Line}
}

// fixListen makes the line of a listen rule.
func fixListen(w *api.Why, run *workload.Run, in api.Inbound) {
	protocol := ""
	if in.Protocol != config.ProtocolTCP {
		protocol = ", protocol: " + in.Protocol
	}
	at, has := place(run.Agent, "listen")
	line := fmt.Sprintf("  - { port: %d%s, from: [%q], why: \"say why\" }", in.Port, protocol, netip.PrefixFrom(in.From, in.From.BitLen()))
	if !has {
		line = "listen:\n" + line
	}
	w.Fix = &api.Fix{File: at.File, Line: at.Line, Key: "listen", YAML: line}
}
