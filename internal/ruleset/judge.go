package ruleset

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"sort"
)

// Judge reports whether the rule set lets port of addr be reached over proto.
// It is the reference that the kernel's judgement is tested against: the entry
// with the longest matching prefix alone answers, and no entry means no.
// IPv4-mapped IPv6 is judged as IPv4, and a zone does not count.
func (rs *RuleSet) Judge(addr netip.Addr, port uint16, proto Protocol) bool {
	e, ok := rs.find(addr.Unmap().WithZone(""))
	if !ok {
		return false
	}
	return AllowsPort(rs.PortSets[e.PortSet], port, proto)
}

// AllowsPort reports whether one of ranges holds port over proto.
func AllowsPort(ranges []PortRange, port uint16, proto Protocol) bool {
	return slices.ContainsFunc(ranges, func(r PortRange) bool {
		return r.Protocol == proto && r.First <= port && port <= r.Last
	})
}

// find returns the entry with the longest prefix that contains addr.
func (rs *RuleSet) find(addr netip.Addr) (Entry, bool) {
	for bits := addr.BitLen(); addr.IsValid() && bits >= 0; bits-- {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			return Entry{}, false
		}
		i := sort.Search(len(rs.Entries), func(i int) bool {
			return comparePrefixes(rs.Entries[i].Prefix, prefix) >= 0
		})
		if i < len(rs.Entries) && rs.Entries[i].Prefix == prefix {
			return rs.Entries[i], true
		}
	}
	return Entry{}, false
}

// hash returns the hex SHA-256 of the content: for each entry the length of
// its address, the address, its prefix length and its ports.
func (rs *RuleSet) hash() string {
	h := sha256.New()
	var buf []byte
	for _, e := range rs.Entries {
		addr := e.Prefix.Addr().AsSlice()
		buf = append(buf[:0], byte(len(addr)))
		buf = append(buf, addr...)
		buf = append(buf, byte(e.Prefix.Bits()))
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(rs.PortSets[e.PortSet])))
		h.Write(appendPorts(buf, rs.PortSets[e.PortSet]))
	}
	return hex.EncodeToString(h.Sum(nil))
}
