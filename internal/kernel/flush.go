package kernel

import (
	"context"
	"sync"
)

// flushes lets others wait until the reader of events has caught up.
type flushes struct {
	mu      sync.Mutex
	start   func() error // has the reader read to the end and say so; nil: nobody reads
	waiting []chan struct{}
}

func (f *flushes) open(start func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.start = start
}

// close lets go of those who wait, and of those to come.
func (f *flushes) close() {
	f.mu.Lock()
	f.start = nil
	f.mu.Unlock()
	f.done()
}

// done tells those who wait that the reader has found the ring empty.
func (f *flushes) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.waiting {
		close(c)
	}
	f.waiting = nil
}

func (f *flushes) wait(ctx context.Context) error {
	f.mu.Lock()
	if f.start == nil {
		f.mu.Unlock()
		return nil
	}
	c := make(chan struct{})
	f.waiting = append(f.waiting, c)
	err := f.start()
	f.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
