package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/varvel/varvel/internal/audit"
)

// ContentTypeEvents is one JSON object a line.
const ContentTypeEvents = "application/x-ndjson"

// TrailerError is the trailer with the sentence that ends a stream which failed.
const TrailerError = "Varvel-Error"

// TrailerEnd is the trailer of a stream that is complete. A stream that ends
// without it was cut off.
const TrailerEnd = "Varvel-End"

// maxLine bounds one event, in bytes of JSON.
const maxLine = 4 * audit.MaxEvent

// EventQuery selects events. Empty fields select all.
type EventQuery struct {
	audit.Filter
	Follow bool // go on with the events that come
}

// Values returns q as the parameters of /v1/audit.
func (q EventQuery) Values() url.Values {
	v := query("run", q.Run, "agent", q.Agent, "actor", q.Actor, "kind", string(q.Kind), "effect", string(q.Effect),
		"decision", q.DecisionID, "approval", q.ApprovalID, "since", stamp(q.Since), "until", stamp(q.Until))
	if q.After > 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	for name, on := range map[string]bool{"newest": q.Newest, "follow": q.Follow} {
		if on {
			v.Set(name, "true")
		}
	}
	return v
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Events returns the events that q selects, oldest first. The sequence ends
// after an error.
func (c *Client) Events(ctx context.Context, q EventQuery) iter.Seq2[audit.Event, error] {
	return func(yield func(audit.Event, error) bool) {
		resp, err := c.send(ctx, http.MethodGet, "/v1/audit", q.Values(), nil)
		if err != nil {
			yield(audit.Event{}, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			var e audit.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				yield(e, fmt.Errorf("the daemon sent an event that this program does not know: %w", err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		if err := ended(ctx, lines.Err(), resp.Trailer); err != nil {
			yield(audit.Event{}, err)
		}
	}
}

// ended says why a stream has ended; nil is as it should.
func ended(ctx context.Context, err error, trailer http.Header) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("read events: %w", err)
	case trailer.Get(TrailerError) != "":
		return errors.New(trailer.Get(TrailerError))
	case err != nil || trailer.Get(TrailerEnd) == "":
		return fmt.Errorf("%w any more: it ended the stream of events", ErrUnreachable)
	}
	return nil
}
