package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/varvel/varvel/internal/config"
)

// ErrAddressRefused is returned, wrapped, for an address that a name may not
// lead to.
var ErrAddressRefused = errors.New("the address may not be dialled")

// block is a range of addresses, and what they are.
type block struct {
	prefix netip.Prefix
	what   string
}

func blocks(what string, prefixes ...string) []block {
	var list []block
	for _, p := range prefixes {
		list = append(list, block{netip.MustParsePrefix(p), what})
	}
	return list
}

// private needs a range of `within` that holds the address: RFC 1918, RFC 6598
// (carrier-grade NAT), RFC 6890 (192.0.0.0/24), RFC 4193, RFC 3879, and the
// translation prefix for local use (RFC 8215), whose inside is not known.
func private() []block {
	list := blocks("private", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")
	list = append(list, blocks("shared by a provider's customers", "100.64.0.0/10")...)
	list = append(list, blocks("for protocol assignments", "192.0.0.0/24")...)
	return append(list, blocks("translated locally", "64:ff9b:1::/48")...)
}

// Scope judges the addresses that names resolve to. It is what stops DNS
// rebinding: a name that suddenly leads inside is not followed. It is made
// once and is safe for concurrent use.
type Scope struct {
	private []block
	own     func() ([]net.Addr, error) // the node's addresses
}

// NewScope returns a scope.
func NewScope() *Scope { return &Scope{private(), net.InterfaceAddrs} }

// Check returns nil if a name that may lead to within may lead to addr, else
// an error that wraps ErrAddressRefused and says why. Public addresses need no
// within, but those of this node do: a service there would take the gateway for a
// program of the node. Metadata services, link-local, multicast and synthetic addresses are
// never allowed. An address that holds an IPv4 address inside (IPv4-mapped,
// IPv4-compatible, NAT64, 6to4, Teredo, ISATAP) is judged as both.
func (s *Scope) Check(addr netip.Addr, within []netip.Prefix) error {
	if !addr.IsValid() || addr.Zone() != "" {
		return fmt.Errorf("%w: %s is not an address of a remote host", ErrAddressRefused, addr)
	}
	addr = addr.Unmap()
	if err := s.check(addr, within); err != nil {
		return err
	}
	for _, inner := range embedded(addr) {
		if err := s.check(inner, within); err != nil {
			return fmt.Errorf("%s holds %s: %w", addr, inner, err)
		}
	}
	return nil
}

// CheckFunc is Scope.Check.
type CheckFunc func(addr netip.Addr, within []netip.Prefix) error

// Snapshot returns a Check that takes the node's addresses as they are now, for
// those who check many addresses at once: to list them is most of the work.
func (s *Scope) Snapshot() CheckFunc {
	own, err := s.own()
	fixed := &Scope{s.private, func() ([]net.Addr, error) { return own, err }}
	return fixed.Check
}

func (s *Scope) check(addr netip.Addr, within []netip.Prefix) error {
	what, loopback, forbidden := config.ForbiddenAddress(addr)
	switch {
	case loopback && !granted(addr, within, loopbackBits(addr)):
		return fmt.Errorf("%w: %s is loopback, and within does not list it", ErrAddressRefused, addr)
	case forbidden && !loopback:
		return fmt.Errorf("%w: %s is one of %s, where no name may lead", ErrAddressRefused, addr, what)
	}
	for _, b := range s.private {
		if b.prefix.Contains(addr) && !granted(addr, within, 0) {
			return fmt.Errorf("%w: %s is %s (%s), and within does not list it", ErrAddressRefused, addr, b.what, b.prefix)
		}
	}
	return s.checkOwn(addr, within)
}

// checkOwn refuses the node's own addresses, as they are at this moment.
func (s *Scope) checkOwn(addr netip.Addr, within []netip.Prefix) error {
	own, err := s.own()
	if err != nil {
		return fmt.Errorf("%w: this node's own addresses cannot be listed: %w", ErrAddressRefused, err)
	}
	for _, a := range own {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Unmap() == addr && !granted(addr, within, 0) {
			return fmt.Errorf("%w: %s is this node's own, and within does not list it", ErrAddressRefused, addr)
		}
	}
	return nil
}

// loopbackBits is how long a range of within must be to mean the loopback:
// 0.0.0.0/0 does not.
func loopbackBits(addr netip.Addr) int {
	if addr.Is4() {
		return 8
	}
	return 128
}

// Filter returns the addresses that pass Check, in order, and why the others
// do not.
func (s *Scope) Filter(addrs []netip.Addr, within []netip.Prefix) (allowed []netip.Addr, refused []error) {
	for _, a := range addrs {
		if err := s.Check(a, within); err != nil {
			refused = append(refused, err)
			continue
		}
		allowed = append(allowed, a)
	}
	return allowed, refused
}

// granted reports whether one of the ranges that is at least bits long holds addr.
func granted(addr netip.Addr, within []netip.Prefix, bits int) bool {
	for _, p := range within {
		if p.Bits() >= bits && p.Contains(addr) {
			return true
		}
	}
	return false
}

// embedded returns the IPv4 addresses to which a router or a tunnel would send
// what is sent to addr.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case addr == netip.IPv6Loopback():
		return nil
	case hasPrefix(addr, "::/96"): // IPv4-compatible (RFC 4291, section 2.5.5.1)
		return []netip.Addr{at(12)}
	case hasPrefix(addr, "64:ff9b::/96"): // NAT64 (RFC 6052, section 2.1)
		return []netip.Addr{at(12)}
	case hasPrefix(addr, "2002::/16"): // 6to4 (RFC 3056, section 2)
		return []netip.Addr{at(2)}
	case hasPrefix(addr, "2001::/32"): // Teredo (RFC 4380, section 4): the server, and the client inverted
		client := ^binary.BigEndian.Uint32(b[12:])
		return []netip.Addr{at(4), netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, client)))}
	case binary.BigEndian.Uint32(b[8:12])&^0x0200_0000 == 0x0000_5efe: // ISATAP (RFC 5214, section 6.1)
		return []netip.Addr{at(12)}
	}
	return nil
}

func hasPrefix(addr netip.Addr, prefix string) bool {
	return netip.MustParsePrefix(prefix).Contains(addr)
}
