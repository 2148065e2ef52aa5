package egress

import "sync/atomic"

// counters of one run. They are exact; events are not, see Limits.
type counters struct {
	queries, answered, empty, denied, quiet, failed atomic.Uint64
	malformed, limited, unrecorded, observed        atomic.Uint64
}

// Stats is what the DNS server has counted for one run.
type Stats struct {
	Queries    uint64 // questions read, of any kind
	Answered   uint64 // with an address, or a name for an address
	Empty      uint64 // NOERROR without an answer: a type that Varvel does not serve
	Denied     uint64 // NXDOMAIN, including the quiet ones
	Quiet      uint64 // NXDOMAIN that is part of a search or a reverse look-up: never an event
	Failed     uint64 // SERVFAIL: quota used up, kernel map full, event not kept
	Malformed  uint64 // FORMERR, or too broken to answer
	Limited    uint64 // dropped because the run asked too fast
	Unrecorded uint64 // denied or failed without an event of its own, the quiet ones not among them
	Observed   uint64 // not listed, but resolved because the run is in observe mode
}

func (c *counters) snapshot() Stats {
	return Stats{
		Queries: c.queries.Load(), Answered: c.answered.Load(), Empty: c.empty.Load(),
		Denied: c.denied.Load(), Quiet: c.quiet.Load(), Failed: c.failed.Load(),
		Malformed: c.malformed.Load(), Limited: c.limited.Load(),
		Unrecorded: c.unrecorded.Load(), Observed: c.observed.Load(),
	}
}
