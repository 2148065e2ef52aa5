package node

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
)

// task is a part of the daemon that works until its context ends.
type task struct {
	name string
	run  func(ctx context.Context) error
}

// runTasks runs all tasks until one fails or ctx ends, then waits for the others.
// A task that returns nil before ctx ends has failed too: nothing may quietly
// stop. A panic becomes an error with its stack.
func runTasks(ctx context.Context, tasks []task) error {
	g, inner := errgroup.WithContext(ctx)
	for _, t := range tasks {
		g.Go(func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("%s: panic: %v\n%s", t.name, p, debug.Stack())
				}
			}()
			err = t.run(inner)
			switch {
			case inner.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
				return nil
			case err == nil:
				return fmt.Errorf("%s ended by itself", t.name)
			}
			return fmt.Errorf("%s: %w", t.name, err)
		})
	}
	return g.Wait()
}
