package egress

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func TestCheck(t *testing.T) {
	const lan = "10.20.0.0/16"
	for _, tt := range []struct {
		addr   string
		within string // one range, or nothing
		ok     bool
	}{
		{"203.0.113.9", "", true},
		{"8.8.8.8", "", true},
		{"2600::1", "", true},
		{"203.0.113.9", lan, true}, // within is about private addresses
		// private: only where within says so
		{"10.20.1.1", "", false}, {"10.20.1.1", lan, true}, {"10.21.1.1", lan, false},
		{"172.16.0.1", "", false}, {"172.31.255.255", "", false}, {"172.32.0.1", "", true},
		{"192.168.1.1", "", false}, {"192.168.1.1", "192.168.0.0/16", true},
		{"100.64.0.1", "", false}, {"100.64.0.1", "100.64.0.0/10", true}, {"100.63.255.255", "", true},
		{"fd12::1", "", false}, {"fd12::1", "fd12::/16", true}, {"fc00::1", "", false}, {"fec0::1", "", false},
		{"192.0.0.8", "", false},
		{"10.20.1.1", "0.0.0.0/0", true}, {"fd12::1", "0.0.0.0/0", false},
		// loopback: only by its own name
		{"127.0.0.1", "", false}, {"127.0.0.1", "0.0.0.0/0", false}, {"127.0.0.1", "127.0.0.0/8", true},
		{"127.0.0.1", "127.0.0.1/32", true}, {"127.0.0.2", "127.0.0.1/32", false},
		{"::1", "", false}, {"::1", "::/0", false}, {"::1", "::1/128", true},
		// never
		{"169.254.169.254", "169.254.0.0/16", false}, {"169.254.1.1", "169.254.1.1/32", false},
		{"fe80::1", "fe80::/10", false}, {"fd00:ec2::254", "fd00:ec2::/32", false}, {"fd20:ce::254", "fd20:ce::/64", false},
		{"100.100.100.200", "100.64.0.0/10", false}, {"168.63.129.16", "", false}, {"192.0.0.192", "192.0.0.0/24", false},
		{"0.0.0.0", "0.0.0.0/0", false}, {"0.1.2.3", "0.0.0.0/0", false}, {"::", "::/0", false},
		{"224.0.0.1", "224.0.0.0/4", false}, {"ff02::1", "ff00::/8", false},
		{"255.255.255.255", "0.0.0.0/0", false}, {"240.0.0.1", "240.0.0.0/4", false},
		{"198.18.0.1", "198.18.0.0/15", false}, {"fd56:6172:7665:6c00::1", "fc00::/7", false},
		// IPv4 inside IPv6
		{"::ffff:10.20.1.1", "", false}, {"::ffff:10.20.1.1", lan, true}, {"::ffff:203.0.113.9", "", true},
		{"::ffff:127.0.0.1", "", false}, {"::ffff:169.254.169.254", "::/0", false},
		{"::10.20.1.1", "", false}, {"::7f00:1", "", false}, {"::203.0.113.9", "", true},
		{"64:ff9b::169.254.169.254", "", false}, {"64:ff9b::10.20.1.1", "", false}, {"64:ff9b::10.20.1.1", lan, true},
		{"64:ff9b::203.0.113.9", "", true}, {"64:ff9b:1::1", "", false},
		{"2002:7f00:1::1", "", false}, {"2002:a14:101::1", "", false}, {"2002:cb00:7109::1", "", true},
		{"2001:0:cb00:7109:0:0:80ff:fffe", "", false}, // Teredo client 127.0.0.1
		{"2001:0:cb00:7109:0:0:34ff:8ef6", "", true},  // Teredo client 203.0.113.9
		{"2001:0:a14:101:0:0:34ff:8ef6", "", false},   // Teredo server 10.20.1.1
		{"2600::5efe:10.20.1.1", "", false},           // ISATAP
		{"2600::200:5efe:10.20.1.1", "", false},       // ISATAP, universal bit
		{"2600::200:5efe:203.0.113.9", "", true},      // ISATAP
		{"fe80::1%eth0", "", false}, {"2600::1%eth0", "", false},
	} {
		var within []netip.Prefix
		if tt.within != "" {
			within = append(within, netip.MustParsePrefix(tt.within))
		}
		err := NewScope().Check(netip.MustParseAddr(tt.addr), within)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrAddressRefused) {
			t.Errorf("Check(%s, %q) = %v, want ok %v", tt.addr, tt.within, err, tt.ok)
		}
	}
	if err := NewScope().Check(netip.Addr{}, nil); !errors.Is(err, ErrAddressRefused) {
		t.Errorf("no address: %v", err)
	}
}

func TestFilter(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("10.0.0.1")}
	allowed, refused := NewScope().Filter(addrs, nil)
	if len(allowed) != 1 || allowed[0] != addrs[1] || len(refused) != 2 {
		t.Errorf("allowed %v, refused %v", allowed, refused)
	}
}

func TestOwnAddressesNeedWithin(t *testing.T) {
	s := NewScope()
	s.own = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}, nil
	}
	own, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	if err := s.Check(own, nil); !errors.Is(err, ErrAddressRefused) {
		t.Errorf("the node's own address: %v", err)
	}
	if err := s.Check(other, nil); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	if err := s.Check(own, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}); err != nil {
		t.Errorf("within lists it: %v", err)
	}
	s.own = func() ([]net.Addr, error) { return nil, errors.New("no") }
	if err := s.Check(other, nil); !errors.Is(err, ErrAddressRefused) {
		t.Errorf("the own addresses are not known: %v", err)
	}
}
