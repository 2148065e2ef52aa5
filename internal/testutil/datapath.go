package testutil

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/ruleset"
)

// Verdict is what becomes of a connection of a run.
type Verdict string

// The verdicts that a datapath has for addresses.
const (
	Deny     Verdict = "deny"     // EPERM
	Direct   Verdict = "direct"   // to where the program wanted
	Redirect Verdict = "redirect" // to the gateway
)

// The errors of a Datapath.
var (
	ErrUnknownRun     = errors.New("no such run in the datapath")
	ErrUnknownRuleSet = errors.New("rule set is not loaded")
	ErrFull           = ruleset.ErrFull
)

// Datapath is a datapath in memory. It behaves like the kernel's, as
// ConformDatapath shows. The zero value is not usable; see NewDatapath. It is
// safe for concurrent use.
type Datapath struct {
	mu    sync.Mutex
	room  int // names that still fit
	fault error
	sets  map[string]*ruleset.RuleSet
	runs  map[uint64]*fakeRun
	calls []string
}

type fakeRun struct {
	rules  *ruleset.RuleSet
	listen *ruleset.RuleSet
	names  map[netip.AddrPort]bool
	leases map[leaseKey]time.Time // until when
}

type leaseKey struct {
	addr     netip.Addr
	port     uint16
	protocol ruleset.Protocol
}

// NewDatapath returns a datapath that has room for so many pairs of synthetic
// address and port.
func NewDatapath(names int) *Datapath {
	return &Datapath{room: names, sets: map[string]*ruleset.RuleSet{}, runs: map[uint64]*fakeRun{}}
}

// AddRun makes a run known. Until UseRuleSet it reaches nothing.
func (d *Datapath) AddRun(cgroupID uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs[cgroupID] = &fakeRun{names: map[netip.AddrPort]bool{}, leases: map[leaseKey]time.Time{}}
}

// RemoveRun takes away all that is held of a run.
func (d *Datapath) RemoveRun(cgroupID uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r, ok := d.runs[cgroupID]; ok {
		d.room += len(r.names)
		delete(d.runs, cgroupID)
	}
}

// Fail lets every later call fail with err, until Fail(nil).
func (d *Datapath) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = err
}

// Calls returns what was called, in order, such as "load", "use" and "name".
func (d *Datapath) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.calls...)
}

// begin notes a call and returns the fault that was set.
func (d *Datapath) begin(call string) error {
	d.calls = append(d.calls, call)
	return d.fault
}

// LoadRuleSet makes a rule set available.
func (d *Datapath) LoadRuleSet(rs *ruleset.RuleSet) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("load"); err != nil {
		return err
	}
	d.sets[rs.ID] = rs
	return nil
}

// UseRuleSet gives a run a loaded rule set.
func (d *Datapath) UseRuleSet(cgroupID uint64, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("use"); err != nil {
		return err
	}
	r, ok := d.runs[cgroupID]
	if !ok {
		return ErrUnknownRun
	}
	rs, ok := d.sets[id]
	if !ok {
		return fmt.Errorf("%w: %s", ErrUnknownRuleSet, id)
	}
	r.rules = rs
	return nil
}

// UseListen says who may reach a run.
func (d *Datapath) UseListen(cgroupID uint64, rs *ruleset.RuleSet) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("listen"); err != nil {
		return err
	}
	r, ok := d.runs[cgroupID]
	if !ok {
		return ErrUnknownRun
	}
	r.listen = rs
	return nil
}

// JudgeInbound says whether a peer may reach a port of a run.
func (d *Datapath) JudgeInbound(cgroupID uint64, peer netip.Addr, port uint16, proto ruleset.Protocol) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.runs[cgroupID]
	return ok && r.listen != nil && r.listen.Judge(peer, port, proto)
}

// AllowName lets a run connect to a synthetic address.
func (d *Datapath) AllowName(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("name"); err != nil {
		return err
	}
	r, ok := d.runs[cgroupID]
	if !ok {
		return ErrUnknownRun
	}
	for _, p := range ports {
		for port := int(p.First); port <= int(p.Last); port++ {
			key := netip.AddrPortFrom(addr.Unmap(), uint16(port))
			if r.names[key] {
				continue
			}
			if d.room == 0 {
				return fmt.Errorf("%w: names", ErrFull)
			}
			d.room--
			r.names[key] = true
		}
	}
	return nil
}

// Lease lets a run reach a real address directly for a while.
func (d *Datapath) Lease(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange, period time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("lease"); err != nil {
		return err
	}
	r, ok := d.runs[cgroupID]
	if !ok {
		return ErrUnknownRun
	}
	for _, p := range ports {
		for port := int(p.First); port <= int(p.Last); port++ {
			r.leases[leaseKey{addr.Unmap(), uint16(port), p.Protocol}] = time.Now().Add(period)
		}
	}
	return nil
}

// Open returns how many leases a run has, expired ones too.
func (d *Datapath) Open(cgroupID uint64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.runs[cgroupID].leases)
}

// Withdraw ends leases before their time.
func (d *Datapath) Withdraw(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin("withdraw"); err != nil {
		return err
	}
	if r, ok := d.runs[cgroupID]; ok {
		for _, p := range ports {
			for port := int(p.First); port <= int(p.Last); port++ {
				delete(r.leases, leaseKey{addr.Unmap(), uint16(port), p.Protocol})
			}
		}
	}
	return nil
}

// Judge returns what becomes of a connection.
func (d *Datapath) Judge(cgroupID uint64, dst netip.AddrPort, proto ruleset.Protocol) Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.runs[cgroupID]
	if !ok {
		return Deny
	}
	if proto == ruleset.TCP && r.names[netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())] {
		return Redirect
	}
	if r.rules != nil && r.rules.Judge(dst.Addr(), dst.Port(), proto) {
		return Direct
	}
	if until, ok := r.leases[leaseKey{dst.Addr().Unmap(), dst.Port(), proto}]; ok && time.Now().Before(until) {
		return Direct
	}
	return Deny
}
