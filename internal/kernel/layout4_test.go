package kernel

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/varvel/varvel/internal/ruleset"
)

// searchRanges is the definition: the last range that starts at or below.
func searchRanges(ranges []abiVarvelRange4, address uint32) uint32 {
	var set uint32
	for _, r := range ranges {
		if r.Start <= address {
			set = r.Set
		}
	}
	return set
}

// find is find4 of bpf/lib/verdict.h, step by step.
func (l layout4) find(address uint32) uint32 {
	if l.ranges > 0 {
		b, at := &l.block[0], 0
		if l.ranges > uint32(abiVarvelLayout4LAYOUT4FEW) {
			at = halve(b.Start[:], 0, blockRanges/2, int(abiVarvelLayout4LAYOUT4FEW)/2, address)
		}
		return uint32(b.Set[halve(b.Start[:], at, int(abiVarvelLayout4LAYOUT4FEW)/2, 0, address)])
	}
	const mask = uint32(1)<<setBits - 1
	if l.hosts != nil {
		product := address * factor
		number := product & (1<<hostShift - 1)
		slot := l.hosts[product>>hostShift].find(number)
		if slot>>setBits == number && slot&mask != 0 {
			return slot & mask
		}
	}
	if l.buckets == nil {
		return 0
	}
	line := &l.buckets[address>>bucketShift]
	if count := line.Slot[0] &^ elsewhere; count != line.Slot[0] {
		return searchRanges(l.rest[line.Slot[1]:line.Slot[1]+count], address)
	}
	return line.find(address&(1<<bucketShift-1)) & mask
}

func (l *abiVarvelLine4) find(number uint32) uint32 {
	return l.Slot[halve(l.Slot[:], 0, lineSlots/2, 0, number<<setBits|(1<<setBits-1))]
}

func halve(numbers []uint32, at, step, end int, value uint32) int {
	for ; step > end; step /= 2 {
		if numbers[at+step] <= value {
			at += step
		}
	}
	return at
}

// unfactor is the address whose product is given.
func unfactor(product uint32) uint32 {
	inverse := factor // Newton's iteration doubles the correct bits each time.
	for range 5 {
		inverse *= 2 - factor*inverse
	}
	return product * inverse
}

// layoutCase is a rule set that is laid out in a certain way.
type layoutCase struct {
	name    string
	entries []ruleset.Entry
	check   func(layout4) bool
}

// apart is n host routes of which no two touch. The first has both ports.
func apart(n int) (entries []ruleset.Entry) {
	for i := range n {
		entries = append(entries, host(10<<24|uint32(i)<<10, i+2))
	}
	return entries
}

func host(address uint32, set int) ruleset.Entry { return prefix(address, 32, set) }

func prefix(address uint32, bits, set int) ruleset.Entry {
	return ruleset.Entry{Prefix: netip.PrefixFrom(from32(address), bits), PortSet: uint32(set % len(layoutPorts()))}
}

func from32(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v)))
}

// layoutPorts are port sets that two questions, for port 7 and port 8, tell apart.
func layoutPorts() [][]ruleset.PortRange {
	return [][]ruleset.PortRange{ports(7, 7), ports(8, 8), ports(7, 8)}
}

// fullLine is n host routes of one line of the table.
func fullLine(line uint32, n int) (entries []ruleset.Entry) {
	for i := range n {
		number := uint32(i) * 65537 // the first is 0
		entries = append(entries, host(unfactor(line<<hostShift|number), i))
	}
	return entries
}

// bucketOf is so many prefixes of two addresses that a bucket has n ranges.
func bucketOf(upper uint32, n int) (entries []ruleset.Entry) {
	begin := upper << bucketShift
	for i := range n / 2 {
		entries = append(entries, prefix(begin+2+uint32(i)*4, 31, i))
	}
	if n%2 == 0 { // up to the bucket's end
		entries[len(entries)-1] = prefix(begin|0x1fffe, 31, 0)
	}
	return entries
}

func everySecond(n int) (entries []ruleset.Entry) {
	for i := range n {
		entries = append(entries, host(100<<24+2*uint32(i)+1, i))
	}
	return entries
}

// layoutCases has every layout, at its limits.
func layoutCases() []layoutCase {
	r := rand.New(rand.NewPCG(1, 1))
	last := host(0xffffffff, 0) // its range has none after it
	var nested []ruleset.Entry
	for i := range 6000 {
		bits := 10 + r.IntN(23)
		nested = append(nested, prefix(r.Uint32()>>6<<(32-bits)>>(32-bits)<<(32-bits), bits, i))
	}
	inBlock := func(n uint32) func(layout4) bool { return func(l layout4) bool { return l.ranges == n } }
	return []layoutCase{
		{"one", apart(1), inBlock(3)},
		{"few", append(apart(31), last), inBlock(64)},
		{"not few", apart(32), inBlock(65)},
		{"block", append(apart(1023), last), inBlock(2048)},
		{"hosts alone", apart(1024), func(l layout4) bool { return l.hosts != nil && l.buckets == nil }},
		{"full line", append(apart(2000), fullLine(7, 16)...), func(l layout4) bool { return l.buckets == nil && l.hosts[7].Slot[0] != 0 }},
		{"overfull line", append(apart(2000), fullLine(0, 18)...), func(l layout4) bool { return l.buckets != nil && l.rest == nil }},
		{"full bucket", append(apart(2000), bucketOf(0x3001, 16)...), func(l layout4) bool { return l.buckets != nil && l.rest == nil }},
		{"overfull buckets", slices.Concat(apart(2000), bucketOf(0x3001, 17), bucketOf(0x3003, 18)), func(l layout4) bool { return len(l.rest) == 35 }},
		{"nested", nested, func(l layout4) bool { return l.hosts != nil && l.buckets != nil }},
		{"full table", everySecond(65536), func(l layout4) bool { return l.hosts != nil && l.rest != nil }},
		{"too many hosts", append(everySecond(65536), last), func(l layout4) bool { return l.hosts == nil && len(l.rest) == 131072 }},
	}
}

func (c layoutCase) ruleSet() *ruleset.RuleSet {
	rs := &ruleset.RuleSet{ID: c.name, PortSets: layoutPorts(), Entries: c.entries}
	slices.SortFunc(rs.Entries, func(a, b ruleset.Entry) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	rs.Entries = slices.CompactFunc(rs.Entries, func(a, b ruleset.Entry) bool { return a.Prefix == b.Prefix })
	return rs
}

// questions are the edges of entries and random addresses, without those that are
// not judged by rules.
func questions(rs *ruleset.RuleSet, n int) (addresses []uint32) {
	r := rand.New(rand.NewPCG(2, 2))
	for range n {
		e := rs.Entries[r.IntN(len(rs.Entries))].Prefix
		first := binary.BigEndian.Uint32(e.Addr().AsSlice())
		end := first + uint32(uint64(1)<<(32-e.Bits()))
		addresses = append(addresses, first-1, first, end-1, end, first^1<<r.IntN(32), r.Uint32())
	}
	addresses = append(addresses, 1, 0xffffffff)
	return slices.DeleteFunc(addresses, func(a uint32) bool { return a == 0 || a>>24 == 127 || a>>17 == 198<<7|9 })
}

func TestLayoutsAnswerLikeTheReference(t *testing.T) {
	for _, c := range layoutCases() {
		rs := c.ruleSet()
		spans, err := spans4(rs, []uint32{1, 2, 3})
		if err != nil {
			t.Fatal(err)
		}
		l := layOut4(spans)
		if !c.check(l) {
			t.Errorf("%s: %d ranges, %d lines of hosts, %d of buckets, %d elsewhere", c.name, l.ranges, len(l.hosts), len(l.buckets), len(l.rest))
		}
		for _, a := range questions(rs, 300) {
			allowed := layoutAllowed(l.find(a))
			for i, port := range []uint16{7, 8} {
				if want := rs.Judge(from32(a), port, ruleset.UDP); allowed[i] != want {
					t.Fatalf("%s: %s port %d: %v, want %v", c.name, from32(a), port, allowed[i], want)
				}
			}
		}
	}
}

// layoutAllowed says whether a port set allows port 7 and port 8.
func layoutAllowed(set uint32) [2]bool {
	if set == 0 {
		return [2]bool{}
	}
	p := layoutPorts()[set-1]
	return [2]bool{ruleset.AllowsPort(p, 7, ruleset.UDP), ruleset.AllowsPort(p, 8, ruleset.UDP)}
}

// TestKernelAnswersLikeTheReference tries real connects against every layout.
func TestKernelAnswersLikeTheReference(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	for _, c := range layoutCases() {
		rs := c.ruleSet()
		if err := e.LoadRuleSet(rs); err != nil {
			t.Fatal(err)
		}
		if err := e.UseRuleSet(run, rs.ID); err != nil {
			t.Fatal(err)
		}
		addresses := questions(rs, 1000)
		for _, port := range []uint16{7, 8} {
			e.checkAnswers(t, cgroup, rs, addresses, port)
		}
	}
}

func (e *testEnv) checkAnswers(t *testing.T, cgroup string, rs *ruleset.RuleSet, addresses []uint32, port uint16) {
	t.Helper()
	var raw []byte
	for _, a := range addresses {
		raw = binary.BigEndian.AppendUint32(raw, a)
	}
	file := filepath.Join(t.TempDir(), "addresses")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	got := in(t, cgroup, "probe", strconv.Itoa(int(port)), file)
	if len(got) != len(addresses) {
		t.Fatalf("%s: %s", rs.ID, got)
	}
	refused := 0
	for i, a := range addresses {
		want := rs.Judge(from32(a), port, ruleset.UDP)
		if !want {
			refused++
		}
		if (got[i] == '1') != want {
			t.Errorf("%s: %s port %d: %c, want %v", rs.ID, from32(a), port, got[i], want)
		}
	}
	if refused == 0 || refused == len(addresses) {
		t.Errorf("%s: %d of %d are to be refused; that shows nothing", rs.ID, refused, len(addresses))
	}
	if control := in(t, "", "probe", strconv.Itoa(int(port)), file); control == got {
		t.Errorf("%s: unconfined, the same are refused", rs.ID)
	}
}
