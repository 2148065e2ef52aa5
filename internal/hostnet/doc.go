// Package hostnet changes the host's network: it finds the sockets that belong
// to a run and destroys those that it may not have any more.
//
// What a run may reach is judged elsewhere. The kernel programs refuse the next
// packet of a connection that was allowed once and is not any more; destroying
// the socket tells both ends at once, and ends what only receives.
package hostnet
