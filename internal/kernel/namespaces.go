package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Peers tells who asks the name server in one network namespace.
type Peers struct {
	k     *Kernel
	netns uint64
}

// PeersIn returns the Peers of the network namespace with that cookie.
func (k *Kernel) PeersIn(netns uint64) Peers { return Peers{k, netns} }

// PeerOf says which run a UDP datagram at a door in the namespace came from, by
// its source; see Kernel.PeerOf.
func (p Peers) PeerOf(_, remote netip.AddrPort) (cgroupID uint64, ok bool) {
	return p.k.peerIn(p.netns, remote)
}

// noDoors are the flags that say what a run's network namespace lacks. They stay as
// long as the run does.
const noDoors = uint32(abiVarvelRunFlagsRUN_NO_DOOR4 | abiVarvelRunFlagsRUN_NO_DOOR6)

// WithoutDoors says for which families a run is in a network namespace that has no
// doors: what would go through one is refused.
func (k *Kernel) WithoutDoors(cgroupID uint64, lacks4, lacks6 bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, ok := k.runs[cgroupID]
	if !ok {
		return ErrUnknownRun
	}
	if lacks4 {
		r.Flags |= uint32(abiVarvelRunFlagsRUN_NO_DOOR4)
	}
	if lacks6 {
		r.Flags |= uint32(abiVarvelRunFlagsRUN_NO_DOOR6)
	}
	if err := k.objects.maps["runs"].Put(cgroupID, r); err != nil {
		return fmt.Errorf("tell the kernel of the run's network namespace: %w", err)
	}
	k.runs[cgroupID] = r
	return k.bumpGeneration()
}

// NetnsCookie returns the cookie of the calling thread's network namespace
// (socket(7), SO_NETNS_COOKIE, Linux 5.14). No other namespace has it, as long
// as the machine is up.
func NetnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("make a socket: %w", err)
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err := errors.Join(err, os.NewSyscallError("close", unix.Close(fd))); err != nil {
		return 0, fmt.Errorf("ask for the network namespace's cookie (Linux 5.14 or newer is needed): %w", err)
	}
	return cookie, nil
}
