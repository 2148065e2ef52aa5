package egress

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ErrNoSynthetic means that the run has as many names as it may have.
var ErrNoSynthetic = errors.New("the run has used up its names")

// Synthetic4 returns the IPv4 range of synthetic addresses. RFC 2544 sets it
// aside for benchmarks, so no host on the Internet has one of them.
func Synthetic4() netip.Prefix { return netip.MustParsePrefix("198.18.0.0/15") }

// Synthetic6 returns the IPv6 range of synthetic addresses, a unique local
// prefix (RFC 4193).
func Synthetic6() netip.Prefix { return netip.MustParsePrefix("fd56:6172:7665:6c00::/64") }

// IsSynthetic reports whether addr lies in one of the synthetic ranges.
func IsSynthetic(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return Synthetic4().Contains(addr) || Synthetic6().Contains(addr)
}

const (
	base4  = uint32(198)<<24 | uint32(18)<<16
	usable = 1<<17 - 2 // hosts in a /15, without its first and last address
)

// allocator gives the names of one run their synthetic addresses. Addresses
// begin at a hash of run and name, so that a daemon that starts again gives
// nearly every name the address that it had. It is not safe for concurrent use.
type allocator struct {
	run    string
	quota  int
	byHost map[string]pair
	byAddr map[netip.Addr]string
}

// pair is the addresses of one name.
type pair struct{ v4, v6 netip.Addr }

func newAllocator(run string, quota int) *allocator {
	return &allocator{
		run: run, quota: min(quota, usable/2),
		byHost: map[string]pair{}, byAddr: map[netip.Addr]string{},
	}
}

// get returns the addresses of a canonical host, and makes them if it has
// none. Returns ErrNoSynthetic if the quota is used up.
func (a *allocator) get(host string) (pair, error) {
	if p, ok := a.byHost[host]; ok {
		return p, nil
	}
	if len(a.byHost) >= a.quota {
		return pair{}, ErrNoSynthetic
	}
	sum := sha256.Sum256([]byte(a.run + "\x00" + host))
	p := pair{a.free(sum, address4), a.free(sum, address6)}
	a.byHost[host], a.byAddr[p.v4], a.byAddr[p.v6] = p, host, host
	return p, nil
}

// restore gives a host the addresses that it had.
func (a *allocator) restore(n KnownName) error {
	host, ok := CanonicalHost(n.Host)
	_, taken4 := a.byAddr[n.V4]
	_, taken6 := a.byAddr[n.V6]
	_, known := a.byHost[host]
	switch {
	case !ok || host != n.Host:
		return fmt.Errorf("%.60q is not a canonical host name", n.Host)
	case !Synthetic4().Contains(n.V4) || !Synthetic6().Contains(n.V6):
		return fmt.Errorf("%s and %s are not synthetic addresses", n.V4, n.V6)
	case known || taken4 || taken6:
		return fmt.Errorf("%s, or one of its addresses, is there twice", host)
	case len(a.byHost) >= a.quota:
		return ErrNoSynthetic
	}
	a.byHost[host] = pair{n.V4, n.V6}
	a.byAddr[n.V4], a.byAddr[n.V6] = host, host
	return nil
}

// free returns the first address from the hash on that no other name has. The
// quota is at most half of the space, so there is one.
func (a *allocator) free(sum [32]byte, address func(seed uint64) netip.Addr) netip.Addr {
	for seed := binary.BigEndian.Uint64(sum[:]); ; seed++ {
		addr := address(seed)
		if _, taken := a.byAddr[addr]; !taken {
			return addr
		}
	}
}

// address4 maps a seed to 198.18.0.1 … 198.19.255.254.
func address4(seed uint64) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], base4+1+uint32(seed%usable))
	return netip.AddrFrom4(b)
}

// address6 maps a seed to an address of Synthetic6. An interface identifier of
// zero is the subnet's router anycast address (RFC 4291, section 2.6.1), so it
// is left out.
func address6(seed uint64) netip.Addr {
	b := Synthetic6().Addr().As16()
	binary.BigEndian.PutUint64(b[8:], max(seed, 1))
	return netip.AddrFrom16(b)
}
