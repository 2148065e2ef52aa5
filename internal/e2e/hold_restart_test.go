package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestApprovalsOutliveTheDaemon: what waits goes on waiting, the same request joins
// it, and it is sent once. What was granted before can be used after.
func TestApprovalsOutliveTheDaemon(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: toolFiles(), node: fmt.Sprintf(toolRoles, "1s")})
	script := `echo ready; while read body; do curl -sS -o /dev/null -m 40 -w "status=%{http_code}\n" -X POST -d "$body" http://tool.e2e.test:8080/drop; done`
	x := n.talk(alice, n.run("bot", "sh", "-c", script)...)
	x.says("ready")
	id := n.onlyRun()
	refused := func(body string) {
		t.Helper()
		x.tell(body)
		if got := <-x.lines; got == "status=200" || !strings.HasPrefix(got, "status=4") {
			t.Errorf("%s was not held: %q", body, got)
		}
	}
	for how, end := range n.ways() {
		body := "held-" + how[:4]
		refused(body)
		p := n.waiting()
		n.away(end, nil)
		if again := n.waiting(); again.ID != p.ID || again.Request.Run.ID != id {
			t.Errorf("%s: %+v waits now", how, again)
		}
		refused(body) // it joins
		if again := n.waiting(); again.ID != p.ID {
			t.Errorf("%s: the same request did not join: %s", how, again.ID)
		}
		n.must(bob, n.varvel("approve", "--yes", p.ID, "--reason", "ticket")...)
		n.away(end, nil) // granted, and not yet used
		x.tell(body)
		x.says("status=200")
		refused(body) // used
		if got := n.tool.count("POST /drop " + body); got != 1 {
			t.Errorf("%s: it arrived %d times", how, got)
		}
		if got := n.activities(p.ID); got != "requested granted claimed settled" {
			t.Errorf("%s: the steps are %s", how, got)
		}
	}
	// Of a run that ends while no daemon is there, nothing stays open.
	refused("never")
	p := n.waiting()
	n.away(n.kill, func() { x.in.Close() })
	x.ends(0)
	n.eventually("it is cancelled", func() bool { return n.activities(p.ID) == "requested cancelled" })
}

// TestLeasesOutliveTheDaemon: the next one knows which tokens are out, and a run
// gets another when it asks.
func TestLeasesOutliveTheDaemon(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": tokenAgent, "tools.d/ledger.yaml": toolLedger, "tools.d/svc.yaml": toolSvc}})
	script := `echo ready; while read x; do curl -sS -o /dev/null -m 40 -H "Varvel-Request: true" -w "status=%{http_code}\n" ` + endpoint4 + `/v1/token?tool=ledger; done`
	x := n.talk(alice, n.run("bot", "sh", "-c", script)...)
	x.says("ready")
	id := n.onlyRun()
	leases := func() int {
		t.Helper()
		var list []struct {
			Run  string `json:"run"`
			Tool string `json:"tool"`
		}
		if err := json.Unmarshal([]byte(n.must(root, n.varvel("leases", "-o", "json")...)), &list); err != nil {
			t.Fatal(err)
		}
		for _, l := range list {
			if l.Run != id || l.Tool != "ledger" {
				t.Errorf("a lease of %+v", l)
			}
		}
		return len(list)
	}
	x.tell("token")
	x.says("status=200")
	if got := leases(); got != 1 {
		t.Fatalf("%d leases", got)
	}
	n.away(n.kill, nil)
	if got := leases(); got != 1 {
		t.Errorf("%d leases with the next daemon", got)
	}
	x.tell("token")
	x.says("status=200")
	if got := leases(); got != 2 {
		t.Errorf("%d leases after another was made", got)
	}
	x.in.Close()
	x.ends(0)
	n.eventually("they go with the run", func() bool { return leases() == 0 })
}
