package admin_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/varvel/varvel/internal/admin"
	"github.com/varvel/varvel/internal/admin/admintest"
	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/testutil"
)

// nobody is the other user: the overflow uid, which every host has.
const nobody = 65534

// ask makes one call, named by its route.
func ask(c *api.Client, call string) error {
	ctx := context.Background()
	verb, id, _ := strings.Cut(call, " ")
	var err error
	switch verb {
	case "status":
		_, err = c.Status(ctx)
	case "agents":
		_, err = c.Agents(ctx)
	case "run":
		_, err = c.Run(ctx, id)
	case "why":
		_, err = c.Why(ctx, id, "x.example.org")
	case "audit":
		for _, e := range c.Events(ctx, api.EventQuery{}) {
			err = e
		}
	case "reload":
		_, err = c.Reload(ctx)
	case "revoke":
		_, err = c.Revoke(ctx, id, api.Revoke{Reason: "a test"})
	case "show":
		_, err = c.Approval(ctx, id)
	case "approve":
		a, e := c.Approval(ctx, id)
		if err = e; e == nil {
			_, err = c.Approve(ctx, id, api.Vote{Preview: a.PreviewDigest})
		}
	case "deny":
		_, err = c.Deny(ctx, id, api.Vote{})
	default:
		err = fmt.Errorf("unknown call %q", call)
	}
	return err
}

// asNobody makes the calls as the other user, in a process of its own.
func asNobody(t *testing.T, socket string, groups []uint32, calls ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), helperBinary(t, filepath.Dir(socket)))
	cmd.Env = []string{helperVariable + "=" + socket + "|" + strings.Join(calls, ",")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: groups}}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helper: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// helperBinary copies the test binary to where the other user can execute it.
func helperBinary(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "helper")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// openNode returns a node whose socket the other user may connect to.
func openNode(t *testing.T) *admintest.Node {
	t.Helper()
	dir, err := os.MkdirTemp("", "varvel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n := admintest.New(t, admintest.Files())
	n.Socket, n.Group = filepath.Join(dir, "admin.sock"), fmt.Sprint(nobody)
	n.Serve(t.Context(), t)
	return n
}

func TestRolesOfAnotherUser(t *testing.T) {
	testutil.RequireRoot(t)
	n := openNode(t)
	mine := n.Hold(t, n.AddRun(t, "run_mine", "billing-bot", nobody), decision.FourEyes, "x")
	_ = n.Hold(t, n.AddRun(t, "run_other", "billing-bot", 4242), decision.FourEyes, "x")
	user := func(roles ...string) map[string]config.Principals {
		m := map[string]config.Principals{}
		for _, r := range roles {
			m[r] = config.Principals{Users: []string{fmt.Sprint(nobody)}}
		}
		return m
	}
	group := map[string]config.Principals{"auditor": {Groups: []string{"4711"}}}
	unknown := map[string]config.Principals{"operator": {Users: []string{"no-such-user"}, Groups: []string{"no-such-group"}}}
	calls := []string{"status", "agents", "run run_mine", "run run_other", "why run_mine", "why run_other", "audit", "revoke run_mine", "revoke run_other", "reload"}
	tests := []struct {
		name   string
		roles  map[string]config.Principals
		groups []uint32
		want   []int
	}{
		{"no role: only one's own", nil, nil, []int{403, 403, 200, 404, 200, 404, 403, 200, 404, 403}},
		{"viewer", user("viewer"), nil, []int{200, 200, 200, 200, 200, 200, 403, 200, 403, 403}},
		{"auditor", user("auditor"), nil, []int{200, 200, 200, 200, 200, 200, 200, 200, 403, 403}},
		{"approver", user("approver"), nil, []int{200, 200, 200, 200, 200, 200, 403, 200, 403, 403}},
		{"operator", user("operator"), nil, []int{200, 200, 200, 200, 200, 200, 403, 200, 200, 200}},
		{"auditor by a supplementary group", group, []uint32{4711}, []int{200, 200, 200, 200, 200, 200, 200, 200, 403, 403}},
		{"not in that group", group, []uint32{4712}, []int{403, 403, 200, 404, 200, 404, 403, 200, 404, 403}},
		{"names that nobody has", unknown, nil, []int{403, 403, 200, 404, 200, 404, 403, 200, 404, 403}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setRoles(n, tt.roles)
			if strings.HasPrefix(tt.name, "operator") {
				defer setRoles(n, nil) // reload has read the files again
			}
			var want []string
			for i, c := range calls {
				want = append(want, fmt.Sprintf("%s: %d", c, tt.want[i]))
			}
			if diff := cmp.Diff(want, asNobody(t, n.Socket, tt.groups, calls...)); diff != "" {
				t.Error(diff)
			}
		})
	}
	setRoles(n, nil)
	want := []string{"show " + mine + ": 200", "approve " + mine + ": 403", "deny " + mine + ": 200"}
	if diff := cmp.Diff(want, asNobody(t, n.Socket, nil, "show "+mine, "approve "+mine, "deny "+mine)); diff != "" {
		t.Error(diff)
	}
}

// TestVotesOfAnotherUser shows that to approve somebody else's action takes the
// role, and that an approval of others does not exist for who has none.
func TestVotesOfAnotherUser(t *testing.T) {
	testutil.RequireRoot(t)
	n := openNode(t)
	id := n.Hold(t, n.AddRun(t, "run_other", "billing-bot", 4242), decision.FourEyes, "x")
	tests := []struct {
		role          string
		approve, show int
	}{
		{"", 404, 404}, {"viewer", 403, 200}, {"auditor", 403, 200}, {"operator", 403, 200}, {"approver", 200, 200},
	}
	for _, tt := range tests {
		setRoles(n, map[string]config.Principals{tt.role: {Users: []string{fmt.Sprint(nobody)}}})
		want := []string{fmt.Sprintf("show %s: %d", id, tt.show), fmt.Sprintf("approve %s: %d", id, tt.approve)}
		if diff := cmp.Diff(want, asNobody(t, n.Socket, nil, "show "+id, "approve "+id)); diff != "" {
			t.Errorf("%q: %s", tt.role, diff)
		}
	}
}

// TestSocketMode shows that who is not in the socket's group does not even
// connect.
func TestSocketMode(t *testing.T) {
	testutil.RequireRoot(t)
	n := openNode(t)
	if err := os.Chown(n.Socket, 0, 0); err != nil {
		t.Fatal(err)
	}
	if got := asNobody(t, n.Socket, nil, "status"); got[0] != "status: 0" {
		t.Errorf("got %q", got)
	}
}

func setRoles(n *admintest.Node, roles map[string]config.Principals) {
	cfg := *n.Config()
	cfg.Node.Roles = roles
	n.SetConfig(&cfg)
}

func TestUnknownPrincipals(t *testing.T) {
	cfg := &config.Config{Node: config.Node{Roles: map[string]config.Principals{
		"viewer": {Users: []string{"root", "no-such-user", "12345"}, Groups: []string{"no-such-group"}},
	}}}
	want := []string{"user no-such-user of role viewer", "group no-such-group of role viewer"}
	if diff := cmp.Diff(want, admin.UnknownPrincipals(cfg)); diff != "" {
		t.Error(diff)
	}
}
