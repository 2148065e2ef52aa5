package audit

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// Limits of the queue between callers and the writer.
const (
	maxQueued     = 16 << 10 // events
	maxQueueBytes = 64 << 20 // bytes of payload
	maxBatch      = 1 << 20  // bytes that are written at once
)

// request is one event on its way into the file. The writer sets seq, prev and
// hash before it answers on done, which holds one answer.
type request struct {
	payload []byte
	kind    Kind
	effect  decision.Effect
	time    time.Time
	began   time.Time
	promise decision.Promise
	done    chan error

	state      atomic.Int32
	seq        uint64
	prev, hash Hash
	node, boot string
}

// The states of a request. Only one side wins: the writer takes it, or the
// caller that gave up withdraws it.
const (
	waiting int32 = iota
	taken
	withdrawn
)

func (r *request) take() bool     { return r.state.CompareAndSwap(waiting, taken) }
func (r *request) withdraw() bool { return r.state.CompareAndSwap(waiting, withdrawn) }

// queue hands requests to the writer in the order in which they came.
type queue struct {
	mu     sync.Mutex
	wake   sync.Cond
	items  []*request
	bytes  int
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.wake.L = &q.mu
	return q
}

func (q *queue) push(r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errClosed
	}
	if len(q.items) >= maxQueued || q.bytes+len(r.payload) > maxQueueBytes {
		return errQueue
	}
	q.items = append(q.items, r)
	q.bytes += len(r.payload)
	q.wake.Signal()
	return nil
}

// take waits for requests and moves them to batch: at least one, and no more
// than limit bytes in their frames otherwise. It returns an empty batch when
// the queue is closed and empty.
func (q *queue) take(batch []*request, limit int) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.wake.Wait()
	}
	n, size := 0, 0
	for n < len(q.items) {
		size += frameHeader + len(q.items[n].payload)
		if n > 0 && size > limit {
			break
		}
		q.bytes -= len(q.items[n].payload)
		n++
	}
	batch = append(batch[:0], q.items[:n]...)
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	return batch
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake.Signal()
}
