// Package workload knows which cgroups are runs of which agent.
//
// A run is found by the id of its cgroup, because that is what the kernel
// vouches for. Values of type *Run are snapshots: they are never changed after
// they were added, and a reload replaces them.
package workload

import (
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
)

// ErrExists is returned by Add for a run whose id or cgroup is known already.
var ErrExists = errors.New("run exists")

// Run is one live execution of an agent.
type Run struct {
	decision.Run
	Actor      decision.Actor
	CgroupID   uint64 // the inode of CgroupPath; never reused while the run lives
	CgroupPath string // absolute
	Netns      uint64 // cookie of its network namespace; 0: the node's
	Started    time.Time
	Agent      *config.Agent
	Tools      []*tool.Tool // those of Agent.Tools, in that order
	Command    []string     // for people; bounded by its maker
	Revoked    bool         // it may reach nothing any more, whatever is configured
	Begun      bool         // its command has been executed, and the next daemon adopts it
}

// Tool returns the run's tool of that name.
func (r *Run) Tool(name string) (*tool.Tool, bool) {
	for _, t := range r.Tools {
		if t.Name == name {
			return t, true
		}
	}
	return nil, false
}

// Registry holds the live runs of this node. It is safe for concurrent use.
type Registry struct {
	mu       sync.RWMutex // guards what is below
	byCgroup map[uint64]*Run
	byID     map[string]*Run
	ended    []*Run // the latest last, at most maxEnded
}

// maxEnded is how many ended runs are remembered.
const maxEnded = 512

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{byCgroup: map[uint64]*Run{}, byID: map[string]*Run{}}
}

// Add makes a run known. Returns ErrExists if its id or cgroup is taken.
func (g *Registry) Add(r *Run) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.byID[r.ID]; ok {
		return fmt.Errorf("%w: %s", ErrExists, r.ID)
	}
	if other, ok := g.byCgroup[r.CgroupID]; ok {
		return fmt.Errorf("%w: cgroup %d belongs to %s", ErrExists, r.CgroupID, other.ID)
	}
	g.byID[r.ID], g.byCgroup[r.CgroupID] = r, r
	return nil
}

// Replace puts a new snapshot in the place of a live run's old one. It reports
// whether the run was there; a run that has ended is not brought back.
func (g *Registry) Replace(r *Run) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, ok := g.byID[r.ID]
	if !ok || old.CgroupID != r.CgroupID {
		return false
	}
	g.byID[r.ID], g.byCgroup[r.CgroupID] = r, r
	return true
}

// Remove ends a run. It is no longer found but by Ended.
func (g *Registry) Remove(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.byID[id]
	if !ok {
		return
	}
	delete(g.byID, id)
	delete(g.byCgroup, r.CgroupID)
	if len(g.ended) == maxEnded {
		g.ended = append(g.ended[:0], g.ended[1:]...)
	}
	g.ended = append(g.ended, r)
}

// Ended returns a run that has ended, as it was then. Only the latest ones are
// remembered.
func (g *Registry) Ended(id string) (*Run, bool) {
	return g.findEnded(func(r *Run) bool { return r.ID == id })
}

// EndedByCgroup returns the run that has ended in the cgroup with that id. The
// kernel may still have to say something about it.
func (g *Registry) EndedByCgroup(id uint64) (*Run, bool) {
	return g.findEnded(func(r *Run) bool { return r.CgroupID == id })
}

func (g *Registry) findEnded(match func(*Run) bool) (*Run, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for i := len(g.ended) - 1; i >= 0; i-- {
		if match(g.ended[i]) {
			return g.ended[i], true
		}
	}
	return nil, false
}

// ByCgroup returns the run that lives in the cgroup with that id.
func (g *Registry) ByCgroup(id uint64) (*Run, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	r, ok := g.byCgroup[id]
	return r, ok
}

// ByID returns the run of that id.
func (g *Registry) ByID(id string) (*Run, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	r, ok := g.byID[id]
	return r, ok
}

// All returns the live runs, oldest first.
func (g *Registry) All() []*Run {
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := make([]*Run, 0, len(g.byID))
	for _, r := range g.byID {
		all = append(all, r)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all
}
