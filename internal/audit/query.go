package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
)

// Query returns the events in dir that f selects, oldest first. It reads the
// files as they are at that moment, and needs no open log. The sequence ends
// after an error; a *Problem says where the log is damaged.
func Query(ctx context.Context, dir string, f Filter) iter.Seq2[Event, error] {
	if f.Newest && f.Limit > 0 {
		return newest(ctx, dir, f)
	}
	return oldest(ctx, &cursor{dir: dir, filter: f})
}

// oldest returns what c has from where it is.
func oldest(ctx context.Context, c *cursor) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		defer c.close()
		for n := 0; c.filter.Limit == 0 || n < c.filter.Limit; n++ {
			e, err := c.event(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// newest walks the segments backwards until it has enough.
func newest(ctx context.Context, dir string, f Filter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		found, err := collectNewest(ctx, dir, f)
		for _, e := range found {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Event{}, err)
		}
	}
}

func collectNewest(ctx context.Context, dir string, f Filter) ([]Event, error) {
	firsts, err := segments(dir)
	if err != nil {
		return nil, err
	}
	var found []Event
	before := uint64(0)
	for _, first := range slices.Backward(firsts) {
		part := f
		part.Limit, part.After = 0, max(f.After, first-1)
		some, err := last(oldest(ctx, &cursor{dir: dir, filter: part, before: before}), f.Limit-len(found))
		if found = append(some, found...); err != nil || len(found) >= f.Limit {
			return found, err
		}
		before = first
	}
	return found, nil
}

// last returns the last n events of the sequence.
func last(events iter.Seq2[Event, error], n int) ([]Event, error) {
	var ring []Event
	for e, err := range events {
		if err != nil {
			return ring, err
		}
		if len(ring) == n {
			ring = ring[1:]
		}
		ring = append(ring, e)
	}
	return ring, nil
}

// mayMatch reports whether the payload can be of an event that the filter
// selects, without decoding it. The encoding is canonical, so a value that the
// filter wants is there literally.
func (f Filter) mayMatch(payload []byte) bool {
	return has(payload, "run", f.Run) && has(payload, "agent", f.Agent) && has(payload, "actor", f.Actor) &&
		has(payload, "kind", string(f.Kind)) && has(payload, "effect", string(f.Effect)) &&
		has(payload, "decision_id", f.DecisionID) && has(payload, "approval_id", f.ApprovalID)
}

func has(payload []byte, key, value string) bool {
	if value == "" || strings.ContainsFunc(value, needsCare) {
		return true
	}
	quoted, err := json.Marshal(value)
	return err != nil || bytes.Contains(payload, append([]byte(`"`+key+`":`), quoted...))
}

// needsCare reports whether r may be written in more than one way in JSON.
func needsCare(r rune) bool {
	return r < ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r)
}

// Query returns the events of the log that f selects, oldest first.
func (l *Log) Query(ctx context.Context, f Filter) iter.Seq2[Event, error] {
	return Query(ctx, l.dir, f)
}

// Follow returns the events that f selects, those that are there and then
// those that come, until the context ends or the log is closed. To see new
// ones only, set After to Head. A slow reader never delays the log.
func (l *Log) Follow(ctx context.Context, f Filter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		c := &cursor{dir: l.dir, filter: f}
		defer c.close()
		closed := false
		for n := 0; f.Limit == 0 || n < f.Limit; {
			more := l.news.next()
			e, err := c.event(ctx)
			switch {
			case errors.Is(err, io.EOF) && closed:
				return
			case errors.Is(err, io.EOF):
				closed = l.await(ctx, more)
			case ctx.Err() != nil:
				return
			default:
				n++
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// await waits for more, and reports whether the log is closed.
func (l *Log) await(ctx context.Context, more <-chan struct{}) bool {
	select {
	case <-more:
	case <-ctx.Done():
	case <-l.closed:
		return true
	}
	return false
}
