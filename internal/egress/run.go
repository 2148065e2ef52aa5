package egress

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// errNotListed means that the plan has no grant for a name.
var errNotListed = errors.New("the name is not listed")

// errDirect means that a name has no synthetic address: its real ones are handed out.
var errDirect = errors.New("the name is direct")

// runState is what egress holds of one live run.
type runState struct {
	datapath    Datapath
	leaser      Leaser
	snapshot    func() CheckFunc // where names may lead now
	limits      Limits           // of the node
	budget      *budget
	keeper      NameKeeper // may be nil
	families    func(netns uint64) (has4, has6 bool)
	queries     *rate.Limiter
	events      *rate.Limiter
	connections chan struct{} // one token for each open TCP connection
	tasks       chan struct{} // one token for each datagram that is answered by a task
	count       counters
	skipped     atomic.Uint64 // questions without an event since the last event

	// mu guards everything below. It is held while the kernel is told, so that
	// two answers for one name never race; only this run waits for that.
	mu      sync.RWMutex
	run     *workload.Run
	plan    *Plan
	alloc   *allocator
	leases  leaseTable
	allowed map[string]struct{} // hosts whose addresses the kernel knows under this plan
	kept    map[string]struct{} // hosts whose addresses keeper has
}

// newRunState returns the state of a run. Known are the names that it was told of
// before, by an earlier daemon.
func newRunState(o Options, run *workload.Run, plan *Plan, known []KnownName) (*runState, error) {
	l := o.Limits
	s := &runState{
		datapath:    o.Datapath,
		keeper:      o.Keeper,
		families:    o.Families,
		leaser:      o.Leaser,
		snapshot:    o.Snapshot,
		limits:      l,
		budget:      newBudget(l.with(run.Agent.Wildcards)),
		leases:      leaseTable{limit: l.Leases, entries: map[leaseKey]*lease{}},
		queries:     rate.NewLimiter(rate.Limit(l.Queries), l.QueryBurst),
		events:      rate.NewLimiter(rate.Limit(l.Events), l.EventBurst),
		connections: make(chan struct{}, l.Connections),
		tasks:       make(chan struct{}, l.Tasks),
		run:         run, plan: plan, alloc: newAllocator(run.Run.ID, l.Names),
		allowed: map[string]struct{}{}, kept: map[string]struct{}{},
	}
	for _, n := range known {
		if err := s.alloc.restore(n); err != nil {
			return nil, err
		}
		s.kept[n.Host] = struct{}{}
	}
	s.reserve()
	return s, nil
}

// reserve gives exact names their addresses before anybody asks, in an order
// that is always the same. So a daemon that starts again knows them, although
// programs may not ask again. Half of the quota is left for wildcards.
func (s *runState) reserve() {
	hosts := slices.Sorted(maps.Keys(s.plan.names.exact))
	for _, host := range hosts[:min(len(hosts), s.alloc.quota/2)] {
		if s.plan.names.isDirect(host) {
			continue
		}
		if _, err := s.alloc.get(host); err != nil {
			return // the quota is used up; asking for the name says so
		}
	}
}

// current returns the run's snapshot and plan.
func (s *runState) current() (*workload.Run, *Plan) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.run, s.plan
}

// addresses returns the synthetic addresses of a canonical host, after the
// kernel has been told of them. Returns errNotListed if the plan has no grant,
// and errDirect if the name has none because its real ones are handed out.
func (s *runState) addresses(host string) (pair, error) {
	if p, ok := s.known(host); ok {
		return p, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	grants := s.plan.names.grants(host)
	if len(grants) == 0 {
		return pair{}, errNotListed
	}
	if grants[0].direct() {
		return pair{}, errDirect
	}
	p, err := s.alloc.get(host)
	if err != nil {
		return pair{}, err
	}
	if err := s.keep(host, p); err != nil {
		return pair{}, err
	}
	if err := s.tell(p, singlePorts(grants)); err != nil {
		return pair{}, err
	}
	s.allowed[host] = struct{}{}
	return p, nil
}

// usable returns those of a name's addresses that lead anywhere: a connection to a
// family that cannot be redirected where the run lives would be refused, and
// programs that get the other family alone use that.
func (s *runState) usable(p pair) []netip.Addr {
	if s.families == nil {
		return []netip.Addr{p.v4, p.v6}
	}
	run, _ := s.current()
	var usable []netip.Addr
	has4, has6 := s.families(run.Netns)
	if has4 {
		usable = append(usable, p.v4)
	}
	if has6 {
		usable = append(usable, p.v6)
	}
	return usable
}

// keep makes sure that a later daemon knows what the addresses stand for, before
// anybody is told of them.
func (s *runState) keep(host string, p pair) error {
	if _, ok := s.kept[host]; ok || s.keeper == nil {
		return nil
	}
	if err := s.keeper.KeepName(s.run.Run.ID, KnownName{host, p.v4, p.v6}); err != nil {
		return fmt.Errorf("keep the addresses of a name: %w", err)
	}
	s.kept[host] = struct{}{}
	return nil
}

func (s *runState) known(host string) (pair, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if _, ok := s.allowed[host]; !ok {
		return pair{}, false
	}
	p, ok := s.alloc.byHost[host]
	return p, ok
}

// tell gives the kernel the ports of a name's addresses.
func (s *runState) tell(p pair, ports []ruleset.PortRange) error {
	if len(ports) > MaxPorts {
		return fmt.Errorf("the rules of the name add up to %d ports, and a name may have %d", len(ports), MaxPorts)
	}
	for _, addr := range []netip.Addr{p.v4, p.v6} {
		if err := s.datapath.AllowName(s.run.CgroupID, addr, ports); err != nil {
			return fmt.Errorf("allow the address of a name: %w", err)
		}
	}
	return nil
}

// replace puts a new plan into force. Of names that the kernel knows
// already it is told the ports that are new. A name whose ports it does not
// take has no address until it does, when it is asked for the next time. Leases
// that the new plan does not give are withdrawn, with what they have opened.
func (s *runState) replace(run *workload.Run, plan *Plan, leases withdrawer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := s.allowed
	s.run, s.plan, s.allowed = run, plan, map[string]struct{}{}
	s.budget.set(s.limits.with(run.Agent.Wildcards))
	s.reserve()
	return errors.Join(s.tellAgain(told), s.withdraw(leases, s.ungranted()))
}

// tellAgain gives the kernel what the plan grants of the hosts that it was told of.
func (s *runState) tellAgain(told map[string]struct{}) error {
	var errs []error
	for host := range told {
		grants := s.plan.names.grants(host)
		if len(grants) == 0 || grants[0].direct() {
			continue
		}
		if err := s.tell(s.alloc.byHost[host], singlePorts(grants)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", host, err))
			continue
		}
		s.allowed[host] = struct{}{}
	}
	return errors.Join(errs...)
}

// restoreNames gives the kernel what the plan grants of the names that were kept.
func (s *runState) restoreNames() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tellAgain(s.kept)
}

// host returns the canonical host that a synthetic address of the run stands
// for, listed or not.
func (s *runState) host(addr netip.Addr) (string, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	host, ok := s.alloc.byAddr[addr]
	return host, ok
}

// lookup returns the name that a destination stands for.
func (s *runState) lookup(dst netip.AddrPort) (Name, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	host, ok := s.alloc.byAddr[dst.Addr().Unmap()]
	if !ok {
		return Name{}, false
	}
	return s.plan.names.at(host, dst.Port())
}
