package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/audit"
)

const (
	toolAgent = "agent: bot\nowner: platform\ntools: [svc]\nlaunch: { users: [nobody, bin] }\n"
	toolSvc   = `tool: svc
hosts: ["tool.e2e.test:8080"]
client: http
upstream: plain
within: [192.0.2.0/24, "2001:db8::/32"]
actions:
  - { name: look, http: { methods: [GET], path: /look/** }, risk: read }
  - { name: change, http: { methods: [POST], path: /change }, risk: write }
  - { name: drop, http: { methods: [POST], path: /drop }, risk: irreversible, approval: four-eyes }
  - { name: mine, http: { methods: [POST], path: /mine }, risk: irreversible, approval: confirm }
`
	// Who starts the agent is an approver too, so that nothing but the need for
	// other eyes is in the way.
	toolRoles = "approval: { in_band: %s, expires: 10m }\nroles: { viewer: { users: [nobody, bin] }, approver: { users: [nobody, bin] } }\n"
)

func toolFiles() map[string]string {
	return map[string]string{"agents.d/bot.yaml": toolAgent, "tools.d/svc.yaml": toolSvc}
}

// post is a curl that shows headers, body and, last, the status.
func post(path, body string) []string {
	return []string{"curl", "-sS", "-i", "-m", "40", "-w", " status=%{http_code}", "-X", "POST", "-d", body, "http://tool.e2e.test:8080" + path}
}

// pending is an approval as the tool lists it.
type pending struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Request struct {
		Digest string `json:"digest"`
		Run    struct {
			ID string `json:"id"`
		} `json:"run"`
	} `json:"request"`
}

// waiting waits for exactly one approval that waits.
func (n *node) waiting() pending {
	n.t.Helper()
	var list []pending
	n.eventually("one approval waits", func() bool {
		list = nil
		if err := json.Unmarshal([]byte(n.must(root, n.varvel("approvals", "-o", "json")...)), &list); err != nil {
			n.t.Fatal(err)
		}
		return len(list) == 1
	})
	return list[0]
}

// TestApproval holds requests while people decide.
func TestApproval(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: toolFiles(), node: fmt.Sprintf(toolRoles, "25s")})
	got := n.must(alice, n.run("bot", "curl", "-sS", "http://tool.e2e.test:8080/look/x")...)
	if got != "done\n" {
		t.Errorf("a read got %q", got)
	}
	t.Run("approved", func(t *testing.T) { n.with(t).approved() })
	t.Run("denied", func(t *testing.T) { n.with(t).denied() })
	t.Run("who may not approve", func(t *testing.T) { n.with(t).refusedApprovers() })
	t.Run("confirmed at a terminal", func(t *testing.T) { n.with(t).confirmed() })
	t.Run("unlisted action", func(t *testing.T) {
		out := n.with(t).must(alice, n.run("bot", post("/elsewhere", "x")...)...)
		contains(t, "curl", out, "status=403", "application/problem+json", "drop: ", "available_actions")
		if n.tool.count("/elsewhere") != 0 {
			t.Error("it has arrived")
		}
	})
}

// with is the node in the hands of a subtest.
func (n *node) with(t *testing.T) *node {
	c := *n
	c.t = t
	return &c
}

func (n *node) approved() {
	cli := n.begin(alice, n.run("bot", post("/drop", "approved")...)...)
	p := n.waiting()
	if n.tool.count("POST /drop approved") != 0 {
		n.t.Fatal("it has arrived before anybody approved it")
	}
	n.must(bob, n.varvel("approve", "--yes", p.ID, "--reason", "ticket 1")...)
	contains(n.t, "curl", n.await(cli).String(), "done", "status=200")
	if got := n.tool.count("POST /drop approved"); got != 1 {
		n.t.Errorf("it arrived %d times", got)
	}
	n.eventually("the outcome is in the log", func() bool {
		return n.activities(p.ID) == "requested granted claimed settled"
	})
	for _, e := range n.events("--approval", p.ID, "--kind", "approval") {
		if e.Activity == "granted" && (e.Approval == nil || e.Approval.By == nil || e.Approval.By.UID != 2 || e.Approval.Reason != "ticket 1") {
			n.t.Errorf("the event does not say who approved and why: %+v", e.Approval)
		}
	}
}

// activities are the steps of an approval, as the log has them.
func (n *node) activities(id string) string {
	n.t.Helper()
	var steps []string
	for _, e := range n.events("--approval", id, "--kind", string(audit.KindApproval)) {
		steps = append(steps, string(e.Activity))
	}
	return strings.Join(steps, " ")
}

func (n *node) denied() {
	cli := n.begin(alice, n.run("bot", post("/drop", "denied")...)...)
	p := n.waiting()
	n.must(bob, n.varvel("deny", p.ID, "--reason", "not today")...)
	contains(n.t, "curl", n.await(cli).stdout, "status=403", "application/problem+json", p.ID, `"retry":false`)
	if n.tool.count("POST /drop denied") != 0 {
		n.t.Error("what was denied has arrived")
	}
}

// refusedApprovers: neither the requester, nor anybody from inside a run.
func (n *node) refusedApprovers() {
	cli := n.begin(alice, n.run("bot", post("/drop", "refused")...)...)
	p := n.waiting()
	approve := n.varvel("approve", "--yes", p.ID)
	refused := func(who string, r result, parts ...string) {
		if r.code != 3 {
			n.t.Errorf("%s: exit status %d, not 3: %s", who, r.code, r)
		}
		contains(n.t, who, r.stderr, parts...)
	}
	refused("the requester", n.do(alice, approve...), "you started the run, and this needs somebody else")
	for who, r := range map[string]result{
		"somebody without the role":  n.do(user{"games", 5, "65534"}, approve...),
		"somebody outside the group": n.do(stranger, approve...),
		"an approver's own run":      n.do(bob, n.run("bot", approve...)...),
	} {
		if r.code == 0 {
			n.t.Errorf("%s approved: %s", who, r)
		}
	}
	// A process of an approver that the kernel finds in a run's cgroup. Inside of
	// the run the socket is hidden; this one has come from outside.
	cgroup := filepath.Join(n.cgroup.Path, "varvel", "runs", p.Request.Run.ID, "cgroup.procs")
	script := fmt.Sprintf(`echo $$ >%s && exec setpriv --reuid=2 --regid=2 --groups=65534 -- "$@"`, cgroup)
	refused("an approver in a run", n.do(root, append([]string{"sh", "-c", script, "sh"}, approve...)...), "part of a run")
	if n.tool.count("POST /drop refused") != 0 {
		n.t.Error("it has arrived")
	}
	n.must(bob, n.varvel("deny", p.ID)...)
	n.await(cli)
}

// confirmed: the requester alone, and only at a terminal.
func (n *node) confirmed() {
	cli := n.begin(alice, n.run("bot", post("/mine", "confirmed")...)...)
	p := n.waiting()
	r := n.do(alice, n.varvel("approve", "--yes", p.ID)...)
	if r.code == 0 {
		n.t.Errorf("it was confirmed without a terminal: %s", r)
	}
	other := n.terminal(bob, n.varvel("approve", p.ID)...)
	other.sees("Type ")
	code := strings.TrimPrefix(p.Request.Digest, "sha256:")[:6]
	other.types(code + "\n")
	if r := other.end(); r.code != 3 {
		n.t.Errorf("somebody else confirmed it: %s", r)
	}
	wrong := n.terminal(alice, n.varvel("approve", p.ID)...)
	wrong.sees("Type " + code)
	wrong.types("y\n")
	if r := wrong.end(); r.code != 1 {
		n.t.Errorf("a wrong code: %s", r)
	}
	right := n.terminal(alice, n.varvel("approve", p.ID)...)
	right.sees("Type " + code)
	right.types(code + "\n")
	if r := right.end(); r.code != 0 {
		n.t.Errorf("the right code: %s", r)
	}
	contains(n.t, "curl", n.await(cli).stdout, "status=200")
	if got := n.tool.count("POST /mine confirmed"); got != 1 {
		n.t.Errorf("it arrived %d times", got)
	}
}

// TestApprovalAfterTimeout: the program is told to come back, and its retry runs
// exactly once.
func TestApprovalAfterTimeout(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: toolFiles(), node: fmt.Sprintf(toolRoles, "1s")})
	out := filepath.Join(n.dir, "shared", "asked")
	ask := "curl -sS -i -m 20 -w ' status=%{http_code}\n' -X POST -d later http://tool.e2e.test:8080/drop"
	script := fmt.Sprintf(`%[1]s >%[2]s.1; while ! test -e %[2]s.go; do sleep 0.05; done; %[1]s >%[2]s.2 & %[1]s >%[2]s.3; wait; %[1]s >%[2]s.4`, ask, out)
	cli := n.begin(alice, n.run("bot", "sh", "-c", script)...)
	p := n.waiting()
	n.eventually("the program is told to come back", func() bool {
		b, _ := os.ReadFile(out + ".1")
		return strings.Contains(string(b), "status=")
	})
	first, _ := os.ReadFile(out + ".1")
	contains(t, "the first answer", string(first), "403", "application/problem+json", "Varvel-Approval: "+p.ID,
		`"approval":"`+p.ID+`"`, `"retry":true`, "Retry-After:")
	if n.tool.count("POST /drop later") != 0 {
		t.Fatal("it has arrived before anybody approved it")
	}
	n.must(bob, n.varvel("approve", "--yes", p.ID)...)
	n.write("shared/asked.go", "")
	if r := n.await(cli); r.code != 0 {
		t.Errorf("the run: %s", r)
	}
	worked := 0
	for _, i := range []string{".2", ".3", ".4"} {
		b, _ := os.ReadFile(out + i)
		if strings.Contains(string(b), "status=200") {
			worked++
		} else {
			contains(t, "an answer", string(b), "status=403", p.ID)
		}
	}
	if arrived := n.tool.count("POST /drop later"); worked != 1 || arrived != 1 {
		t.Errorf("%d of three equal requests worked, and %d arrived; want one", worked, arrived)
	}
	last, _ := os.ReadFile(out + ".4")
	contains(t, "the last answer", string(last), "status=403", `"retry":false`)
}
