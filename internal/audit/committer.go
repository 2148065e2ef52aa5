package audit

import (
	"errors"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// headInterval is how often the head file is replaced at most.
const headInterval = time.Second

// committer makes durable what the writer has written: one goroutine calls
// fsync(2), for everybody who waits at that moment. It also keeps the head
// file, and the spare segment ready, so that the writer never waits for those.
type committer struct {
	log   *Log
	watch *watch
	wake  chan struct{}
	stop  chan struct{}

	mu      sync.Mutex
	todo    group // since the last fsync began
	current *segment
	headErr error // why the head file is old

	// Only the goroutine uses these.
	durable head
	written head // in the head file
	headAt  time.Time
}

// group is what one round of fsync covers.
type group struct {
	files   []*segment // the last one is the current segment
	sealed  []*segment // those of files that are finished
	names   bool       // the directory has changed
	waiters []*request
	end     head
}

func (g *group) idle() bool { return len(g.waiters) == 0 && !g.names && len(g.sealed) == 0 }

func (c *committer) run() {
	flush := c.log.opts.FlushInterval > 0
	interval := headInterval
	if flush {
		interval = c.log.opts.FlushInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-c.wake:
			c.round(false)
		case <-tick.C:
			c.round(flush)
		case <-c.stop:
			c.round(true)
			c.saveHead()
			return
		}
	}
}

// round does everything that waits for the disk, under the eyes of the watch.
func (c *committer) round(all bool) {
	c.watch.start()
	defer c.watch.stop()
	c.commit(all)
	if time.Since(c.headAt) >= headInterval {
		c.saveHead()
	}
	if c.log.broken() == nil {
		c.log.spare.prepare()
	}
}

// signal makes run look at what there is to do.
func (c *committer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// wrote takes note of a batch that is in the file.
func (c *committer) wrote(seg *segment, batch []*request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.todo.files); n == 0 || c.todo.files[n-1] != seg {
		c.todo.files = append(c.todo.files, seg)
	}
	for _, r := range batch {
		if r.promise == decision.Durable {
			c.todo.waiters = append(c.todo.waiters, r)
		}
	}
	end := batch[len(batch)-1]
	c.todo.end = head{Seq: end.seq, Hash: end.hash}
	if len(c.todo.waiters) > 0 {
		c.signal()
	}
}

// rolled takes note of a new segment; old is nil for the first one.
func (c *committer) rolled(old, next *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old != nil {
		c.todo.sealed = append(c.todo.sealed, old)
	}
	c.current = next
	c.todo.files = append(c.todo.files, next)
	c.todo.names = true
	c.signal()
}

// commit makes durable what was written up to now, if somebody waits for it or
// all is set.
func (c *committer) commit(all bool) {
	c.mu.Lock()
	if !all && c.todo.idle() {
		c.mu.Unlock()
		return
	}
	g := c.todo
	c.todo = group{end: g.end}
	c.mu.Unlock()

	err := c.log.broken()
	if err == nil {
		err = c.sync(g)
	}
	answer(g.waiters, err)
	if err == nil {
		c.durable = g.end
	}
}

func (c *committer) sync(g group) error {
	for _, seg := range append(g.sealed, g.files...) {
		if err := c.syncFile(seg, len(g.waiters)); err != nil {
			return err
		}
	}
	if g.names {
		if err := syncDir(c.log.dir); err != nil {
			return c.log.breakDown("fsync of "+c.log.dir, err)
		}
	}
	return c.seal(g.sealed)
}

// syncFile calls fsync. After an error the kernel may have forgotten what it
// could not write, and the next fsync would succeed (fsync(2), NOTES), so one
// error is the end of the log.
func (c *committer) syncFile(seg *segment, waiters int) error {
	began := time.Now()
	err := c.log.sys.sync(seg.file)
	c.log.stats.synced()
	if f := c.log.opts.Observer.Synced; f != nil {
		f(waiters, time.Since(began), err)
	}
	if err != nil {
		return c.log.breakDown("fsync of "+seg.name, err)
	}
	return c.log.checkLinked(seg)
}

// seal gives back what was reserved behind the end of finished segments.
func (c *committer) seal(segs []*segment) error {
	for _, seg := range segs {
		if err := errors.Join(seg.file.Truncate(seg.size), seg.file.Close()); err != nil {
			return c.log.breakDown("close "+seg.name, err)
		}
	}
	return nil
}

// saveHead replaces the head file if the log has grown. A head that is old is
// true all the same, so a failure is told and tried again.
func (c *committer) saveHead() {
	if c.durable.Seq == c.written.Seq || c.log.broken() != nil {
		return
	}
	c.headAt = time.Now()
	if c.checkPlace() != nil {
		return
	}
	err := writeHead(c.log.dir, c.durable)
	if err == nil {
		c.written = c.durable
	}
	c.mu.Lock()
	changed := (err == nil) != (c.headErr == nil)
	c.headErr = err
	c.mu.Unlock()
	if changed && err != nil {
		c.log.opts.Log.Error("audit head not written", "dir", c.log.dir, "error", err)
	}
}

// checkPlace finds out that the log's name leads elsewhere: readers, and the
// next start, would not find what is written.
func (c *committer) checkPlace() error {
	c.mu.Lock()
	seg := c.current
	c.mu.Unlock()
	there, err := isAt(seg.file, seg.name)
	if err == nil && there {
		return nil
	}
	if err == nil {
		err = errors.New("another file has its name, or it was moved away")
	}
	return c.log.breakDown(seg.name, err)
}
