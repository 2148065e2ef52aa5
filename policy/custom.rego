package varvel

# What operators add in package varvel.custom:
#
#   deny contains {"rule": "my.rule", "text": "A sentence."} if ...
#   hold contains {"rule": "my.rule", "text": "A sentence.", "need": {...}} if ...
#
# need may be left out, and so may each of its fields; it can only add to what
# the action needs anyway. An element that is not of this form is denied: a rule
# with a typing error must not be a rule that does nothing.

denials contains reason if {
	some reason in data.varvel.custom.deny
}

holds contains reason if {
	some hold in custom_holds
	reason := object.filter(hold, ["rule", "text"])
}

denials contains {
	"rule": "custom.malformed",
	"text": "A hold rule in package varvel.custom made something other than {rule, text, need}. Correct the rule; until then the action is denied.",
} if {
	some hold in data.varvel.custom.hold
	not well_formed(hold)
}

custom_holds contains hold if {
	some hold in data.varvel.custom.hold
	well_formed(hold)
}

well_formed(hold) if {
	is_object(hold)
	object.keys(hold) - {"rule", "text", "need"} == set()
	is_string(object.get(hold, "rule", null))
	is_string(object.get(hold, "text", null))
	wanted := object.get(hold, "need", {})
	is_object(wanted)
	object.keys(wanted) - {"kind", "groups", "quorum", "expires_seconds", "exclude"} == set()
	object.get(wanted, "kind", "confirm") in {"confirm", "four-eyes"}
	names(object.get(wanted, "groups", []))
	names(object.get(wanted, "exclude", []))
	positive(object.get(wanted, "quorum", 1))
	positive(object.get(wanted, "expires_seconds", 1))
}

names(list) if {
	is_list(list)
	every name in list {
		is_string(name)
		name != ""
	}
}

is_list(x) if is_array(x)

is_list(x) if is_set(x)

positive(n) if {
	is_number(n)
	n >= 1
	n == floor(n)
}
