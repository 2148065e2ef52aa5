package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/varvel/varvel/internal/ruleset"
)

const (
	seed       = 20260101 // every run of the benchmark has the same rules
	targetPort = 4433     // allowed by every rule
	minBits    = 16       // of the prefixes; with maxBits, sixteen lengths
	maxBits    = 31
	portSets   = 8
	listLength = 1 << 17 // destinations in a list, drawn from all of the rule set
)

// mixture is a rule set of which half are host routes and half are prefixes of
// sixteen lengths, and addresses to connect to.
type mixture struct {
	rules  *ruleset.RuleSet
	exact  []netip.Addr // host routes
	prefix []netip.Addr // addresses that only a prefix matches
}

// mix makes a mixture of exactly n compiled rules.
func mix(n int) (mixture, error) {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	rules := make([]ruleset.Rule, 0, n)
	for i := range n {
		bits := 32
		if i%2 == 1 {
			bits = drawBits(r, i/2, n)
		}
		rules = append(rules, drawRule(r, bits))
	}
	for {
		set, err := ruleset.Compile(rules)
		if err != nil {
			return mixture{}, fmt.Errorf("make %d rules: %w", n, err)
		}
		// What a wider rule says already is left out by Compile.
		missing := n - len(set.Entries)
		if missing <= 0 {
			return choose(r, set)
		}
		for i := range missing {
			rules = append(rules, drawRule(r, []int{32, maxBits}[i%2]))
		}
	}
}

// drawBits takes the lengths in turn. A length of which there would be more than
// a sixteenth of all prefixes gives way to a longer one, as in real tables.
func drawBits(r *rand.Rand, i, n int) int {
	bits := minBits + i%(maxBits-minBits+1)
	for perLength := n / 2 / (maxBits - minBits + 1); perLength > 1<<(bits-4) && bits < maxBits; {
		bits += 1 + r.IntN(maxBits-bits)
	}
	return bits
}

// drawRule makes a rule somewhere in 1.0.0.0 to 99.255.255.255, where nothing
// has a meaning of its own to Varvel.
func drawRule(r *rand.Rand, bits int) ruleset.Rule {
	const first, end = 1 << 24, 100 << 24
	extra := uint16(8000 + 2*r.IntN(portSets))
	return ruleset.Rule{
		Prefix: netip.PrefixFrom(fromUint32(first+r.Uint32N(end-first)), bits).Masked(),
		Ports: []ruleset.PortRange{
			{First: targetPort, Last: targetPort, Protocol: ruleset.TCP},
			{First: targetPort, Last: targetPort, Protocol: ruleset.UDP},
			{First: extra, Last: extra, Protocol: ruleset.TCP},
		},
	}
}

// choose draws destinations from a compiled rule set.
func choose(r *rand.Rand, set *ruleset.RuleSet) (mixture, error) {
	m := mixture{rules: set}
	hosts := map[netip.Addr]bool{}
	var exact, wide []netip.Prefix
	for _, e := range set.Entries {
		if e.Prefix.IsSingleIP() {
			exact = append(exact, e.Prefix)
			hosts[e.Prefix.Addr()] = true
		} else {
			wide = append(wide, e.Prefix)
		}
	}
	for len(m.exact) < listLength {
		m.exact = append(m.exact, exact[r.IntN(len(exact))].Addr())
	}
	for len(m.prefix) < listLength {
		if a := within(r, wide[r.IntN(len(wide))]); !hosts[a] {
			m.prefix = append(m.prefix, a)
		}
	}
	for _, a := range []netip.Addr{m.exact[0], m.prefix[0]} {
		if !set.Judge(a, targetPort, ruleset.UDP) {
			return m, fmt.Errorf("the rules do not allow %s, which was drawn from them", a)
		}
	}
	return m, nil
}

// within returns a random address of an IPv4 prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	base := p.Addr().As4()
	return fromUint32(binary.BigEndian.Uint32(base[:]) + r.Uint32N(1<<(32-p.Bits())))
}

func fromUint32(v uint32) netip.Addr {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], v)
	return netip.AddrFrom4(raw)
}
