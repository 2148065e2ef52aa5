// Package node puts the parts of the daemon together: it makes them in order,
// runs them, and takes them down in reverse. It is the only package that knows
// most of the others, and it decides nothing by itself.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/admin/metrics"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/broker/issuer"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/endpoint"
	"github.com/varvel/varvel/internal/gateway"
	"github.com/varvel/varvel/internal/keeper"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/launch"
	"github.com/varvel/varvel/internal/policy"
	"github.com/varvel/varvel/internal/runstate"
	"github.com/varvel/varvel/internal/workload"
)

// Options say how the daemon is started.
type Options struct {
	ConfigDir string
	Version   string
	Log       *slog.Logger
	Ready     func()           // called once everything works
	Hangup    <-chan os.Signal // asks for the configuration to be read again
	HandOver  <-chan os.Signal // asks to stop, and to leave the runs to the next daemon
}

// node holds the parts. They are set by the steps of start and not changed
// afterwards, but for those in atomics.
type node struct {
	Options
	id, boot string
	netns    string // of this process
	started  time.Time
	cfg      atomic.Pointer[config.Config]
	policy   atomic.Pointer[policy.Engine]

	log        *audit.Log
	health     *health.Health
	registry   *prometheus.Registry
	metrics    *metrics.Metrics
	totals     totals
	runs       *workload.Registry
	cgroups    *workload.Cgroups
	keeper     *keeper.Deposits
	found      *keeper.Found // what the keeper had at start
	states     *runstate.Store
	launcher   *launch.Server
	runInit    runInit
	kernel     *kernel.Kernel
	engine     *decision.Engine
	approvals  *approval.Store
	issuer     *issuer.Issuer
	broker     *broker.Broker
	egress     *egress.Controller
	dns        *egress.Server
	resolver   *egress.Resolver
	history    endpoint.History
	endpoint   *endpoint.Endpoint
	gateway    *gateway.Gateway
	reloading  sync.Mutex // one reload at a time; taken before changing
	changing   sync.Mutex // one change of what live runs may reach at a time
	denials    *denials
	losses     *losses
	lingering  *lingering
	namespaces *namespaces
	doors      kernel.Doors                 // as they were opened
	reachable  atomic.Pointer[kernel.Doors] // of them, those whose address the host has

	waiting []*earlierRun // runs of an earlier daemon that this one is about to serve

	undo    []func() error // in order of making
	ready   bool           // the start has succeeded
	tasks   []task
	leaving bool // runs are left to the next daemon: set before what is undone
}

// step makes one part. Its name is what an error and the log say.
type step struct {
	name string
	make func(ctx context.Context) error
}

// steps is the order in which the daemon comes up: first what can refuse to run
// at all and changes nothing, then the record, then judgement, then the kernel,
// then the runs of an earlier daemon, and the doors for people last.
func (n *node) steps() []step {
	return []step{
		{"check this machine", n.checkMachine},
		{"look for the program of init", n.findInit},
		{"load the policy", n.loadPolicy},
		{"look for the BPF file system", n.ensureBPFFS},
		{"take the lock", n.takeLock},
		{"open the audit log", n.openAudit},
		{"claim this node's cgroups and bpffs", n.claimNode},
		{"reach the keeper", n.openKeeper},
		{"look for runs of an earlier daemon", n.findRuns},
		{"open the approvals", n.openApprovals},
		{"open the issuer", n.openIssuer},
		{"load the kernel programs", n.openKernel},
		{"prepare names and the gateway", n.openGateway},
		{"open the doors", n.openDoors},
		{"adopt runs of an earlier daemon", n.adoptRuns},
		{"listen for runs", n.openLaunch},
		{"listen for operators", n.openAdmin},
		{"listen for Prometheus", n.openMetrics},
		{"give up capabilities", n.dropCapabilities},
	}
}

// Run is the daemon. It returns when ctx ends, or with what failed. Runs end with
// it, but not if it is told to hand over, or fails before it serves those of an
// earlier daemon.
func Run(ctx context.Context, o Options) error {
	if err := checkRoot(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-o.HandOver:
			cancel(launch.ErrHandOver)
		case <-ctx.Done():
		}
	}()
	cfg, err := config.Load(o.ConfigDir)
	if err != nil {
		return fmt.Errorf("%w\nRuns of an earlier varveld, if there are any, stay governed by the rules that they have, and wait for one that starts", err)
	}
	n := &node{Options: o, started: time.Now(), runs: workload.NewRegistry()}
	n.cfg.Store(cfg)
	n.health = health.New(o.Log, time.Now)
	defer n.takeDown(ctx)
	for _, s := range n.steps() {
		if err := s.make(ctx); err != nil {
			return n.notStarted(s.name, err)
		}
	}
	n.ready = true
	n.waiting = nil // they are the launcher's
	n.reportStart(ctx)
	n.tasks = append(n.tasks, task{"reload", n.watchConfig})
	if o.Ready != nil {
		o.Ready()
	}
	return runTasks(ctx, n.tasks)
}

// Config returns the configuration in force.
func (n *node) Config() *config.Config { return n.cfg.Load() }

// onStop registers what undoes a step. The last one registered is run first.
func (n *node) onStop(f func() error) { n.undo = append(n.undo, f) }

// onFailure registers what undoes a step if the start fails in a later one.
func (n *node) onFailure(f func() error) {
	n.onStop(func() error {
		if n.ready || n.leaving {
			return nil
		}
		return f()
	})
}

// notStarted says which step failed, and what that means for live runs.
func (n *node) notStarted(step string, err error) error {
	if len(n.waiting) == 0 {
		return fmt.Errorf("%s: %w", step, err)
	}
	return fmt.Errorf("%s: %w\n%d runs of an earlier varveld stay governed by the rules that they have, and wait for one that starts", step, err, len(n.waiting))
}

// takeDown undoes what was made. Runs that are left to the next daemon keep what
// governs them, and what they need to be adopted.
func (n *node) takeDown(ctx context.Context) {
	n.leaving = len(n.waiting) > 0 || errors.Is(context.Cause(ctx), launch.ErrHandOver)
	if n.leaving {
		n.Log.Info("runs are left to the next daemon", "runs", len(n.runs.All()))
	}
	var errs []error
	for i := len(n.undo) - 1; i >= 0; i-- {
		errs = append(errs, n.undo[i]())
	}
	if err := errors.Join(errs...); err != nil {
		n.Log.Error("the daemon could not clear everything up", "error", err)
	}
}

func (n *node) addTask(name string, run func(ctx context.Context) error) {
	n.tasks = append(n.tasks, task{name, run})
}

// reportStart says in the log and in the record what came up.
func (n *node) reportStart(ctx context.Context) {
	cfg := n.Config()
	n.Log.Info("varveld is ready", "version", n.Version, "config", cfg.Dir, "agents", len(cfg.Agents), "tools", len(cfg.Tools))
	n.record(ctx, &audit.Event{
		Kind: audit.KindConfig, Activity: "start", PolicyRevision: n.policy.Load().Revision(),
		Message: fmt.Sprintf("varveld %s has started with %d agents and %d tools.", n.Version, len(cfg.Agents), len(cfg.Tools)),
	}, decision.Durable)
}
