package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
)

// ErrNotRedirected is returned for a connection that no run was redirected to
// us with: somebody outside any run found our port.
var ErrNotRedirected = errors.New("not a redirected connection")

// Attribute says who is at the other end of a connection that a door of ours
// accepted: the id of the run's cgroup, the cookie of its socket, and the
// address and port that the program asked for. The answer was put on our socket
// by the kernel when the connection was made; nothing that the peer sends or
// does can change it. Returns ErrNotRedirected if there is none.
func (k *Kernel) Attribute(c *net.TCPConn) (cgroupID, cookie uint64, dst netip.AddrPort, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, dst, fmt.Errorf("attribute a connection: %w", err)
	}
	var origin abiVarvelOrigin
	var lookupErr error
	err = raw.Control(func(fd uintptr) {
		lookupErr = k.objects.maps["accepted"].Lookup(int32(fd), &origin)
	})
	if err := errors.Join(err, lookupErr); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return 0, 0, dst, ErrNotRedirected
		}
		return 0, 0, dst, fmt.Errorf("attribute a connection: %w", err)
	}
	return origin.Run, origin.Cookie, netip.AddrPortFrom(origin.Address.addr(), origin.Port), nil
}

// PeerOf says which run a UDP datagram at a door of ours came from, by its
// source. The kernel made the entry before the datagram left, and takes it away
// when the socket is closed.
func (k *Kernel) PeerOf(_, remote netip.AddrPort) (cgroupID uint64, ok bool) {
	return k.peerIn(k.netns, remote)
}

func (k *Kernel) peerIn(netns uint64, remote netip.AddrPort) (cgroupID uint64, ok bool) {
	key := abiVarvelRedirectKey{
		Netns: netns, Address: address(remote.Addr().Unmap()), Port: remote.Port(), Protocol: 17,
	}
	var origin abiVarvelOrigin
	if err := k.objects.maps["redirects"].Lookup(&key, &origin); err != nil {
		return 0, false
	}
	return origin.Run, true
}
