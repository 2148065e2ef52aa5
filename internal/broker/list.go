package broker

import (
	"slices"
	"sort"
	"time"
)

// Listed is a token in use, without the token.
type Listed struct {
	Run, Tool, Audience string
	Expires             time.Time
}

// Restore makes tokens known that an earlier daemon gave to a run that goes on.
// They are in use until they expire, and are listed; the tokens themselves are not
// known here, so the run is given new ones when it asks.
func (b *Broker) Restore(tokens []Listed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opts.Now()
	for _, l := range tokens {
		if l.Expires.After(now) {
			b.earlier = append(b.earlier, l)
		}
	}
}

// List returns the tokens in use that have not expired, by run and tool: those
// that are cached, and those that were restored.
func (b *Broker) List() []Listed {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opts.Now()
	var out []Listed
	for k, e := range b.entries {
		if e.lease.Expires.After(now) {
			out = append(out, Listed{Run: k.run, Tool: k.tool, Audience: k.audience, Expires: e.lease.Expires})
		}
	}
	b.earlier = slices.DeleteFunc(b.earlier, func(l Listed) bool { return !l.Expires.After(now) })
	out = append(out, b.earlier...)
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].Run != out[j].Run {
			return out[i].Run < out[j].Run
		}
		return out[i].Tool < out[j].Tool
	})
	return out
}
