// Package egress turns what an agent may reach into what the kernel enforces.
//
// An agent's CIDR rules and names become a Plan. The Controller puts a plan
// into force: the compiled rule set goes to the kernel, the names go to the DNS
// Server. The server answers an allowed name with a synthetic address of the
// run; the kernel sends connections to such an address to the gateway; the
// gateway asks Controller.Lookup for the name, Resolver for its addresses and
// Scope for which of those may be dialled.
//
// A direct name is answered with its real addresses instead, which the kernel
// opens for a while.
//
// Of the questions of a run in enforce mode only those about direct names leave
// the node, and the gateway's about names that it dials. See docs/names.md.
package egress
