package kernel

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/testutil"
)

// TestDatapathConforms holds the kernel to the contract that the datapath in
// memory, with which everything else is tested, keeps as well.
func TestDatapathConforms(t *testing.T) {
	testutil.ConformDatapath(t, func(t *testing.T) testutil.Bench {
		e := newTestEnv(t)
		answerLocally(t)
		visitors, _ := e.openDoors(t)
		paths := map[uint64]string{}
		return testutil.Bench{
			Datapath: e.Kernel, Leases: e.Kernel,
			NewRun: func() uint64 {
				path, id := e.newRun(t, fmt.Sprintf("run%d", len(paths)), false)
				paths[id] = path
				return id
			},
			Judge: func(run uint64, dst netip.AddrPort, proto ruleset.Protocol) testutil.Verdict {
				return attempt(t, paths[run], dst, proto, visitors)
			},
		}
	})
}

// answerLocally has the addresses that the suite tries answer at once.
func answerLocally(t *testing.T) {
	for _, args := range []string{
		"route add local 192.0.2.0/24 dev lo", "route add local 198.51.100.0/24 dev lo", "-6 route add local 2001:db8::/32 dev lo",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
}

// attempt connects, or sends, from a process of the run.
func attempt(t *testing.T, path string, dst netip.AddrPort, proto ruleset.Protocol, visitors <-chan visitor) testutil.Verdict {
	t.Helper()
	action, network := "dial", "tcp4"
	if proto == ruleset.UDP {
		action, network = "sendto", "udp4"
	}
	if dst.Addr().Is6() {
		network = network[:3] + "6"
	}
	said := in(t, path, action, network, dst.String())
	switch {
	case said == "EPERM":
		return testutil.Deny
	case proto == ruleset.TCP && strings.HasPrefix(said, "ok"):
		if v := next(t, visitors); v.err == nil && v.dst == netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()) {
			return testutil.Redirect
		}
	case said == "ECONNREFUSED", proto == ruleset.UDP && said == "ok":
		return testutil.Direct
	}
	return testutil.Verdict(said)
}
