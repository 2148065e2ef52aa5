package varvel

# What a held action needs: the action's own kind of approval, made stricter by
# every custom hold that speaks.
need := {
	"kind": need_kind,
	"groups": need_groups,
	"quorum": need_quorum,
	"expires_seconds": need_expires,
	"exclude": need_exclude,
}

# confirm only if the operator configured it for the action, and nothing else
# asks for more: one requester cannot be two people.
default need_kind := "four-eyes"

need_kind := "confirm" if {
	input.approval_kind == "confirm"
	every hold in custom_holds {
		asked(hold, "kind", "confirm") == "confirm"
	}
	need_quorum == 1
}

# A group must satisfy every hold that names groups.
need_groups := [group | some group in intersection(group_sets)] if count(group_sets) > 0

need_groups := [] if count(group_sets) == 0

group_sets contains groups if {
	some hold in custom_holds
	groups := {group | some group in asked(hold, "groups", [])}
	count(groups) > 0
}

denials contains {
	"rule": "custom.no-common-group",
	"text": "The rules that hold this action name no group in common, so nobody could approve it.",
} if {
	count(group_sets) > 0
	count(intersection(group_sets)) == 0
}

need_quorum := max({asked(hold, "quorum", 1) | some hold in custom_holds} | {1})

# 0 is the node's own setting, approval.expires.
default need_expires := 0

need_expires := min(asked_expires) if count(asked_expires) > 0

asked_expires contains seconds if {
	some hold in custom_holds
	seconds := asked(hold, "expires_seconds", 0)
	seconds > 0
}

need_exclude := sort({name | some hold in custom_holds; some name in asked(hold, "exclude", [])})

# asked returns a field of what a hold needs.
asked(hold, field, otherwise) := object.get(hold, ["need", field], otherwise)
