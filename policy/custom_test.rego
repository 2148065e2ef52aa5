package varvel_test

import data.varvel

no := {"rule": "ours.no", "text": "Not on a Sunday."}

ask := {"rule": "ours.ask", "text": "Ask first."}

asking(wanted) := object.union(ask, {"need": wanted})

decide(wanted, deny, hold) := d if {
	d := varvel.decision with input as wanted with data.varvel.custom as {"deny": deny, "hold": hold}
}

needing(wanted, hold) := decide(wanted, set(), hold).need

test_custom_deny_wins_over_allow if {
	d := decide(base, {no}, set())
	d.effect == "deny"
	d.reasons == [no]
}

test_custom_deny_wins_over_hold if {
	d := decide(irreversible, {no}, {ask})
	d.effect == "deny"
	d.reasons == [no]
}

test_custom_hold_wins_over_allow if {
	d := decide(base, set(), {ask})
	d.effect == "hold"
	d.reasons == [ask]
	d.need.kind == "four-eyes"
}

test_custom_hold_does_not_win_over_default_deny if {
	decide(object.union(base, {"action": ""}), set(), {ask}).effect == "deny"
}

test_custom_hold_joins_the_default_hold if {
	d := decide(irreversible, set(), {ask})
	{reason.rule | some reason in d.reasons} == {"http.irreversible", "ours.ask"}
}

test_silent_custom_rules_change_nothing if {
	decide(base, set(), set()).effect == "allow"
}

confirmed := object.union(irreversible, {"approval_kind": "confirm"})

test_custom_kind_can_only_be_stricter if {
	needing(irreversible, {asking({"kind": "confirm"})}).kind == "four-eyes"
	needing(confirmed, {asking({"kind": "confirm"})}).kind == "confirm"
	needing(confirmed, {asking({"kind": "four-eyes"})}).kind == "four-eyes"
	needing(confirmed, {asking({"quorum": 2})}).kind == "four-eyes"
}

other(wanted) := {"rule": "ours.other", "text": "Ask others.", "need": wanted}

test_custom_needs_add_up if {
	needing(irreversible, {
		asking({"groups": ["dba", "sre"], "quorum": 2, "expires_seconds": 600, "exclude": ["finance"]}),
		other({"groups": ["sre", "lead"], "quorum": 3, "expires_seconds": 300, "exclude": ["bob"]}),
	}) == {"kind": "four-eyes", "groups": ["sre"], "quorum": 3, "expires_seconds": 300, "exclude": ["bob", "finance"]}
}

test_custom_groups_of_one_rule_are_kept if {
	needing(irreversible, {ask, other({"groups": {"sre", "dba"}})}).groups == ["dba", "sre"]
}

test_groups_with_nothing_in_common_deny if {
	d := decide(irreversible, set(), {asking({"groups": ["dba"]}), other({"groups": ["sre"]})})
	d.effect == "deny"
	d.reasons[0].rule == "custom.no-common-group"
}

malformed := [
	"yes",
	true,
	{"rule": "ours.ask"},
	{"text": "Ask first."},
	{"rule": 1, "text": "Ask first."},
	{"rule": "ours.ask", "text": "Ask first.", "reason": "typing error"},
	asking("four-eyes"),
	asking({"quorom": 2}),
	asking({"quorum": "2"}),
	asking({"quorum": 0}),
	asking({"quorum": 1.5}),
	asking({"kind": "two-eyes"}),
	asking({"groups": "dba"}),
	asking({"groups": [1]}),
	asking({"groups": [""]}),
	asking({"exclude": "finance"}),
	asking({"expires_seconds": -1}),
	asking({"expires_seconds": "1h"}),
]

test_malformed_holds_deny if {
	every hold in malformed {
		d := decide(base, set(), {hold})
		d.effect == "deny"
		d.reasons[0].rule == "custom.malformed"
	}
}
