# Package varvel is the default policy. Its one answer is the object `decision`.
#
# A deny wins over a hold, and a hold wins over an allow. What no rule speaks
# for is denied. Operators add rules in package varvel.custom (see custom.rego);
# they can make the policy stricter, never looser.
package varvel

decision := {
	"effect": "deny",
	"reasons": ordered(denials),
	"obligations": [],
} if {
	denials != set()
} else := {
	"effect": "hold",
	"reasons": ordered(holds),
	"obligations": [],
	"need": need,
} if {
	holds != set()
} else := {
	"effect": "allow",
	"reasons": ordered(grants),
	"obligations": [],
} if {
	grants != set()
} else := {
	"effect": "deny",
	"reasons": [{
		"rule": "default.deny",
		"text": "No rule allows this action, so it is denied.",
	}],
	"obligations": [],
}

# ordered makes a list of a set, in an order that is always the same.
ordered(reasons) := [reason | some reason in reasons]
