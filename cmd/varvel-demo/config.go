package main

import (
	"fmt"
	"os"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// inBand is how long a held request waits for a person before it is answered.
const inBand = "8s"

// writeConfig writes what an operator would: the node, one agent, two tools.
// The user who starts the agent is an approver, so that nothing but the need for
// other eyes keeps that user from approving what the agent asked for.
func writeConfig(p world.Plan, cgroup string) error {
	node := fmt.Sprintf(`trust_domain: %[1]s
state_dir: %[2]s/state
run_dir: %[2]s/run
bpffs: %[2]s/bpf
cgroup: %[7]s
issuer: { url: %[3]s, listen: "%[4]s" }
dns: { upstreams: ["%[5]s"] }
approval: { in_band: %[6]s, expires: 10m }
admin: { group: nogroup }
roles: { viewer: { users: [nobody] }, approver: { users: [nobody] } }
`, world.Domain, p.Dir, world.IssuerURL, p.IssuerListen(), p.Names.V4, inBand, cgroup)

	agent := fmt.Sprintf(`agent: demo
owner: platform
mode: enforce
tools: [prometheus, git]
egress:
  - { name: %s, ports: [443], why: "the one page it may read" }
environment: { pass: [PATH, LANG, HOME, NODE_EXTRA_CA_CERTS, "GIT_*"] }
launch: { users: [nobody] }
`, world.NameAllowed)

	metrics := fmt.Sprintf(`tool: prometheus
hosts: [%s:%d]
client: http
upstream: plain
within: [192.0.2.0/24]
actions:
  - { name: query,  http: { methods: [GET, POST], path: /api/v1/query }, risk: read }
  - { name: delete, http: { methods: [POST], path: %s }, risk: irreversible, approval: four-eyes }
`, world.NamePrometheus, world.PortPrometheus, deletePath)

	git := fmt.Sprintf(`tool: git
hosts: [%s:443]
client: http
upstream: tls
ca_file: %s
credential: { issuer: { audience: "%s", lifetime: 2m }, attach: { header: Authorization, value: "Bearer {{ token }}" } }
actions:
  - { name: refs,  http: { methods: [GET], path: /*/info/refs }, risk: read }
  - { name: fetch, http: { methods: [POST], path: /*/git-upload-pack }, risk: read }
`, world.NameGit, p.File("ca.pem"), world.Audience)

	for name, text := range map[string]string{
		"varvel.yaml": node, "agents.d/demo.yaml": agent, "tools.d/prometheus.yaml": metrics, "tools.d/git.yaml": git,
	} {
		if err := writeUnder(p.File("config"), name, text); err != nil {
			return err
		}
	}
	return nil
}

// writeUnder writes a file below dir, and the folder that it is in.
func writeUnder(dir, name, text string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, folder := range []string{"agents.d", "tools.d"} {
		if err := root.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	return root.WriteFile(name, []byte(text), 0o644)
}
