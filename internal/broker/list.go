package broker

import (
	"sort"
	"time"
)

// Listed is a token in use, without the token.
type Listed struct {
	Run, Tool, Audience string
	Expires             time.Time
}

// List returns the tokens that are cached and have not expired, by run and tool.
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
	sort.Slice(out, func(i, j int) bool {
		if out[i].Run != out[j].Run {
			return out[i].Run < out[j].Run
		}
		return out[i].Tool < out[j].Tool
	})
	return out
}
