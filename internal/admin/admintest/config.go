package admintest

// Files is a small configuration that is valid.
func Files() map[string]string {
	return map[string]string{
		"varvel.yaml": `trust_domain: example.org
`,
		"agents.d/billing-bot.yaml": `agent: billing-bot
owner: finance
mode: enforce
tools: [stripe]
egress:
  - { name: "*.pkg.example.org", ports: [443] }
  - { cidr: 192.0.2.0/24, ports: [5432], why: "ledger replica" }
  - { cidr: "2001:db8::/32", ports: [443, "8000-8100"], protocol: any }
`,
		"agents.d/plain.yaml": `agent: plain
owner: nobody
mode: observe
`,
		"tools.d/stripe.yaml": `tool: stripe
hosts: [api.stripe.com:443]
client: http
upstream: tls
credential: { issuer: { audience: stripe }, attach: { header: Authorization, value: "Bearer {{ token }}" } }
actions:
  - { name: charges.read, http: { methods: [GET], path: /v1/charges/** }, risk: read }
  - { name: refunds.create, http: { methods: [POST], path: /v1/refunds }, risk: irreversible }
`,
		"tools.d/docs.yaml": `tool: docs
hosts: [docs.example.org:443]
client: pass
`,
	}
}
