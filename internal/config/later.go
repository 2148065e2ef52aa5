package config

// later returns what to do instead of a key that exists in the plan of Varvel
// but not in this version, or "" if there is no such key.
func later(kind, key string) string {
	switch kind + "." + key {
	case "node.vault", "credential.vault":
		return "use the embedded issuer: `credential: { issuer: { audience: … } }`"
	case "node.oidc":
		return "people are local users and groups: see `roles`"
	case "node.console":
		return "use the `varvel` command on the node"
	case "audit.sinks":
		return "read events with `varvel audit --output json`"
	case "audit.retention":
		return "bound the log with `max_size`"
	case "agent.match":
		return "start the agent with `varvel run --agent NAME -- COMMAND`"
	case "agent.delegation":
		return "a run acts as its machine account; who started it is in the events"
	case "agent.exec":
		return "restrict files with `files`, and what a program reaches with `egress` and `tools`"
	case "action.mcp", "action.sql":
		return "describe the action as `http: { methods: […], path: … }`"
	}
	return ""
}
