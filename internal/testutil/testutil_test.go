package testutil

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/ruleset"
)

func TestMain(m *testing.M) { Main(m) }

func TestDatapathConforms(t *testing.T) {
	ConformDatapath(t, func(*testing.T) Bench {
		d, next := NewDatapath(100), uint64(100)
		return Bench{
			Datapath: d, Leases: d,
			NewRun: func() uint64 { next++; d.AddRun(next); return next },
			Judge:  d.Judge,
		}
	})
}

func TestDatapathFills(t *testing.T) {
	d := NewDatapath(2)
	d.AddRun(1)
	addr := netip.MustParseAddr("198.18.0.1")
	if err := d.AllowName(1, addr, ports(1, 2)); err != nil {
		t.Fatal(err)
	}
	if err := d.AllowName(1, addr, ports(3)); !errors.Is(err, ErrFull) {
		t.Errorf("error %v, want ErrFull", err)
	}
	if got := d.Judge(1, netip.MustParseAddrPort("198.18.0.1:3"), ruleset.TCP); got != Deny {
		t.Errorf("what did not fit is %s", got)
	}
	d.RemoveRun(1)
	d.AddRun(2)
	if err := d.AllowName(2, addr, ports(3)); err != nil {
		t.Errorf("the room of a run that is gone was not freed: %v", err)
	}
}

func TestLeakedDescriptors(t *testing.T) {
	before := Descriptors()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if lost := LeakedDescriptors(before, 0); len(lost) != 1 || !strings.Contains(lost[0], os.DevNull) {
		t.Errorf("found %v, want %s", lost, os.DevNull)
	}
	_ = f.Close()
	if lost := LeakedDescriptors(before, 0); len(lost) != 0 {
		t.Errorf("found %v after it was closed", lost)
	}
}

func TestCgroup2Mount(t *testing.T) {
	const info = "24 30 0:22 / /proc rw - proc proc rw\n" +
		"35 30 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
	if got, ok := cgroup2Mount(info); !ok || got != "/sys/fs/cgroup/unified" {
		t.Errorf("got %q, %v", got, ok)
	}
	if got, ok := cgroup2Mount("24 30 0:22 / /cgroup2 rw - proc cgroup2 rw\n"); ok {
		t.Errorf("got %q where there is none", got)
	}
}

func TestCgroupCommandIsBornInside(t *testing.T) {
	cg := NewCgroup(t)
	out, err := cg.Command(t, "cat", "/proc/self/cgroup").Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := cg.Path[strings.LastIndex(cg.Path, "/"):]; !strings.Contains(string(out), want) {
		t.Errorf("it runs in %s, want %s", out, want)
	}
}

func TestNetNSIsApart(t *testing.T) {
	ns := NewNetNS(t)
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() error {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	if err := ns.Do(dial); err != nil {
		t.Errorf("inside: %v", err)
	}
	if err := dial(); err == nil {
		t.Error("the listener can be reached from outside")
	}
}

func TestWithCapabilities(t *testing.T) {
	RequireRoot(t)
	renice := func() error { return os.NewSyscallError("setpriority", unix.Setpriority(unix.PRIO_PROCESS, 0, -1)) }
	if err := WithCapabilities(renice); !errors.Is(err, unix.EACCES) {
		t.Errorf("without capabilities: %v, want EACCES", err)
	}
	if err := WithCapabilities(renice, unix.CAP_SYS_NICE); err != nil {
		t.Errorf("with CAP_SYS_NICE: %v", err)
	}
}
