package endpoint

import "strings"

// advice is what a reason's code means to the program that was refused.
type advice struct {
	means string
	retry bool
	help  string
}

const askOperator = "An operator can add the destination to the agent's egress, or give the agent a tool for it."

// explain adds what a refusal means, whether a retry can help, and what would.
// The refusal's own sentence, if it has one, is better than a general one.
func explain(f Refusal) explained {
	a := adviceFor(f.Rule)
	if f.Approval != "" {
		a = advice{"The action waits for a person.", true, "Send the same request again once it is approved."}
	}
	if f.Text != "" {
		a.means = f.Text
	}
	return explained{Refusal: f, Means: a.means, Retry: a.retry, Help: a.help}
}

// adviceFor knows the codes of the kernel, of names, and of the gateway.
// Those that it does not know are policy's, whose sentence comes with them.
func adviceFor(rule string) advice {
	switch rule {
	case "no-rule":
		return advice{"No rule of the agent allows this address.", false, askOperator}
	case "name.unlisted", "unknown-name":
		return advice{"No rule or tool of the agent has this name at this port.", false, askOperator}
	case "unknown-name-port":
		return advice{"The name is allowed, but not at this port.", false, "Use a port that is allowed, or ask an operator to add this one."}
	case "family", "protocol":
		return advice{"Only TCP and UDP over IPv4 and IPv6 are open to agents.", false, "Use TCP or UDP."}
	case "loopback-foreign":
		return advice{"The listener on this loopback port does not belong to the run.", false, "Only what the run itself has started can be reached on loopback."}
	case "sni-missing", "sni-mismatch":
		return advice{"The TLS server name is not the name that was resolved.", false, "Connect by name, with the server name (SNI) of that same name."}
	case "tls-not-plain":
		return advice{"The program speaks TLS where the gateway takes plain HTTP.", false, "Use http:// and the same host and port. The gateway speaks TLS to the service."}
	case "not-tls", "tls-malformed":
		return advice{"The name is open to TLS only, and something else was sent.", false, "Use TLS, or ask an operator for opaque: true on the rule."}
	case "host-mismatch":
		return advice{"The Host header names another host than the connection.", false, "Use one connection for each name."}
	case "connection-limit", "share", "name.share", "name.quota", "name.busy":
		return advice{"The run uses as much as it may of something that is limited.", true, "Close connections or wait, then try again."}
	case "name.upstream", "name.datapath":
		return advice{"The node could not find or prepare the address of the name.", true, "Try again; tell the operator if it goes on."}
	}
	if strings.HasPrefix(rule, "audit.") || strings.HasPrefix(rule, "approval.error") || rule == "policy.error" {
		return advice{"The node could not judge or record the action.", true, "Tell the operator, and try again later."}
	}
	return advice{"The policy does not allow it.", false, "An operator can change the policy or the tool's actions."}
}
