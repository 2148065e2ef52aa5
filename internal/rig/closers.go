package rig

import "errors"

// Closers undo what was done. The zero value is ready.
type Closers struct{ todo []func() error }

// OnClose adds what Close is to do, before everything that was added earlier.
func (c *Closers) OnClose(f func() error) { c.todo = append(c.todo, f) }

// Close undoes everything, the last first.
func (c *Closers) Close() error {
	var errs []error
	for len(c.todo) > 0 {
		last := len(c.todo) - 1
		errs = append(errs, c.todo[last]())
		c.todo = c.todo[:last]
	}
	return errors.Join(errs...)
}
