package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf/link"
)

// Config says where Varvel's part of the kernel lives.
type Config struct {
	Runs   string // cgroup under which every run has its own, absolute path
	Daemon string // cgroup of the daemon itself, absolute path
	Level  uint32 // depth of a run's cgroup in the whole cgroup tree
	Pins   string // directory in bpffs; made here, and owned by this package, with its siblings Pins-new-*
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
	links   map[string]link.Link // by the name of the program that is attached
	netns   uint64               // cookie of our network namespace
	flushes [2]flushes           // one for each of rings

	mu     sync.Mutex
	node   abiVarvelNode
	sets   *ruleSets
	runs   map[uint64]abiVarvelRun
	names  map[uint64][]abiVarvelNameKey
	leases leaseTable
	// grants are, for runs that have some, which rule set says who may come in.
	grants map[uint64]abiVarvelRun

	adoption Adoption
}

// Open puts the programs into force, below cfg.Pins.
//
// If there is nothing of Varvel there, it makes everything anew, and leaves
// nothing behind if it fails. Otherwise it adopts what an earlier daemon has left:
// its runs, with their rules, names and counters, stay known, and the programs of
// this build take the place of the old ones with no moment without any. Maps whose
// layout this build shares are kept with all that is in them. Others are made anew
// and filled with what can be carried over; Adoption says what could not. If it
// fails, the old programs are in force as before.
//
// Returns an error wrapping ErrPins if what is there cannot be read.
//
// The caller makes sure that no other daemon uses cfg.Pins.
func Open(cfg Config) (*Kernel, error) {
	s, err := readSpecs()
	if err != nil {
		return nil, err
	}
	return open(cfg, s, func(string) error { return nil })
}

// open is Open with two seams for tests: another build's objects, and a function
// that is called before each step of an adoption and can make it fail.
func open(cfg Config, s *specs, before func(step string) error) (_ *Kernel, err error) {
	k := &Kernel{
		cfg: cfg, links: map[string]link.Link{},
		runs: map[uint64]abiVarvelRun{}, names: map[uint64][]abiVarvelNameKey{}, grants: map[uint64]abiVarvelRun{},
	}
	if k.netns, err = NetnsCookie(); err != nil {
		return nil, err
	}
	want, err := s.layout(cfg.hooks())
	if err != nil {
		return nil, err
	}
	old, err := findHeld(cfg)
	if err != nil {
		return nil, err
	}
	defer old.close()
	defer func() {
		if err != nil {
			k.Close()
		}
	}()
	if old.empty() {
		return k, k.create(s, want)
	}
	if err := newAdopter(k, s, want, old, before).run(); err != nil {
		return nil, fmt.Errorf("adopt the programs of the earlier daemon (they stay in force): %w", err)
	}
	return k, nil
}

// create makes everything anew.
func (k *Kernel) create(s *specs, want layout) (err error) {
	if err := removeTemps(k.cfg.Pins); err != nil {
		return err
	}
	if k.objects, err = loadObjects(s, nil); err != nil {
		return err
	}
	if k.objects.maps[layoutMap], err = want.store(); err != nil {
		return err
	}
	k.sets = newRuleSets(k.objects)
	k.node.Level = k.cfg.Level
	k.node.Generation = 1
	if err := k.putNode(); err != nil {
		return err
	}
	if err := errors.Join(k.countNobody(), k.bindMaps()); err != nil {
		return err
	}
	if err := k.attach(); err != nil {
		return err
	}
	return k.pin()
}

// Close ends the daemon's hold on the kernel objects. What is pinned stays in
// force; Unpin ends that.
func (k *Kernel) Close() {
	for _, l := range k.links {
		l.Close()
	}
	if k.objects != nil {
		k.objects.close()
	}
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
