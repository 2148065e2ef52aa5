package egress

import (
	"context"
	"net/netip"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/workload"
)

// Events keeps what egress has to tell.
type Events interface {
	// RuleSet returns nil only after the event survives power loss. Until then
	// the rule set is not used.
	RuleSet(ctx context.Context, e RuleSetEvent) error
	// Name keeps the refusal or failure of a question. It is called at most as
	// often as Limits allow; what was left out is in NameEvent.Unrecorded.
	Name(ctx context.Context, e NameEvent) error
}

// RuleSetEvent says which compiled allowlist a run is about to get.
type RuleSetEvent struct {
	Run      *workload.Run
	ID       string   // of the rule set
	Previous string   // the rule set so far, or "" at the run's start
	Entries  int      // prefixes in the rule set
	Names    int      // exact names and patterns
	Direct   []string // names and patterns whose real addresses are handed out
	Refused  []Refusal

	Listen        string // id of the rule set of who may come in
	ListenEntries int    // prefixes in it
	ListenRefused []ListenRefusal
}

// NameEvent is one question about a name that was refused or could not be
// answered, or about a direct name that leads to addresses that are new for it. Name is what the workload sent, in presentation format (RFC 4343,
// section 2.1), at most 1004 bytes: data, never to be trusted.
type NameEvent struct {
	Run    *workload.Run
	Name   string
	Type   string // A, AAAA, TYPE65280, …
	Code   string // NXDOMAIN, SERVFAIL, or NOERROR for a run in observe mode
	Effect decision.Effect
	Would  decision.Effect // EffectDeny where observe mode let it happen
	Reason decision.Reason
	// Addresses are what a direct name has opened.
	Addresses []netip.Addr
	// Unrecorded is how many such questions of the run had no event of their
	// own since the last event.
	Unrecorded uint64
}
