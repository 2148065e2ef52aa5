package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/workload"
)

// dnsPort is redirected to the DNS proxy, whatever the address.
const dnsPort = 53

// endpoints are the addresses where a run asks Varvel for tokens, over port 80.
func endpoints() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("fd00:ec2::23")}
}

// address explains a destination that is an address.
func (e *Explainer) address(w *api.Why, run *workload.Run) {
	to := w.Destination
	if special(w, to) {
		return
	}
	plan, known := e.plans.Plan(run.CgroupID)
	for i := range run.Agent.Egress {
		r := &run.Agent.Egress[i]
		if r.Name != "" || !r.CIDR.Contains(to.Address) || !hasPort(r, to.Port) {
			continue
		}
		if known && refused(w, plan, r) {
			return
		}
		w.Verdict, w.By = api.Allowed, ruleSource(r)
		w.Sentence = fmt.Sprintf("An egress rule allows this address over %s, directly.", protocols(r))
		return
	}
	w.Verdict = api.Denied
	w.Sentence = fmt.Sprintf("No egress rule of agent %s covers %s. The connection fails at once with EPERM.", run.Run.Agent, text(to))
	if hasNames(run) {
		w.Notes = append(w.Notes, "Names that are allowed are reached by name only: a program that connects to an address of such a name by itself is refused.")
	}
	e.otherPorts(w, run)
	fixAddress(w, run)
}

// special explains addresses that no rule is about. It reports whether to is one.
func special(w *api.Why, to api.Destination) bool {
	what, isLoopback, forbidden := config.ForbiddenAddress(to.Address)
	switch {
	case to.Port == dnsPort:
		w.Verdict, w.Sentence = api.Allowed, "Questions to port 53 of any address go to Varvel's DNS proxy, which answers for names that are allowed."
	case slices.Contains(endpoints(), to.Address) && (to.Port == 80 || to.Port == 0):
		w.Verdict, w.Sentence = api.Allowed, "This is Varvel's own endpoint for tokens and explanations; every run reaches it at port 80."
	case egress.IsSynthetic(to.Address):
		w.Verdict, w.Sentence = api.Denied, "This is a synthetic address: it stands for a name in the run that asked for it, and for nothing elsewhere. Ask about the name."
	case isLoopback:
		loopback(w)
	case forbidden:
		w.Verdict, w.Sentence = api.Denied, fmt.Sprintf("%s belongs to what no rule opens: %s.", to.Address, what)
	default:
		return false
	}
	return true
}

// refused explains a rule that policy has left out of the run's rule set.
func refused(w *api.Why, plan *egress.Plan, r *config.EgressRule) bool {
	for _, f := range plan.Refused {
		if f.Rule.Pos != r.Pos || f.Rule.CIDR != r.CIDR || f.Rule.Name != r.Name {
			continue
		}
		w.Verdict, w.By = api.Denied, ruleSource(r)
		w.Sentence = "An egress rule covers this destination, but policy does not let it be used."
		for _, reason := range f.Reasons {
			w.Notes = append(w.Notes, fmt.Sprintf("policy %s: %s", reason.Rule, reason.Text))
		}
		w.Notes = append(w.Notes, "decision "+f.DecisionID)
		return true
	}
	return false
}

func protocols(r *config.EgressRule) string {
	switch r.Protocol {
	case config.ProtocolUDP:
		return "UDP"
	case config.ProtocolAny:
		return "TCP and UDP"
	}
	return "TCP"
}

func hasNames(run *workload.Run) bool {
	return len(run.Tools) > 0 || slices.ContainsFunc(run.Agent.Egress, func(r config.EgressRule) bool { return r.Name != "" })
}
