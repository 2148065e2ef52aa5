// Package keeper holds descriptors while the daemon is away.
//
// The keeper is a process of its own. It is started by the daemon from the same
// program, and outlives it: its cgroup, its session and its parent are not the
// daemon's. It holds what must not close when the daemon dies or is replaced:
// the doors where redirected connections arrive, the links that keep the
// programs attached, and for each run the daemon's end of init's control socket,
// the connection of the waiting client, and a pidfd of init. So nobody sees a
// hang-up, connections to names wait in a backlog, and the next daemon takes the
// descriptors and goes on.
//
// It knows nothing of what it holds: no policy, no configuration, no parser of
// anything that a run says. Its one loop (serve.go) takes messages of a fixed size
// from processes that are root and in the daemon's cgroup. It has no capability,
// no environment, and may make only the system calls of filter.go.
//
// The header of a message, and what quit means, are the same for all versions,
// so that any daemon can tell any keeper to end.
package keeper
