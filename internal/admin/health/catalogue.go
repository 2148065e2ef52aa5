package health

// Code names one thing that can be wrong. It is a metric label and stable.
type Code string

// Severity says what a finding means for the node.
type Severity string

// The severities. A failing check turns /healthz red; a degraded one is shown.
const (
	Degraded Severity = "degraded" // enforcement is complete, something else is not
	Failing  Severity = "failing"  // somebody has to act
)

// The codes of this version.
const (
	ConfigInvalid     Code = "config-invalid"
	PolicyInvalid     Code = "policy-invalid"
	RoleUnknown       Code = "role-unknown"
	AuditBroken       Code = "audit-broken"
	AuditLow          Code = "audit-low"
	EventsLost        Code = "events-lost"
	KernelPins        Code = "kernel-pins"
	KernelMapFull     Code = "kernel-map-full"
	RuleSetFailed     Code = "rule-set-failed"
	DNSUpstream       Code = "dns-upstream"
	ApprovalJournal   Code = "approval-journal"
	OutcomeUnknown    Code = "outcome-unknown"
	KeeperDown        Code = "keeper-down"
	ConfinementPartly Code = "confinement-partly"
	DoorLost          Code = "door-lost"
	LoopbackMissing   Code = "loopback-missing"
)

// Entry is what the catalogue says about a code.
type Entry struct {
	Code     Code
	Severity Severity
	Sentence string // what is wrong and what that means
	Remedy   string // what to do
}

// Catalogue returns every code with its meaning, in the order of the
// documentation.
func Catalogue() []Entry {
	return []Entry{
		{ConfigInvalid, Failing, "The configuration on disk is not valid, so the one before it is still in force.", "Run `varvel check`, correct what it names, then run `varvel reload`."},
		{PolicyInvalid, Failing, "The policy on disk does not compile, so the one before it is still in force.", "Run `varvel check`, correct what it names, then run `varvel reload`."},
		{RoleUnknown, Degraded, "A role names a user or group that this node does not know, so it grants that one nothing.", "Correct the name under roles in varvel.yaml, or create the user or group."},
		{AuditBroken, Failing, "The audit log cannot be written, so actions are refused.", "Look at the disk under state_dir, then restart varveld."},
		{AuditLow, Failing, "The audit log has little space left, so actions that change something are refused first.", "Free space on the disk under state_dir, or move old segments away."},
		{EventsLost, Degraded, "Details of events were lost; the numbers of refusals are still exact.", "See `varvel audit --kind loss` for which run and how many."},
		{KernelPins, Failing, "What keeps the kernel programs in force without the daemon is gone from bpffs; the daemon tries to make it again.", "See the detail: mount bpffs again, and look for who removed it."},
		{KernelMapFull, Failing, "A kernel map is full, so new destinations are refused.", "Reduce the number of rules or of runs on this node."},
		{RuleSetFailed, Failing, "A run could not get the rule set of the current configuration, so it keeps the one before.", "See the daemon's log for the rule, then run `varvel reload`."},
		{DNSUpstream, Degraded, "No upstream name server answers, so allowed names cannot be dialled.", "Check dns.upstreams in varvel.yaml and the network of this node."},
		{ApprovalJournal, Failing, "Approvals cannot be kept, so held actions stay held.", "Look at the disk under state_dir, then restart varveld."},
		{OutcomeUnknown, Degraded, "An approved action was started, and how it ended is not known. It is not started again.", "See `varvel approvals --state outcome-unknown`, and look at the tool itself whether it happened."},
		{KeeperDown, Degraded, "The keeper has ended and is being started again. Until it is there, runs would not outlive the daemon.", "See the daemon's log for why it cannot be started."},
		{DoorLost, Failing, "A listener in another network namespace has failed: names and the endpoint are refused to the runs there.", "See the daemon's log, end those runs, and start them again."},
		{LoopbackMissing, Degraded, "The host lacks a loopback address, so names and the endpoint cannot be reached over its family; such connections are refused.", "Give the device lo the addresses 127.0.0.1/8 and ::1/128 and restart varveld, or have programs use the other family."},
		{ConfinementPartly, Degraded, "This kernel lacks a feature that confines runs.", "See `varvel status` for which one; a newer kernel has it."},
	}
}
