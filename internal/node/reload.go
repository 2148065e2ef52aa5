package node

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/policy"
)

// pollPeriod is how often the configuration's files are looked at.
const pollPeriod = 2 * time.Second

// watchConfig reads the configuration again when it was changed, or when asked.
func (n *node) watchConfig(ctx context.Context) error {
	last := fingerprint(n.Config())
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.Options.Hangup:
			last = fingerprint(n.Config())
		case <-tick.C:
			now := fingerprint(n.Config())
			if now == last {
				continue
			}
			last = now
		}
		if _, err := n.Reload(ctx); err != nil {
			n.Log.Error("the configuration was not reloaded; the old one stays in force", "error", err)
		}
	}
}

// fingerprint changes when a file of the configuration or the policy does.
func fingerprint(cfg *config.Config) string {
	var b strings.Builder
	for _, dir := range append([]string{cfg.Dir}, cfg.Node.Policy.Dirs...) {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			if fi, err := d.Info(); err == nil {
				fmt.Fprintln(&b, path, fi.Size(), fi.ModTime().UnixNano())
			}
			return nil
		})
	}
	return b.String()
}

// Reload puts the configuration on disk into force, for live runs too. If
// anything in it is wrong, nothing changes and the node's health says so. Reloads come
// one after the other.
func (n *node) Reload(ctx context.Context) (api.Reload, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	cfg, engine, err := n.readConfig()
	if err != nil {
		n.metrics.ConfigOK(false)
		n.record(ctx, &audit.Event{
			Kind: audit.KindConfig, Activity: "refused", Message: "The configuration on disk is not valid; the old one stays in force.",
		}, decision.Durable)
		return api.Reload{}, err
	}
	n.metrics.ConfigOK(true)
	n.well(health.ConfigInvalid)
	n.well(health.PolicyInvalid)
	n.policy.Store(engine)
	n.cfg.Store(cfg)
	n.broker.Flush()
	n.checkRoles()
	out := api.Reload{PolicyRevision: engine.Revision(), Agents: len(cfg.Agents), Tools: len(cfg.Tools)}
	out.Runs = n.reapply(ctx, cfg, engine, n.runs.All())
	n.record(ctx, &audit.Event{
		Kind: audit.KindConfig, Activity: "reload", PolicyRevision: engine.Revision(),
		Message: fmt.Sprintf("The configuration was reloaded: %d agents, %d tools, %d live runs.", out.Agents, out.Tools, out.Runs),
	}, decision.Durable)
	return out, nil
}

// readConfig reads everything and changes nothing.
func (n *node) readConfig() (*config.Config, *policy.Engine, error) {
	cfg, err := config.Load(n.Options.ConfigDir)
	if err != nil {
		n.degraded(health.ConfigInvalid, err.Error())
		return nil, nil, err
	}
	if what := needsRestart(n.Config().Node, cfg.Node); what != "" {
		err := fmt.Errorf("%s has changed: %w", what, errRestart)
		n.degraded(health.ConfigInvalid, err.Error())
		return nil, nil, err
	}
	engine, err := policy.New(policy.Config{Dirs: cfg.Node.Policy.Dirs, Log: n.Log})
	if err != nil {
		n.degraded(health.PolicyInvalid, err.Error())
		return nil, nil, err
	}
	return cfg, engine, nil
}

// needsRestart names the first setting that cannot change while the daemon runs.
func needsRestart(old, new config.Node) string {
	fixed := []struct {
		key      string
		old, new any
	}{
		{"trust_domain", old.TrustDomain, new.TrustDomain}, {"state_dir", old.StateDir, new.StateDir},
		{"run_dir", old.RunDir, new.RunDir}, {"admin", old.Admin, new.Admin}, {"metrics", old.Metrics, new.Metrics},
		{"issuer", old.Issuer, new.Issuer}, {"cgroup", old.Cgroup, new.Cgroup}, {"bpffs", old.BPFFS, new.BPFFS},
		{"dns", old.DNS, new.DNS}, {"audit", old.Audit, new.Audit}, {"approval", old.Approval, new.Approval},
	}
	for _, f := range fixed {
		if !reflect.DeepEqual(f.old, f.new) {
			return f.key
		}
	}
	return ""
}
