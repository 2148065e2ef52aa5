package varvel_test

import data.varvel

base := {
	"kind": "http",
	"run": {"id": "run_01", "agent": "billing-bot", "owner": "finance", "node": "", "boot": "", "mode": "enforce"},
	"actor": {"account": "spiffe://example.org/agent/billing-bot", "started_by": {"uid": 1000, "name": "ann"}},
	"tool": "stripe",
	"action": "charges.read",
	"risk": "read",
	"target": {"name": "api.stripe.com", "address": "", "port": 443, "protocol": "tcp"},
	"http": {"method": "GET", "authority": "api.stripe.com", "path": "/v1/charges", "query": "", "body_size": 0},
	"threshold": 1,
	"approval_kind": "",
	"time": "2026-03-01T12:00:00Z",
}

write := object.union(base, {"action": "charges.update", "risk": "write"})

irreversible := object.union(base, {"action": "refunds.create", "risk": "irreversible"})

# answers reports whether the input has this effect, for this one reason.
answers(wanted, effect, rule) if {
	d := varvel.decision with input as wanted
	d.effect == effect
	[reason.rule | some reason in d.reasons] == [rule]
}

test_read_is_allowed if answers(base, "allow", "http.read")

test_read_needs_no_person if {
	d := varvel.decision with input as base
	not d.need
	d.obligations == []
}

test_write_is_held if answers(write, "hold", "http.write.unsure")

test_write_without_threshold_is_allowed if {
	answers(object.union(write, {"threshold": 0}), "allow", "http.write.confident")
}

test_trusted_confidence_reaches_the_threshold if {
	every source in ["history", "operator"] {
		sure := object.union(write, {"threshold": 0.8, "confidence": {"value": 0.8, "source": source}})
		answers(sure, "allow", "http.write.confident")
	}
}

test_trusted_confidence_below_the_threshold_holds if {
	every source in ["history", "operator"] {
		unsure := object.union(write, {"threshold": 0.8, "confidence": {"value": 0.79, "source": source}})
		answers(unsure, "hold", "http.write.unsure")
	}
}

test_what_the_agent_says_of_itself_does_not_count if {
	sure := object.union(write, {"threshold": 0.01, "confidence": {"value": 1, "source": "agent"}})
	answers(sure, "hold", "http.write.unsure")
}

test_irreversible_is_held if answers(irreversible, "hold", "http.irreversible")

test_irreversible_is_held_whatever_the_confidence if {
	sure := object.union(irreversible, {"threshold": 0, "confidence": {"value": 1, "source": "operator"}})
	answers(sure, "hold", "http.irreversible")
}

test_hold_needs_somebody_else if {
	d := varvel.decision with input as irreversible
	d.need == {"kind": "four-eyes", "groups": [], "quorum": 1, "expires_seconds": 0, "exclude": []}
}

test_hold_can_be_confirmed_if_the_action_says_so if {
	d := varvel.decision with input as object.union(irreversible, {"approval_kind": "confirm"})
	d.need.kind == "confirm"
}

test_unknown_risk_is_denied if {
	every risk in ["", "harmless", "READ"] {
		answers(object.union(base, {"risk": risk}), "deny", "http.no-risk")
	}
}

test_no_action_is_denied if {
	answers(object.union(base, {"action": "", "risk": ""}), "deny", "http.no-action")
}

test_no_tool_is_denied if {
	answers(object.union(base, {"tool": "", "action": "", "risk": ""}), "deny", "http.no-tool")
}

test_token_of_a_tool_is_allowed if {
	answers(object.union(base, {"kind": "credential", "action": ""}), "allow", "credential.tool")
}

test_token_of_no_tool_is_denied if {
	answers(object.union(base, {"kind": "credential", "tool": ""}), "deny", "credential.no-tool")
}

test_listed_destination_is_allowed if {
	answers(object.union(base, {"kind": "connect", "tool": "", "action": "connect"}), "allow", "connect.listed")
}

test_listed_destination_is_for_reading if {
	every risk in ["", "write", "irreversible"] {
		answers(object.union(base, {"kind": "connect", "risk": risk}), "deny", "connect.risk")
	}
}

test_unknown_kind_is_denied if {
	answers(object.union(base, {"kind": "telepathy"}), "deny", "kind.unknown")
}

test_empty_input_is_denied if {
	d := varvel.decision with input as {}
	d.effect == "deny"
}

test_kind_without_a_field_is_denied if {
	every field in ["tool", "action", "risk"] {
		d := varvel.decision with input as object.remove(base, {field})
		d.effect == "deny"
	}
}

test_every_reason_is_a_sentence if {
	every wanted in [base, write, irreversible, object.union(base, {"risk": ""}), object.union(base, {"action": ""}), {}] {
		d := varvel.decision with input as wanted
		every reason in d.reasons {
			regex.match(`^[A-Z].*\.$`, reason.text)
		}
	}
}
