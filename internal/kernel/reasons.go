package kernel

// ReasonText is what a reason code of the kernel means, as a sentence.
func ReasonText(code string) string {
	switch code {
	case "no-run":
		return "The socket belongs to no run that Varvel knows."
	case "no-rule":
		return "No rule of the agent allows this address and port."
	case "family":
		return "Only IPv4 and IPv6 sockets are allowed."
	case "protocol":
		return "Only TCP and UDP are allowed."
	case "loopback-foreign":
		return "The loopback listener does not belong to this run."
	case "name-port":
		return "The address stands for a name, but not at this port or not for this run."
	case "name-udp":
		return "Names are reached over TCP only."
	case "reserved-port":
		return "The port belongs to Varvel."
	case "no-door":
		return "Varvel's daemon does not listen at the moment."
	case "peer-foreign":
		return "The other end is outside the run, and the run may not be reached from there."
	case "malformed":
		return "The packet is not one that Varvel understands."
	case "full":
		return "A table of Varvel in the kernel is full."
	case "share":
		return "The run has as many connections by name, and sockets that ask for names, open as one run may have."
	case "port-foreign":
		return "Somebody outside the run listens on this port."
	case "lease-expired":
		return "The name that led to this address was asked for too long ago; ask for it again before connecting."
	case "rewritten":
		return "The address was allowed, but another program on this machine changed it to one that is not; allow the address that it is changed to as well."
	case "stale":
		return "The connection was allowed, but the rules have changed."
	case "inbound":
		return "The agent's listen does not grant this port to the peer."
	case "link-local":
		return "IPv6 link-local addresses are never opened: which link is meant is not part of them."
	case "no-loopback":
		return "The connection would have to be redirected, and the host, or the network namespace of the run, lacks a loopback address of its family (127.0.0.1 or ::1)."
	}
	return "The kernel refused it."
}
