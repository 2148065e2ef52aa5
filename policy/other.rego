package varvel

# Tokens, and connections that the agent's lists name.

grants contains {
	"rule": "credential.tool",
	"text": sprintf("The tool %s belongs to this run, so it may have a token for it.", [input.tool]),
} if {
	input.kind == "credential"
	input.tool != ""
}

denials contains {
	"rule": "credential.no-tool",
	"text": "The token is asked for no tool. Ask for the token of one tool that the agent has.",
} if {
	input.kind == "credential"
	input.tool == ""
}

grants contains {
	"rule": "connect.listed",
	"text": "The destination is in the agent's list.",
} if {
	input.kind == "connect"
	input.risk == "read"
}

denials contains {
	"rule": "connect.risk",
	"text": "A connection carries bytes that nobody looks at, so it can only be listed with the risk read. Define a tool with actions for this destination.",
} if {
	input.kind == "connect"
	input.risk != "read"
}

denials contains {
	"rule": "kind.unknown",
	"text": "This policy does not know this kind of action.",
} if {
	not input.kind in {"connect", "http", "credential"}
}
