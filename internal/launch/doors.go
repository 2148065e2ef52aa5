package launch

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// wellKnownDoors returns sockets, and directories of sockets, that lead to
// services of the host and lie outside /run and /dev, which the run has anew.
// Those of other network namespaces are not listed by the kernel, so they have
// to be known.
func wellKnownDoors() []string {
	return []string{
		"/tmp/.X11-unix", "/tmp/.ICE-unix", "/tmp/.XIM-unix", "/tmp/.font-unix", "/tmp/tmux-*", "/tmp/screens", "/tmp/ssh-*",
		"/tmp/.s.PGSQL.*", "/tmp/mysql*.sock", "/tmp/dbus-*", "/tmp/.docker*", "/tmp/podman*",
		"/var/lib/lxd/unix.socket", "/var/lib/incus/unix.socket*", "/var/snap/lxd/common/lxd*/unix.socket",
		"/var/lib/mysql/mysql.sock", "/var/lib/docker", "/var/lib/containerd", "/var/lib/sss/pipes",
		"/var/lib/libvirt", "/var/spool/postfix/private", "/var/spool/postfix/public",
	}
}

// doors returns what leads out of the run through unix sockets: the well-known
// places, what the caller's environment names, and every socket with a path that
// is bound in this network namespace.
func (l *layout) doors() ([]string, error) {
	doors := append(expand(wellKnownDoors()), toStrings(l.config.Doors)...)
	f, err := os.Open("/proc/self/net/unix")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	bound, err := boundSockets(f)
	if err != nil {
		return nil, err
	}
	for _, name := range bound {
		// Who bound a socket can put something else in its place: only what is a
		// socket now is masked, or one run could blank a directory for the next.
		fi, err := os.Lstat(name)
		if err != nil || fi.Mode().Type() != os.ModeSocket {
			continue
		}
		if !below(name, "/run", "/var/run", "/dev") {
			doors = append(doors, doorOf(name))
		}
	}
	return doors, nil
}

// boundSockets parses /proc/net/unix (proc_net(5)): the eighth field is the path
// of a socket that is bound. Abstract ones begin with "@". Datagram sockets do
// not listen, but take messages, so every bound one counts.
func boundSockets(r io.Reader) ([]string, error) {
	var names []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 2)
		rest := ""
		if len(fields) == 2 {
			rest = skipFields(fields[1], 6)
		}
		if filepath.IsAbs(rest) {
			names = append(names, rest)
		}
	}
	return names, lines.Err()
}

// skipFields returns what follows n fields and the blank behind them. The rest
// may have blanks itself.
func skipFields(s string, n int) string {
	for range n {
		s = strings.TrimLeft(s, " ")
		_, s, _ = strings.Cut(s, " ")
	}
	return s
}

// maxDoorEntries is how many entries of a directory are looked at.
const maxDoorEntries = 64

// doorOf returns what to hide for a socket: its directory, if nothing but
// sockets is in it, so that a socket that takes its place later is hidden too;
// else the socket itself.
func doorOf(name string) string {
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return name
	}
	defer dir.Close()
	entries, err := dir.ReadDir(maxDoorEntries)
	if err != nil || len(entries) == maxDoorEntries {
		return name
	}
	for _, e := range entries {
		if e.Type() != os.ModeSocket {
			return name
		}
	}
	return filepath.Dir(name)
}
