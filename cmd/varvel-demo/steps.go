package main

import (
	"context"
	"time"
)

// step is one sentence, and how it is shown to be true.
type step struct {
	sentence string
	show     func(context.Context, *outcome) error
}

// steps is the story that the demo tells.
func (d *demo) steps() []step {
	return []step{
		{"An allowed query reaches Prometheus.", d.allowedQuery},
		{"An allowed name is reached over TLS that nobody opens on the way, by curl and by Node.js.", d.allowedName},
		{"git clones with a token that the program never had.", d.clone},
		{"Another name on the same address is refused: by name, by address, and by SNI.", d.otherName},
		{"An unlisted host is refused over TCP and UDP, IPv4, IPv6 and mapped.", d.unlistedHost},
		{"An unlisted name is never asked for: the question does not leave the node.", d.unlistedName},
		{"The secrets in the caller's environment are gone.", d.secrets},
		{"A deletion waits: nothing is sent, and who asked cannot approve.", d.waits},
		{"Somebody else approves it, and it happens exactly once.", d.approved},
		{"The audit log tells the story, and it is whole.", d.story},
		{"One changed byte of a copy of the log is found and named.", d.changed},
	}
}

// stepLimit bounds one step, so that a demo that hangs ends.
const stepLimit = 60 * time.Second

// walk shows the steps one after the other. A step that fails does not keep the
// others from being shown; only an interruption does.
func (d *demo) walk(ctx context.Context, r *report) error {
	for _, s := range d.steps() {
		o := new(outcome)
		limited, cancel := context.WithTimeout(ctx, stepLimit)
		err := s.show(limited, o)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.add(s.sentence, o, err)
	}
	return nil
}
