package varvel

# Requests to a tool: read is allowed, write needs trusted confidence or a
# person, irreversible needs a person, and what is unknown is denied.

grants contains {
	"rule": "http.read",
	"text": sprintf("The action %s of the tool %s only reads.", [input.action, input.tool]),
} if {
	input.kind == "http"
	input.risk == "read"
	known_action
}

grants contains {
	"rule": "http.write.confident",
	"text": sprintf("The action %s of the tool %s is reversible, and the confidence in it reaches its threshold.", [input.action, input.tool]),
} if {
	input.kind == "http"
	input.risk == "write"
	known_action
	confident
}

holds contains {
	"rule": "http.write.unsure",
	"text": sprintf("The action %s of the tool %s changes something, and no trusted confidence reaches its threshold of %v, so a person must approve it.", [input.action, input.tool, input.threshold]),
} if {
	input.kind == "http"
	input.risk == "write"
	known_action
	not confident
}

holds contains {
	"rule": "http.irreversible",
	"text": sprintf("The action %s of the tool %s cannot be taken back, so a person must approve it.", [input.action, input.tool]),
} if {
	input.kind == "http"
	input.risk == "irreversible"
	known_action
}

denials contains {
	"rule": "http.no-tool",
	"text": "The request belongs to no tool of this agent. Add the tool to the agent's list, or define one for this host and port.",
} if {
	input.kind == "http"
	input.tool == ""
}

denials contains {
	"rule": "http.no-action",
	"text": sprintf("No action of the tool %s matches this method and path. Add an action for them to the tool's definition.", [input.tool]),
} if {
	input.kind == "http"
	input.tool != ""
	input.action == ""
}

denials contains {
	"rule": "http.no-risk",
	"text": sprintf("The action %s of the tool %s has no risk class. Set its risk to read, write or irreversible.", [input.action, input.tool]),
} if {
	input.kind == "http"
	known_action
	not input.risk in {"read", "write", "irreversible"}
}

known_action if {
	input.tool != ""
	input.action != ""
}

# What an agent says about itself is no reason to trust it: only confidence
# from the history of approvals, or from the operator, reaches a threshold.
confident if input.threshold == 0

confident if {
	input.confidence.source in {"history", "operator"}
	input.confidence.value >= input.threshold
}
