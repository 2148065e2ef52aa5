package egress

import (
	"net/netip"
	"strconv"
	"strings"
)

const (
	suffix4 = ".in-addr.arpa" // RFC 1035, section 3.5
	suffix6 = ".ip6.arpa"     // RFC 3596, section 2.5
)

// isReverse reports whether a canonical host lies where addresses are looked up.
func isReverse(host string) bool {
	return strings.HasSuffix(host, suffix4) || strings.HasSuffix(host, suffix6)
}

// reverseAddr returns the address that a canonical host such as
// 1.0.18.198.in-addr.arpa asks about.
func reverseAddr(host string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(host, suffix4); ok {
		return reverse4(strings.Split(rest, "."))
	}
	if rest, ok := strings.CutSuffix(host, suffix6); ok {
		return reverse6(strings.Split(rest, "."))
	}
	return netip.Addr{}, false
}

func reverse4(labels []string) (netip.Addr, bool) {
	var b [4]byte
	if len(labels) != len(b) {
		return netip.Addr{}, false
	}
	for i, label := range labels {
		n, err := strconv.ParseUint(label, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != label {
			return netip.Addr{}, false
		}
		b[3-i] = byte(n)
	}
	return netip.AddrFrom4(b), true
}

func reverse6(labels []string) (netip.Addr, bool) {
	var b [16]byte
	if len(labels) != 32 {
		return netip.Addr{}, false
	}
	for i, label := range labels {
		n, err := strconv.ParseUint(label, 16, 4)
		if err != nil || len(label) != 1 {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
