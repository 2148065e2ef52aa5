package egress

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"testing"
)

func TestAllocatorIsStableAndUnique(t *testing.T) {
	const quota = 4096
	a, b := newAllocator("run_a", quota), newAllocator("run_b", quota)
	seen := map[netip.Addr]string{}
	differ := 0
	for i := range quota {
		host := fmt.Sprintf("h%d.example.org", i)
		p, err := a.get(host)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range []netip.Addr{p.v4, p.v6} {
			if other, taken := seen[addr]; taken {
				t.Fatalf("%s and %s share %s", host, other, addr)
			}
			seen[addr] = host
			if !IsSynthetic(addr) || a.byAddr[addr] != host {
				t.Fatalf("%s of %s", addr, host)
			}
		}
		if q, _ := b.get(host); q != p {
			differ++
		}
	}
	for addr, host := range seen {
		if p, err := a.get(host); err != nil || p.v4 != addr && p.v6 != addr {
			t.Fatalf("%s had %s and now has %v, %v", host, addr, p, err)
		}
	}
	if _, err := a.get("one.more"); !errors.Is(err, ErrNoSynthetic) {
		t.Errorf("over the quota: %v", err)
	}
	if differ < quota/2 {
		t.Errorf("only %d names have other addresses in another run", differ)
	}
}

func TestAllocatorOutlivesRestart(t *testing.T) {
	const names = 100
	before, after := newAllocator("run_a", 4096), newAllocator("run_a", 4096)
	same := 0
	for i := range names {
		host := func(i int) string { return fmt.Sprintf("h%d.example.org", i) }
		_, _ = after.get(host(names - 1 - i)) // asked in another order
		_, _ = before.get(host(i))
	}
	for host, p := range before.byHost {
		if after.byHost[host] == p {
			same++
		}
	}
	if same < names-2 {
		t.Errorf("%d of %d names keep their addresses", same, names)
	}
}

func TestSyntheticEdges(t *testing.T) {
	for seed, want := range map[uint64]string{
		0: "198.18.0.1", 1: "198.18.0.2", usable - 1: "198.19.255.254", usable: "198.18.0.1",
	} {
		if got := address4(seed).String(); got != want {
			t.Errorf("address4(%d) = %s, want %s", seed, got, want)
		}
	}
	for seed, want := range map[uint64]string{
		0: "fd56:6172:7665:6c00::1", 2: "fd56:6172:7665:6c00::2", math.MaxUint64: "fd56:6172:7665:6c00:ffff:ffff:ffff:ffff",
	} {
		if got := address6(seed).String(); got != want {
			t.Errorf("address6(%d) = %s, want %s", seed, got, want)
		}
	}
	for addr, want := range map[string]bool{
		"198.18.0.0": true, "198.19.255.255": true, "198.20.0.0": false, "198.17.255.255": false,
		"::ffff:198.18.0.1": true, "fd56:6172:7665:6c00::": true, "fd56:6172:7665:6c01::": false,
	} {
		if got := IsSynthetic(netip.MustParseAddr(addr)); got != want {
			t.Errorf("IsSynthetic(%s) = %v", addr, got)
		}
	}
}

func TestAllocatorProbesPastTakenAddresses(t *testing.T) {
	a := newAllocator("r", usable) // half the space is the most
	for i := range usable / 2 {
		if _, err := a.get(fmt.Sprint(i)); err != nil {
			t.Fatalf("name %d: %v", i, err)
		}
	}
	if _, err := a.get("more"); !errors.Is(err, ErrNoSynthetic) {
		t.Errorf("more than half of the space: %v", err)
	}
}
