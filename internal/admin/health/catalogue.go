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
	KernelDetached    Code = "kernel-detached"
	KernelPins        Code = "kernel-pins"
	KernelMapFull     Code = "kernel-map-full"
	RuleSetFailed     Code = "rule-set-failed"
	DNSDown           Code = "dns-down"
	DNSUpstream       Code = "dns-upstream"
	GatewayDown       Code = "gateway-down"
	EndpointDown      Code = "endpoint-down"
	IssuerKey         Code = "issuer-key"
	IssuerDown        Code = "issuer-down"
	ApprovalJournal   Code = "approval-journal"
	OutcomeUnknown    Code = "outcome-unknown"
	LaunchDown        Code = "launch-down"
	MetricsDown       Code = "metrics-down"
	KeeperDown        Code = "keeper-down"
	ConfinementPartly Code = "confinement-partly"
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
		{KernelDetached, Failing, "The kernel programs of a run are not in place, so the run is not allowed to go on.", "See the daemon's log, then start the run again."},
		{KernelPins, Failing, "What keeps the kernel programs in force without the daemon is gone from bpffs; the daemon tries to make it again.", "See the detail: mount bpffs again, and look for who removed it."},
		{KernelMapFull, Failing, "A kernel map is full, so new destinations are refused.", "Reduce the number of rules or of runs on this node."},
		{RuleSetFailed, Failing, "A run could not get the rule set of the current configuration, so it keeps the one before.", "See the daemon's log for the rule, then run `varvel reload`."},
		{DNSDown, Failing, "The DNS proxy does not listen, so runs resolve no names.", "See the daemon's log, then restart varveld."},
		{DNSUpstream, Degraded, "No upstream name server answers, so allowed names cannot be dialled.", "Check dns.upstreams in varvel.yaml and the network of this node."},
		{GatewayDown, Failing, "The gateway does not listen, so runs reach no names and no tools.", "See the daemon's log, then restart varveld."},
		{EndpointDown, Failing, "The endpoint does not listen, so runs get no tokens and no explanations.", "See the daemon's log, then restart varveld."},
		{IssuerKey, Failing, "The issuer has no usable signing key, so no tokens are minted.", "Check the files in state_dir/issuer, then restart varveld."},
		{IssuerDown, Failing, "The issuer's discovery and keys are not served, so relying parties cannot check new tokens.", "Check issuer.listen in varvel.yaml, then restart varveld."},
		{ApprovalJournal, Failing, "Approvals cannot be kept, so held actions stay held.", "Look at the disk under state_dir, then restart varveld."},
		{OutcomeUnknown, Degraded, "An approved action was started, and how it ended is not known. It is not started again.", "See `varvel approvals` and check the tool itself."},
		{LaunchDown, Failing, "The launcher does not listen, so `varvel run` cannot start anything.", "See the daemon's log, then restart varveld."},
		{MetricsDown, Degraded, "The metrics listener could not be opened.", "Check metrics.listen in varvel.yaml, then restart varveld."},
		{KeeperDown, Degraded, "The keeper has ended and is being started again. Until it is there, runs would not outlive the daemon.", "See the daemon's log for why it cannot be started."},
		{ConfinementPartly, Degraded, "This kernel lacks a feature that confines runs.", "See `varvel status` for which one; a newer kernel has it."},
	}
}
