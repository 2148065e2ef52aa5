package kernel

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/varvel/varvel/internal/ruleset"
)

// longest is the definition: the longest prefix answers.
func longest(rs *ruleset.RuleSet, numbers []uint32, a netip.Addr) uint32 {
	best, set := -1, uint32(0)
	for _, e := range rs.Entries {
		if e.Prefix.Contains(a) && e.Prefix.Bits() > best {
			best, set = e.Prefix.Bits(), numbers[e.PortSet]
		}
	}
	return set
}

func randomRuleSet(r *rand.Rand, n int) *ruleset.RuleSet {
	rs := &ruleset.RuleSet{ID: "x"}
	seen := map[netip.Prefix]bool{}
	for range n {
		var raw [4]byte
		// Few upper bits, so that prefixes nest and ranges share a bucket.
		binary.BigEndian.PutUint32(raw[:], r.Uint32()&0x8003ffff)
		p := netip.PrefixFrom(netip.AddrFrom4(raw), r.IntN(33)).Masked()
		if !seen[p] {
			seen[p] = true
			rs.Entries = append(rs.Entries, ruleset.Entry{Prefix: p, PortSet: uint32(r.IntN(4))})
		}
	}
	return rs
}

func TestRangesAnswerLikeTheLongestPrefix(t *testing.T) {
	numbers := []uint32{3, 5, 7, 9}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		rs := randomRuleSet(r, 1+r.IntN(200))
		spans, err := spans4(rs, numbers)
		if err != nil {
			t.Fatal(err)
		}
		ranges := ranges4(spans)
		large := layout4{}
		hosts, others := newHosts4(spans)
		large.hosts = hosts
		large.buckets, large.rest = newBuckets4(ranges4(others))
		for i := range 400 {
			address := r.Uint32() & 0x8003ffff
			if i < len(rs.Entries) { // and the edges
				raw := rs.Entries[i].Prefix.Addr().As4()
				address = binary.BigEndian.Uint32(raw[:]) - uint32(r.IntN(2))
			}
			var raw [4]byte
			binary.BigEndian.PutUint32(raw[:], address)
			want := longest(rs, numbers, netip.AddrFrom4(raw))
			if got := searchRanges(ranges, address); got != want {
				t.Fatalf("seed %d, %v: ranges say %d, want %d", seed, raw, got, want)
			}
			for name, l := range map[string]layout4{"small": layOut4(spans), "large": large} {
				if got := l.find(address); got != want {
					t.Fatalf("seed %d, %v: the %s layout says %d, want %d", seed, raw, name, got, want)
				}
			}
		}
	}
}

func mustSpans(t *testing.T, prefix string) []span {
	t.Helper()
	rs := &ruleset.RuleSet{Entries: []ruleset.Entry{{Prefix: netip.MustParsePrefix(prefix)}}}
	spans, err := spans4(rs, []uint32{4})
	if err != nil {
		t.Fatal(err)
	}
	return spans
}

func TestRangesOfEverythingAndNothing(t *testing.T) {
	if s, err := spans4(&ruleset.RuleSet{}, nil); err != nil || s != nil || layOut4(s).ranges != 0 {
		t.Errorf("no prefix: %v, %v", s, err)
	}
	if r := ranges4(mustSpans(t, "0.0.0.0/0")); len(r) != 1 || r[0].Set != 4 {
		t.Errorf("0.0.0.0/0: %v", r)
	}
	if r := ranges4(mustSpans(t, "255.255.255.255/32")); len(r) != 2 || searchRanges(r, 0xffffffff) != 4 || searchRanges(r, 0xfffffffe) != 0 {
		t.Errorf("the last address: %v", r)
	}
	if _, err := spans4(&ruleset.RuleSet{Entries: []ruleset.Entry{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}}, nil); err == nil {
		t.Error("a missing port set is no error")
	}
}
