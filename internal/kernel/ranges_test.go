package kernel

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/varvel/varvel/internal/ruleset"
)

// search is what search4 of bpf/lib/verdict.h does.
func search(ranges []abiVarvelRange4, address uint32) uint32 {
	var set uint32
	for _, r := range ranges {
		if r.Start <= address {
			set = r.Set
		}
	}
	return set
}

// searchBuckets is what find4 does with a large rule set.
func searchBuckets(buckets []abiVarvelBucket4, rest []abiVarvelRange4, address uint32) uint32 {
	b := buckets[address>>16]
	if int(b.Count) > len(b.Slot) {
		return search(rest[b.first():b.first()+b.Count], address)
	}
	var set uint32
	for _, s := range b.Slot[:b.Count] {
		if s.Start <= uint16(address) {
			set = uint32(s.Set)
		}
	}
	return set
}

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
		ranges, err := ranges4(rs, numbers)
		if err != nil {
			t.Fatal(err)
		}
		buckets, rest := buckets4(ranges)
		for i := range 400 {
			address := r.Uint32() & 0x8003ffff
			if i < len(rs.Entries) { // and the edges
				raw := rs.Entries[i].Prefix.Addr().As4()
				address = binary.BigEndian.Uint32(raw[:]) - uint32(r.IntN(2))
			}
			var raw [4]byte
			binary.BigEndian.PutUint32(raw[:], address)
			want := longest(rs, numbers, netip.AddrFrom4(raw))
			if got := search(ranges, address); got != want {
				t.Fatalf("seed %d, %v: ranges say %d, want %d", seed, raw, got, want)
			}
			if got := searchBuckets(buckets, rest, address); got != want {
				t.Fatalf("seed %d, %v: the buckets say %d, want %d", seed, raw, got, want)
			}
		}
	}
}

func TestRangesOfEverythingAndNothing(t *testing.T) {
	if r, err := ranges4(&ruleset.RuleSet{}, nil); err != nil || r != nil {
		t.Errorf("no prefix: %v, %v", r, err)
	}
	all := &ruleset.RuleSet{Entries: []ruleset.Entry{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}}
	r, err := ranges4(all, []uint32{4})
	if err != nil || len(r) != 1 || r[0].Set != 4 {
		t.Errorf("0.0.0.0/0: %v, %v", r, err)
	}
	last := &ruleset.RuleSet{Entries: []ruleset.Entry{{Prefix: netip.MustParsePrefix("255.255.255.255/32")}}}
	if r, err := ranges4(last, []uint32{4}); err != nil || len(r) != 2 || search(r, 0xffffffff) != 4 || search(r, 0xfffffffe) != 0 {
		t.Errorf("the last address: %v, %v", r, err)
	}
	if _, err := ranges4(all, nil); err == nil {
		t.Error("a missing port set is no error")
	}
}

// TestKernelAnswersLikeTheReference tries real connects against the compiled
// rule set, small and in buckets.
func TestKernelAnswersLikeTheReference(t *testing.T) {
	e := newTestEnv(t)
	answerLocally(t)
	cgroup, run := e.newRun(t, "run_a", false)
	for _, n := range []int{8, 4 * smallRanges} {
		rs := &ruleset.RuleSet{ID: string(rune('a' + n%26)), PortSets: [][]ruleset.PortRange{ports(7, 7)}}
		for i := range n { // every second address of 198.51.100.0/24, and far away ones
			a := netip.AddrFrom4([4]byte{198, 51, 100, byte(2 * i)})
			if i > 127 {
				a = netip.AddrFrom4([4]byte{10, byte(i % 5), byte(i >> 8), byte(i)})
			}
			rs.Entries = append(rs.Entries, ruleset.Entry{Prefix: netip.PrefixFrom(a, 32)})
		}
		if err := e.LoadRuleSet(rs); err != nil {
			t.Fatal(err)
		}
		if err := e.UseRuleSet(run, rs.ID); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ address, want string }{
			{"198.51.100.4:7", "ok"}, {"198.51.100.5:7", "EPERM"}, {"198.51.100.4:8", "EPERM"}, {"198.51.100.14:7", "ok"},
			{"198.51.101.0:7", "EPERM"}, {"0.0.0.1:7", "EPERM"}, {"255.255.255.254:7", "EPERM"},
		} {
			if got := in(t, cgroup, "sendto", "udp4", tt.address); got != tt.want {
				t.Errorf("%d rules: %s: got %q, want %q", n, tt.address, got, tt.want)
			}
		}
	}
}
