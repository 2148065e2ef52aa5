package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf/link"
)

// Config says where Varvel's part of the kernel lives.
type Config struct {
	Runs   string // cgroup under which every run has its own, absolute path
	Daemon string // cgroup of the daemon itself, absolute path
	Level  uint32 // depth of a run's cgroup in the whole cgroup tree
	Pins   string // directory in bpffs; made here, and owned by this package
	Log    *slog.Logger
}

// Doors are the ports on which the daemon listens for redirected connections,
// on the loopback addresses of its network namespace. 0 means that there is no
// such door; what would go through it is refused.
type Doors struct {
	TCP4, TCP6, UDP4, UDP6 uint16
}

// Kernel is Varvel's part of the kernel. Its methods may be used concurrently.
type Kernel struct {
	cfg     Config
	objects *objects
	links   []link.Link
	netns   uint64     // cookie of our network namespace
	flushes [2]flushes // one for each of rings

	mu    sync.Mutex
	node  abiVarvelNode
	sets  *ruleSets
	runs  map[uint64]abiVarvelRun
	names map[uint64][]abiVarvelNameKey
	// listens is, for runs that have one, the index of the rule set that says who may come in.
	listens map[uint64]uint32
}

// Open loads and attaches the programs and pins them below cfg.Pins, which must
// not exist. If anything fails, nothing is left behind.
func Open(cfg Config) (_ *Kernel, err error) {
	k := &Kernel{cfg: cfg, runs: map[uint64]abiVarvelRun{}, names: map[uint64][]abiVarvelNameKey{}, listens: map[uint64]uint32{}}
	if k.netns, err = netnsCookie(); err != nil {
		return nil, err
	}
	if k.objects, err = loadObjects(); err != nil {
		return nil, err
	}
	k.sets = newRuleSets(k.objects)
	defer func() {
		if err != nil {
			k.Close()
		}
	}()
	k.node.Level = cfg.Level
	k.node.Generation = 1
	if err := k.putNode(); err != nil {
		return nil, err
	}
	if err := k.attach(); err != nil {
		return nil, err
	}
	return k, k.pin()
}

// Close ends the daemon's hold on the kernel objects. What is pinned stays in
// force; Unpin ends that.
func (k *Kernel) Close() {
	for _, l := range k.links {
		l.Close()
	}
	k.objects.close()
}

// Unpin takes every pin below dir away, and with it everything that is attached
// through them. A missing directory is fine.
func Unpin(dir string) error {
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the pinned programs: %w", err)
	}
	return nil
}

// pin makes the pins beside their place and renames them into it, so that a
// directory with that name is always complete.
func (k *Kernel) pin() error {
	temp, err := os.MkdirTemp(filepath.Dir(k.cfg.Pins), filepath.Base(k.cfg.Pins)+"-new-")
	if err != nil {
		return fmt.Errorf("pin in bpffs: %w", err)
	}
	if err := k.pinInto(temp); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	if err := os.Rename(temp, k.cfg.Pins); err != nil {
		return errors.Join(fmt.Errorf("pin in bpffs: %w", err), os.RemoveAll(temp))
	}
	return nil
}

func (k *Kernel) pinInto(dir string) error {
	for name, m := range k.objects.maps {
		if err := m.Pin(filepath.Join(dir, "map_"+name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for i, l := range k.links {
		if err := l.Pin(filepath.Join(dir, fmt.Sprintf("link_%02d", i))); err != nil {
			return fmt.Errorf("pin link %d: %w", i, err)
		}
	}
	return nil
}

// SetDoors tells the programs where the daemon listens.
func (k *Kernel) SetDoors(d Doors) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.node.Tcp4, k.node.Tcp6, k.node.Udp4, k.node.Udp6 = d.TCP4, d.TCP6, d.UDP4, d.UDP6
	return k.putNode()
}

func (k *Kernel) putNode() error {
	if err := k.objects.maps["node"].Put(uint32(0), k.node); err != nil {
		return fmt.Errorf("tell the programs about this node: %w", err)
	}
	return nil
}

// bumpGeneration makes every socket be judged anew at its next packet.
func (k *Kernel) bumpGeneration() error {
	k.node.Generation++
	return k.putNode()
}

// address returns the form that addresses have in the maps.
func address(a netip.Addr) abiVarvelAddress {
	raw := a.As16()
	var out abiVarvelAddress
	for i := range out.Word {
		out.Word[i] = nativeUint32(raw[4*i : 4*i+4])
	}
	return out
}

// addr is the inverse of address.
func (a abiVarvelAddress) addr() netip.Addr {
	var raw [16]byte
	for i, w := range a.Word {
		putNativeUint32(raw[4*i:4*i+4], w)
	}
	return netip.AddrFrom16(raw).Unmap()
}
