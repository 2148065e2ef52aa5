package audit

import "slices"

// Kind names what an event is about.
type Kind string

// The kinds of events.
const (
	KindRunStart   Kind = "run.start"  // a run began
	KindRunRevoke  Kind = "run.revoke" // a run lost all that it might reach
	KindRunAdopt   Kind = "run.adopt"  // a run goes on with another daemon
	KindRunEnd     Kind = "run.end"    // a run's cgroup is empty
	KindRuleSet    Kind = "rule-set"   // a run got a compiled allowlist
	KindFlow       Kind = "flow"       // what a rule allowed and a run reached, counted by destination
	KindConnect    Kind = "connect"    // a denial of the kernel, or a name that was judged
	KindDNS        Kind = "dns"        // a query that was answered or refused
	KindHTTP       Kind = "http"       // one request of a tool
	KindCredential Kind = "credential" // a token was asked for
	KindApproval   Kind = "approval"   // an approval changed its state, see Activity
	KindExec       Kind = "exec"       // a program was started
	KindExit       Kind = "exit"       // a process ended
	KindConfig     Kind = "config"     // configuration was loaded or refused
	KindPolicy     Kind = "policy"     // policy was loaded or refused
	KindHealth     Kind = "health"     // a part became degraded or well again
	KindLoss       Kind = "loss"       // events, or a piece of the log, were lost
	KindOverride   Kind = "override"   // a break-glass grant
)

// Kinds returns every kind, in the order of the documentation.
func Kinds() []Kind {
	return []Kind{
		KindRunStart, KindRunAdopt, KindRunRevoke, KindRunEnd, KindRuleSet, KindFlow, KindConnect, KindDNS, KindHTTP, KindCredential,
		KindApproval, KindExec, KindExit, KindConfig, KindPolicy, KindHealth, KindLoss, KindOverride,
	}
}

// Known reports whether k is one of the kinds of this version.
func (k Kind) Known() bool { return slices.Contains(Kinds(), k) }

// Activity says which step of its kind an event records.
type Activity string

// The activities of KindApproval. An event of another kind may carry a word of
// its own, for instance "reload"; it is not checked.
const (
	ActivityRequested      Activity = "requested"       // an action is held and waits for a person
	ActivityGranted        Activity = "granted"         // enough people approved
	ActivityDenied         Activity = "denied"          // somebody refused
	ActivityExpired        Activity = "expired"         // nobody answered in time
	ActivityVoted          Activity = "voted"           // somebody approved, and more have to
	ActivityCancelled      Activity = "cancelled"       // the run ended, or policy or tool changed
	ActivityVoided         Activity = "voided"          // the step told just before did not take effect
	ActivityClaimed        Activity = "claimed"         // the one execution is about to start
	ActivitySettled        Activity = "settled"         // the execution's outcome is known
	ActivityOutcomeUnknown Activity = "outcome-unknown" // it was claimed, and nothing says how it ended
)

// ApprovalActivities returns what KindApproval events may carry.
func ApprovalActivities() []Activity {
	return []Activity{
		ActivityRequested, ActivityGranted, ActivityDenied, ActivityExpired,
		ActivityVoted, ActivityCancelled, ActivityVoided, ActivityClaimed, ActivitySettled, ActivityOutcomeUnknown,
	}
}
