package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Options say where a keeper is. All are required but Lost and Back.
type Options struct {
	Socket string // where it listens
	Daemon string // the cgroup of those who may speak to it, which this process is in
	Cgroup string // its own cgroup; made if it is not there
	Log    *slog.Logger
	// Lost is called when the keeper is gone, and Back when there is a new one
	// that holds everything again. Either may be nil.
	Lost func(error)
	Back func()
}

// Deposits is what this daemon has a keeper hold. It is safe for concurrent use.
type Deposits struct {
	options Options

	mu   sync.Mutex // guards what follows, and the order of what the keeper is told
	conn *conn      // nil while there is no keeper
	held map[string][]syscall.RawConn
}

// Found is what an earlier daemon has left with the keeper. Each name can be
// taken once; the rest is closed by Close.
type Found struct {
	fds map[string][]int
	// Why says why there is nothing, although there was a keeper: it was of
	// another version, or did not answer. It is nil if there was none.
	Why error
}

// Open finds the keeper, or starts one, and returns what it holds. A keeper that
// does not answer or is of another version is replaced by a new one.
func Open(ctx context.Context, o Options) (*Deposits, *Found, error) {
	d := &Deposits{options: o, held: map[string][]syscall.RawConn{}}
	found := &Found{}
	c, err := dial(o.Socket)
	if err == nil {
		if found.fds, err = c.list(); err == nil {
			d.conn = c
			return d, found, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			_ = c.quit() // one of another version obeys; one that does not is killed
		}
		c.close()
	}
	if !errors.Is(err, ErrNone) {
		found.Why = err
		o.Log.Warn("the keeper is replaced", "error", err)
	}
	d.conn, err = restart(ctx, o)
	return d, found, err
}

// restart ends the keeper, if there is one, and starts another.
func restart(ctx context.Context, o Options) (*conn, error) {
	if err := killCgroup(ctx, o.Cgroup); err != nil {
		return nil, err
	}
	if err := start(ctx, o); err != nil {
		return nil, err
	}
	return dial(o.Socket)
}

// Take returns the descriptors of a name, which are the caller's from now on. It
// is nil if the name is not there.
func (f *Found) Take(name string) []int {
	fds := f.fds[name]
	delete(f.fds, name)
	return fds
}

// TakeFile returns the one descriptor of a name as a file, which is the caller's. It
// is nil if the name is not there, or has another number of them.
func (f *Found) TakeFile(name string) *os.File {
	fds := f.Take(name)
	if len(fds) != 1 {
		closeFDs(fds)
		return nil
	}
	return os.NewFile(uintptr(fds[0]), name)
}

// Has reports whether there is a name.
func (f *Found) Has(name string) bool { return f.fds[name] != nil }

// Close closes what was not taken, and returns its names.
func (f *Found) Close() []string {
	names := slices.Sorted(maps.Keys(f.fds))
	for _, fds := range f.fds {
		closeFDs(fds)
	}
	f.fds = nil
	return names
}

// Put has the keeper hold descriptors under a name, in place of what it has
// there. They have to stay open until Drop. An error means that they will not
// outlive this daemon, unless the keeper comes back (see Run).
func (d *Deposits) Put(name string, conns ...syscall.RawConn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[name] = conns
	return d.put(name)
}

// put tells the keeper. The caller holds the lock.
func (d *Deposits) put(name string) error {
	if d.conn == nil {
		return ErrNone
	}
	return withFDs(d.held[name], func(fds []int) error { return d.conn.put(name, fds...) })
}

// Drop has the keeper close what it has under a name.
func (d *Deposits) Drop(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.held, name)
	if d.conn == nil {
		return ErrNone
	}
	return d.conn.drop(name)
}

// Has reports whether this daemon has something held under a name.
func (d *Deposits) Has(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.held[name]
	return ok
}

// Len returns how many names are held.
func (d *Deposits) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held)
}

// Quit ends the keeper, and with it what it alone holds.
func (d *Deposits) Quit(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.quit() // it is killed if it does not obey
		d.conn.close()
		d.conn = nil
	}
	d.held = map[string][]syscall.RawConn{}
	err := killCgroup(ctx, d.options.Cgroup)
	if rerr := os.Remove(d.options.Socket); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// Close ends the conversation and leaves the keeper to the next daemon.
func (d *Deposits) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.close()
		d.conn = nil
	}
}

// retryDelay is how long Run waits after a keeper could not be started.
const retryDelay = time.Second

// Run watches the keeper until ctx ends. When it is gone, another is started and
// given everything again.
func (d *Deposits) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		watch, err := dial(d.options.Socket)
		if err == nil {
			watch.gone(ctx)
			watch.close()
			err = fmt.Errorf("%w any more", ErrNone)
		}
		if ctx.Err() != nil {
			return nil
		}
		if d.options.Lost != nil {
			d.options.Lost(err)
		}
		for d.replace(ctx) != nil && ctx.Err() == nil {
			sleep(ctx, retryDelay)
		}
	}
	return nil
}

// replace starts another keeper and gives it everything.
func (d *Deposits) replace(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.close()
		d.conn = nil
	}
	c, err := restart(ctx, d.options)
	if err != nil {
		d.options.Log.Error("no keeper could be started; trying again", "error", err)
		return err
	}
	d.conn = c
	var failed []error
	for name := range d.held {
		switch err := d.put(name); {
		case errors.Is(err, os.ErrClosed), errors.Is(err, net.ErrClosed):
			delete(d.held, name) // it is about to be dropped
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
	}
	if err := errors.Join(failed...); err != nil {
		d.options.Log.Error("the new keeper does not hold everything", "error", err)
		return nil // Lost stays said
	}
	if d.options.Back != nil {
		d.options.Back()
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
