package config

import (
	"cmp"
	"slices"
	"strings"

	"github.com/varvel/varvel/internal/tool"
)

const (
	dnsPort = 53
	// maxNamePorts is how many ports one name may have: each is an entry of
	// the kernel's map.
	maxNamePorts = 64
)

// parsePorts reads one port, or a range such as 8000-8100.
func parsePorts(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	low, err := tool.ParsePort(first)
	if err != nil {
		return PortRange{}, err
	}
	high, err := tool.ParsePort(last)
	if err != nil {
		return PortRange{}, err
	}
	switch {
	case high < low:
		return PortRange{}, problem(`write "`+last+"-"+first+`"`, "the range %s ends before it begins", s)
	case low == dnsPort && high == dnsPort:
		return PortRange{}, problem("allow the names that the program needs; their look-ups are answered", "port 53 always goes to Varvel's own name server, so it cannot be opened")
	}
	return PortRange{First: low, Last: high}, nil
}

// joinPorts sorts ranges and joins those that touch.
func joinPorts(ranges []PortRange) []PortRange {
	slices.SortFunc(ranges, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	var joined []PortRange
	for _, r := range ranges {
		if n := len(joined); n > 0 && int(r.First) <= int(joined[n-1].Last)+1 {
			joined[n-1].Last = max(joined[n-1].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// countPorts is the number of single ports in disjoint ranges.
func countPorts(ranges []PortRange) int {
	n := 0
	for _, r := range ranges {
		n += int(r.Last) - int(r.First) + 1
	}
	return n
}

// hasPort reports whether one of the ranges contains port.
func hasPort(ranges []PortRange, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r PortRange) bool { return r.Contains(port) })
}

// commonPort returns a port that is in both.
func commonPort(a, b []PortRange) (uint16, bool) {
	for _, x := range a {
		for _, y := range b {
			if p := max(x.First, y.First); x.Contains(p) && y.Contains(p) {
				return p, true
			}
		}
	}
	return 0, false
}
