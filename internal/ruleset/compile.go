package ruleset

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// maxErrors is how many broken rules Compile names before it stops looking.
const maxErrors = 20

// Rule allows Ports to the addresses of Prefix. It is what Compile takes in.
type Rule struct {
	Prefix netip.Prefix
	// Ports are the allowed ports. None means every port over TCP and UDP.
	Ports []PortRange
	// Source says where the rule is written, for error messages.
	Source string
}

// RuleError says which rule could not be compiled, and why.
type RuleError struct {
	Rule   Rule
	Reason string
}

func (e *RuleError) Error() string {
	where := e.Rule.Source
	if where == "" {
		where = "rule"
	}
	return fmt.Sprintf("%s: %s: %s", where, e.Rule.Prefix, e.Reason)
}

// Compile turns rules into a RuleSet that allows exactly what at least one rule
// allows. The result does not depend on the order of the rules. An error joins
// one *RuleError for each broken rule, the first 20 of them.
//
// Compile takes O(n log n) time: entries are sorted so that a prefix comes
// right before the prefixes inside it, and a stack of open prefixes gives each
// entry its nearest cover.
func Compile(rules []Rule) (*RuleSet, error) {
	c := compiler{sets: newInterner()}
	items := c.normalise(rules)
	slices.SortFunc(items, compareItems)
	c.fold(items)
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	return c.finish(), nil
}

// item is a normalised rule: a masked prefix, an interned port set, and the
// index of the rule for error messages.
type item struct {
	prefix netip.Prefix
	set    uint32
	rule   int
}

type compiler struct {
	rules   []Rule
	sets    *interner
	entries []Entry
	errs    []error
}

// normalise checks every rule and gives it its one way of being written.
func (c *compiler) normalise(rules []Rule) []item {
	c.rules = rules
	items := make([]item, 0, len(rules))
	for i, r := range rules {
		prefix, err := Normalise(r.Prefix)
		if err != nil {
			c.fail(i, err.Error())
			continue
		}
		set, err := c.sets.ports(r.Ports)
		if err != nil {
			c.fail(i, err.Error())
			continue
		}
		items = append(items, item{prefix, set, i})
	}
	return items
}

func (c *compiler) fail(rule int, reason string) {
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, &RuleError{c.rules[rule], reason})
	}
}

// fold walks the sorted items with a stack of the prefixes that are open. An
// entry's set is the union of the sets of its own prefix and of its nearest
// kept cover; equal to the cover's, the entry says nothing new and is dropped.
func (c *compiler) fold(items []item) {
	var open []Entry
	for i := 0; i < len(items); {
		first := items[i]
		for len(open) > 0 && !covers(open[len(open)-1].Prefix, first.prefix) {
			open = open[:len(open)-1]
		}
		set, cover := emptySet, emptySet
		if len(open) > 0 {
			cover = open[len(open)-1].PortSet
			set = cover
		}
		for ; i < len(items) && items[i].prefix == first.prefix; i++ {
			set = c.union(set, items[i])
		}
		if set != cover {
			e := Entry{first.prefix, set}
			c.entries, open = append(c.entries, e), append(open, e)
		}
	}
}

// union adds an item's ports to set. A set that grows too large is an error;
// the walk goes on so that later errors are found too.
func (c *compiler) union(set uint32, it item) uint32 {
	both := c.sets.union(set, it.set)
	if n := len(c.sets.list[both]); n > MaxRanges {
		c.fail(it.rule, "together with the rules that cover it, "+tooMany(n))
		return set
	}
	return both
}

// finish numbers the port sets in the order of their first use and computes
// the id, so that equal content has equal bytes.
func (c *compiler) finish() *RuleSet {
	rs := &RuleSet{Entries: c.entries}
	number := make(map[uint32]uint32)
	for i := range rs.Entries {
		e := &rs.Entries[i]
		n, ok := number[e.PortSet]
		if !ok {
			n = uint32(len(rs.PortSets))
			number[e.PortSet] = n
			rs.PortSets = append(rs.PortSets, c.sets.list[e.PortSet])
		}
		e.PortSet = n
	}
	rs.ID = rs.hash()
	return rs
}

// Normalise returns the one way to write a prefix: masked, and IPv4 if it lies
// within the IPv4-mapped addresses ::ffff:0:0/96 (RFC 4291, section 2.5.5.2).
func Normalise(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, errors.New("the prefix is not valid")
	}
	if addr := p.Addr(); addr.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(addr.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// covers reports whether the masked prefix a contains all of b, which is not
// wider than a.
func covers(a, b netip.Prefix) bool {
	return a.Bits() <= b.Bits() && a.Contains(b.Addr())
}

// compareItems orders items by prefix, and those of one prefix by rule, so that
// errors name the same rule each time.
func compareItems(a, b item) int {
	return cmp.Or(comparePrefixes(a.prefix, b.prefix), cmp.Compare(a.rule, b.rule))
}

// comparePrefixes orders IPv4 before IPv6, then by address, then wide before
// narrow, so that a prefix comes directly before all prefixes inside it.
func comparePrefixes(a, b netip.Prefix) int {
	if d := a.Addr().Compare(b.Addr()); d != 0 {
		return d
	}
	return cmp.Compare(a.Bits(), b.Bits())
}
