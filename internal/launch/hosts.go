package launch

import (
	"errors"
	"fmt"
	"os"
)

// hostsFile is what programs look names up in before they ask a name server.
const hostsFile = "/etc/hosts"

// ownHosts is the run's.
const ownHosts = blankFS + "/hosts"

// makeHosts gives the run a hosts file with its own names only. The host's would
// answer for allowed names with real addresses, past the name server that gives
// them synthetic ones, and the connection would be refused. The gateway looks in
// the host's file when it resolves.
func makeHosts() error {
	p, err := findPlace(hostsFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	if err := os.WriteFile(ownHosts, hostsText(name), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(ownHosts, 0o644); err != nil { // whatever the umask
		return err
	}
	return p.bind(ownHosts)
}

// hostsText is loopback, and the machine's name at the address that Debian
// gives it (Debian reference, section 5.1.1).
func hostsText(hostname string) []byte {
	text := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	if hostname != "" {
		text += fmt.Sprintf("127.0.1.1 %s\n", hostname)
	}
	return []byte(text)
}
