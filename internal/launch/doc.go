// Package launch starts the first process of a run, confined, as the user who
// asked for it and with never more rights than that user has.
//
// Three processes take part. The caller's [Client] keeps the terminal and sends
// a [StartRequest] with its standard descriptors over a unix socket. The
// [Server], inside the daemon, asks its [Starter] whether the run may be, and
// starts an init process in a fresh cgroup with mount, PID and IPC namespaces of
// its own; its program is a small one ([FindInit]) or the daemon's. Init
// ([InitMain]) lays out the file system, starts the command through a second stage
// that gives every right away before execve, and then reaps and forwards signals
// until no process is left.
//
// What is true when the first instruction of the command runs:
//
//   - It is in the run's cgroup and always was: init is born there
//     (CLONE_INTO_CGROUP, clone(2)).
//   - Its user, groups, limits and nice value are those of the peer of the
//     socket, as the kernel knows them, not as the request says.
//   - It has no capability in any set, cannot get one (no_new_privs, securebits
//     locked), and is in a Landlock domain and under the filter of
//     seccomp_table.go.
//   - No descriptor but 0, 1 and 2 is open. A terminal never gets in: where the
//     caller has one, the command has a pty of its own.
//   - The environment is that of [BuildEnv].
//   - Doors to other services, credential files and Varvel's own directories
//     are masked, and /proc, /dev, /dev/shm and /run are the run's own.
//
// The run goes on until its last process ends. The client returns when the
// command itself ends, as a shell would. When nobody waits any more (the
// connection of the client is lost, or the daemon and its keeper are gone), the
// command gets SIGHUP, as from a terminal that is closed, with or without a
// terminal.
//
// A daemon may be killed at any moment and followed by another, and neither the
// client nor init may notice. A [Keeper] holds the daemon's ends of both
// connections, so neither is closed, and what is sent meanwhile waits in them.
// For that, a daemon reads both by one rule: a frame stays in the socket until
// somebody is about to act on it, and is then taken by one read. A report of init is
// taken after the client was told (at least once: it may be told twice), and the
// report of the command's end never, because everything ends after it. A frame of
// the client is taken before it is obeyed (at most once: a second SIGINT could
// mean something else than the first).
package launch
