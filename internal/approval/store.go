package approval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits that are not configured.
const (
	commitLimit   = 5 * time.Second // to record one transition
	retention     = 24 * time.Hour  // of ended approvals, for people to look at
	keptPerOpen   = 8               // kept approvals of a run, for each that it may have open
	maxExpires    = 30 * 24 * time.Hour
	maxListed     = 1000
	listedPreview = 512 // bytes
)

// Config is what a Store needs. All fields but Hooks are required.
type Config struct {
	Dir     string        // of the journal; made if it does not exist
	InBand  time.Duration // how long Ask waits for people; 0 is not at all
	Expires time.Duration // of an approval whose policy names no time
	// MaxPerRun and MaxTotal bound how many approvals are open.
	MaxPerRun int
	MaxTotal  int
	Events    Events
	Runs      Runs
	Log       *slog.Logger
	Hooks     Hooks
}

// Hooks are called after a transition, one at a time. They must not block and
// must not call the Store. Each may be nil.
type Hooks struct {
	// Open gets the number of approvals that are pending or granted.
	Open func(n int)
	// Resolved gets what became of a pending approval, and how long it waited.
	Resolved func(s State, waited time.Duration)
}

// Store keeps approvals. It implements decision.Approver and is safe for
// concurrent use.
type Store struct {
	cfg Config

	// turn has room for one: who has put something in may change approvals.
	// It is a channel so that to wait for it can be given up. It guards journal and closed.
	turn    chan struct{}
	journal *journal
	closed  bool

	fault atomic.Pointer[error] // of the last attempt to keep something

	wake chan struct{} // tells Run that there is an earlier end to wait for

	mu    sync.RWMutex // guards what follows; written to only by who has the turn
	byID  map[string]*entry
	byKey map[key]*entry // the newest of each key
}

// entry holds the current value of one approval.
type entry struct {
	approval Approval
	changed  chan struct{} // closed when approval is replaced
}

// Open reads the journal in cfg.Dir and ends what the daemon's death has ended:
// open approvals of runs that are no more are cancelled, overdue ones expire,
// and the outcome of what was started is unknown.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	return open(ctx, cfg, (*os.File).Sync)
}

func open(ctx context.Context, cfg Config, sync func(*os.File) error) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	j, kept, err := openJournal(cfg.Dir, sync)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, turn: make(chan struct{}, 1), journal: j, wake: make(chan struct{}, 1),
		byID: map[string]*entry{}, byKey: map[key]*entry{},
	}
	for _, a := range kept.approvals {
		s.put(a)
	}
	if err := s.recover(ctx, kept.damaged); err != nil {
		return nil, errors.Join(err, j.close())
	}
	return s, nil
}

func (c Config) check() error {
	switch {
	case c.Dir == "" || c.Events == nil || c.Runs == nil || c.Log == nil:
		return errors.New("approval store: Dir, Events, Runs and Log must be set")
	case c.InBand < 0 || c.Expires <= 0 || c.Expires > maxExpires:
		return fmt.Errorf("approval store: the waiting time must not be negative, and approvals must expire within %v", maxExpires)
	case c.MaxPerRun < 1 || c.MaxTotal < 1:
		return errors.New("approval store: the limits of open approvals must be at least 1")
	}
	return nil
}

// recover makes the transitions that are due at start.
func (s *Store) recover(ctx context.Context, damaged bool) error {
	s.turn <- struct{}{}
	defer s.release()
	if damaged {
		s.cfg.Log.Warn("approval journal ended in a damaged record", "file", s.journal.path)
	}
	if err := s.journal.rewrite(s.all()); err != nil {
		return err
	}
	now := timeNow()
	for _, a := range s.all() {
		if err := s.recoverOne(ctx, a, damaged, now); err != nil {
			return err
		}
	}
	s.prune(now)
	if s.cfg.Hooks.Open != nil {
		s.cfg.Hooks.Open(s.countOpen())
	}
	return nil
}

func (s *Store) recoverOne(ctx context.Context, a Approval, damaged bool, now time.Time) error {
	switch {
	case a.State == Claimed:
		a.State = OutcomeUnknown
		return s.commit(ctx, EventOutcomeUnknown, a, nil)
	case !a.State.open():
		return nil
	case !s.cfg.Runs.Alive(a.Request.Run.ID):
		return s.cancel(ctx, a, "The run has ended.")
	case !now.Before(a.Expires):
		a.State = Expired
		return s.commit(ctx, EventExpired, a, nil)
	case damaged:
		// The damaged record could have been its claim.
		return s.cancel(ctx, a, "The journal was damaged, so it is not sure that the action was not started.")
	}
	return nil
}

// errClosed is what every change gets after Close.
var errClosed = errors.New("approval store is closed: the daemon is stopping")

// Close closes the journal. Nothing can be changed afterwards.
func (s *Store) Close() error {
	s.turn <- struct{}{}
	defer s.release()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.journal.close()
}

// take waits for the turn.
func (s *Store) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		if s.closed {
			s.release()
			return errClosed
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("approval store is busy: %w", context.Cause(ctx))
	}
}

func (s *Store) release() { <-s.turn }

// put replaces an approval, or adds it, and wakes who waits for it.
func (s *Store) put(a Approval) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &entry{approval: a, changed: make(chan struct{})}
	old := s.byID[a.ID]
	s.byID[a.ID] = next
	if old == nil || s.byKey[a.key()] == old {
		s.byKey[a.key()] = next
	}
	if old != nil {
		close(old.changed)
	}
}

// all returns every approval, oldest first.
func (s *Store) all() []Approval {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]Approval, 0, len(s.byID))
	for _, e := range s.byID {
		list = append(list, e.approval)
	}
	slices.SortFunc(list, func(a, b Approval) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// look returns an approval, and a channel that is closed when it changes.
func (s *Store) look(id string) (Approval, <-chan struct{}, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.byID[id]
	if e == nil {
		return Approval{}, nil, fmt.Errorf("%w: %q; list them with: varvel approvals", ErrNotFound, clean(id, maxName))
	}
	return e.approval, e.changed, nil
}

// Get returns one approval.
func (s *Store) Get(id string) (Approval, error) {
	a, _, err := s.look(id)
	return a, err
}

// Filter selects approvals. Zero fields select all.
type Filter struct {
	Run   string
	State State
	Limit int // at most 1000, which is also what 0 means
}

// List returns the approvals that f selects, newest first, with their previews
// cut to 512 bytes.
func (s *Store) List(f Filter) []Approval {
	limit := f.Limit
	if limit <= 0 || limit > maxListed {
		limit = maxListed
	}
	var list []Approval
	for _, a := range slices.Backward(s.all()) {
		if f.Run != "" && a.Request.Run.ID != f.Run || f.State != "" && a.State != f.State {
			continue
		}
		if len(list) == limit {
			break
		}
		if preview := shorten(a.Request.Preview, listedPreview); preview != a.Request.Preview {
			a.Request.Preview, a.Cut = preview, true
		}
		list = append(list, a)
	}
	return list
}

// Health returns why transitions cannot be kept, or nil. After a failure it
// tries to write the journal anew, so that it knows when that works again.
func (s *Store) Health(ctx context.Context) error {
	if failed := s.fault.Load(); failed == nil || *failed == nil {
		return nil
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	err := s.journal.rewrite(s.all())
	s.fault.Store(&err)
	return err
}

func timeNow() time.Time { return time.Now().UTC().Round(0) }
