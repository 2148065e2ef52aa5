package measure

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/workload"
)

func TestSockaddrs(t *testing.T) {
	a := NewSockaddrs([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.7")}, 4433)
	if a.Len() != 2 || a.Slice(1, 1).Len() != 1 {
		t.Fatalf("%d addresses", a.Len())
	}
	want := Sockaddrs{unix.AF_INET, 0, 0x11, 0x51, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0}
	if diff := cmp.Diff(want, a.Slice(1, 1)); diff != "" {
		t.Error(diff)
	}
}

func TestConnect(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := Connect(fd, NewSockaddrs([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, 9)); err != nil {
		t.Fatal(err)
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		t.Fatal(err)
	}
	if in, ok := peer.(*unix.SockaddrInet4); !ok || in.Port != 9 || in.Addr != [4]byte{127, 0, 0, 1} {
		t.Errorf("connected to %+v", peer)
	}
	if err := Connect(-1, NewSockaddrs([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, 9)); !errors.Is(err, unix.EBADF) {
		t.Errorf("a bad descriptor: %v", err)
	}
}

func TestAttach(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loading programs into the kernel needs root; this process is not root")
	}
	c, err := workload.OpenCgroups("", fmt.Sprintf("varvel-measure-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := workload.Remove(filepath.Dir(c.Runs)); err != nil {
			t.Error(err)
		}
	})
	for name, attach := range map[string]func(string) (io.Closer, error){"noop": AttachNoop, "one load": AttachOneLoad} {
		attached, err := attach(c.Runs)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := attached.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := attach(filepath.Join(c.Runs, "absent")); err == nil {
			t.Errorf("%s: attached to a cgroup that does not exist", name)
		}
	}
}
