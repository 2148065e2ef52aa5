// Package admintest makes a node for tests of the admin API and of the command
// line: a real server over a real socket, a real audit log and real approvals in
// a temporary directory, and runs that are only entries in the registry.
package admintest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/admin"
	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/explain"
	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/admin/socket"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/workload"
)

// Policy is the policy revision of a Node.
const Policy = "sha256:0123456789abcdef"

// Node is a node for tests.
type Node struct {
	Dir       string // of everything
	Socket    string
	Group     string // of the socket
	Log       *audit.Log
	Approvals *approval.Store
	Runs      *workload.Registry
	Health    *health.Health
	InRun     *InRun

	config atomic.Pointer[config.Config]
	// Options are what the server is made of; Serve uses them.
	Options admin.Options
}

// New returns a node with the configuration of files, which are named by their
// path below the configuration directory. The user of the test has all roles.
func New(t testing.TB, files map[string]string) *Node {
	t.Helper()
	n := &Node{Dir: t.TempDir(), Runs: workload.NewRegistry(), InRun: &InRun{}}
	n.Socket = filepath.Join(n.Dir, "admin.sock")
	n.write(t, files)
	n.load(t)
	quiet := slog.New(slog.DiscardHandler)
	n.Health = health.New(quiet, time.Now)
	n.openLog(t, quiet)
	n.openApprovals(t, quiet)
	n.Options = admin.Options{
		Node:    admin.Node{Version: "v0.0.0-test", ID: "node-1", Boot: "boot-1", Started: time.Now().Add(-time.Hour)},
		Configs: n, Runs: n.Runs, PeerRuns: n.InRun, Approvals: n.Approvals, Voter: n.Approvals, Audit: n.Log,
		Explainer: explain.New(noPlans{}, n), Reloader: n, Revoker: n, Health: n.Health, Log: quiet,
		AuditSeq: n.Log.Head, PolicyRevision: func() string { return Policy },
		Leases: func() []api.Lease {
			return []api.Lease{{Run: "run_A", Agent: "billing-bot", Tool: "stripe", Audience: "stripe", Expires: time.Now().Add(5 * time.Minute)}}
		},
		Controls: func() []api.Control { return []api.Control{{Name: "landlock", Active: true, Detail: "ABI 7"}} },
	}
	return n
}

// ConfigDir is where the configuration is.
func (n *Node) ConfigDir() string { return filepath.Join(n.Dir, "etc") }

func (n *Node) write(t testing.TB, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(n.ConfigDir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *Node) load(t testing.TB) {
	t.Helper()
	cfg, err := config.Load(n.ConfigDir())
	if err != nil {
		t.Fatal(err)
	}
	n.SetConfig(cfg)
}

// SetConfig puts a configuration into force, and gives the test's user all roles.
func (n *Node) SetConfig(cfg *config.Config) {
	me := strconv.Itoa(os.Getuid())
	roles := map[string]config.Principals{}
	for _, role := range config.Roles() {
		p := cfg.Node.Roles[role]
		p.Users = append([]string{me}, p.Users...)
		roles[role] = p
	}
	cfg.Node.Roles = roles
	n.config.Store(cfg)
}

// Config implements admin.Configs.
func (n *Node) Config() *config.Config { return n.config.Load() }

// Reload implements admin.Reloader.
func (n *Node) Reload(context.Context) (api.Reload, error) {
	cfg, err := config.Load(n.ConfigDir())
	if err != nil {
		return api.Reload{}, err
	}
	n.SetConfig(cfg)
	return api.Reload{PolicyRevision: Policy, Agents: len(cfg.Agents), Tools: len(cfg.Tools), Runs: len(n.Runs.All())}, nil
}

// Revoke implements admin.Revoker.
func (n *Node) Revoke(ctx context.Context, run *workload.Run, by decision.LocalUser, r api.Revoke) (api.Revoked, error) {
	gone := *run
	gone.Revoked = true
	n.Runs.Replace(&gone)
	return api.Revoked{Run: run.ID, Connections: 2, Killed: r.Kill}, nil
}

func (n *Node) openLog(t testing.TB, log *slog.Logger) {
	t.Helper()
	l, err := audit.Open(filepath.Join(n.Dir, "audit"), audit.Options{Node: "node-1", Boot: "boot-1", SegmentSize: 1 << 20, Reserve: 1 << 20, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	n.Log = l
}

func (n *Node) openApprovals(t testing.TB, log *slog.Logger) {
	t.Helper()
	s, err := approval.Open(t.Context(), approval.Config{
		Dir: filepath.Join(n.Dir, "approvals"), Expires: time.Hour, MaxPerRun: 32, MaxTotal: 64,
		Events: notes{n.Log}, Runs: alive{}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	n.Approvals = s
}

// Serve answers on the socket until the test or ctx ends.
func (n *Node) Serve(ctx context.Context, t testing.TB) {
	t.Helper()
	l, err := socket.Listen(n.Socket, n.Group)
	if err != nil {
		t.Fatal(err)
	}
	s, err := admin.New(n.Options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// AddRun registers a live run of a configured agent, started by uid.
func (n *Node) AddRun(t testing.TB, id, agent string, uid uint32, command ...string) *workload.Run {
	t.Helper()
	cfg := n.Config()
	a, ok := cfg.Agents[agent]
	if !ok {
		t.Fatalf("no agent %q", agent)
	}
	run := &workload.Run{
		Run:      decision.Run{ID: id, Agent: agent, Owner: a.Owner, Node: "node-1", Boot: "boot-1", Mode: a.Mode},
		Actor:    decision.Actor{Account: "spiffe://example.org/agent/" + agent, StartedBy: &decision.LocalUser{UID: uid, Name: "someone"}},
		CgroupID: uint64(len(n.Runs.All()) + 1), CgroupPath: "/sys/fs/cgroup/varvel/" + id,
		Started: time.Now().Add(-3 * time.Minute), Agent: a, Command: command, Begun: true,
	}
	for _, name := range a.Tools {
		run.Tools = append(run.Tools, cfg.Tools[name])
	}
	if err := n.Runs.Add(run); err != nil {
		t.Fatal(err)
	}
	return run
}

// Hold asks for an approval of a deletion and returns its id.
func (n *Node) Hold(t testing.TB, run *workload.Run, kind decision.ApprovalKind, preview string) string {
	t.Helper()
	r := decision.Request{
		ID: "dec_1", Kind: decision.KindHTTP, Run: run.Run, Actor: run.Actor, Tool: "stripe", Action: "refunds.create",
		Risk: decision.RiskIrreversible, Target: decision.Target{Name: "api.stripe.com", Port: 443, Protocol: "tcp"},
		HTTP:   &decision.HTTP{Method: "POST", Authority: "api.stripe.com", Path: "/v1/refunds"},
		Digest: "sha256:3fa2b1c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f80", ToolRevision: toolRevision,
		Preview: preview, Time: time.Now(),
	}
	v := decision.Verdict{
		Effect: decision.EffectHold, Reasons: []decision.Reason{{Rule: "default.irreversible", Text: "It cannot be taken back."}},
		Need: &decision.Need{Kind: kind, Quorum: 1, Expires: time.Hour}, Revision: Policy,
	}
	res, err := n.Approvals.Ask(t.Context(), r, v)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != decision.StatusPending {
		t.Fatalf("the approval is %s, not pending: %s", res.Status, res.Reason.Text)
	}
	return res.ApprovalID
}

const toolRevision = "sha256:fedcba9876543210"

// alive is an approval.Runs for which every run lives.
type alive struct{}

func (alive) Alive(string) bool { return true }

func (alive) Current(string, string) (policy, tool string) { return Policy, toolRevision }

// notes writes transitions of approvals to the audit log.
type notes struct{ log *audit.Log }

func (n notes) Note(ctx context.Context, c approval.Change) error {
	r := c.Approval.Request
	return n.log.Append(ctx, &audit.Event{
		Kind: audit.KindApproval, Activity: audit.Activity(c.Event), ApprovalID: c.Approval.ID,
		Run: r.Run.ID, Agent: r.Run.Agent, Tool: r.Tool, Action: r.Action, Risk: r.Risk, Preview: r.Preview,
	}, decision.Durable)
}

// noPlans knows no plans, as if policy had refused no rule.
type noPlans struct{}

func (noPlans) Plan(uint64) (*egress.Plan, bool) { return nil, false }

// InRun is an admin.PeerRuns that says what it is told to say.
type InRun struct {
	mu  sync.Mutex
	run string
	err error
}

// Set makes every process a part of run, or of none if it is "". An error is
// given to everybody who asks.
func (i *InRun) Set(run string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.run, i.err = run, err
}

// InRun implements admin.PeerRuns.
func (i *InRun) InRun(int) (runID string, in bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.run, i.run != "", i.err
}
