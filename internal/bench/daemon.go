package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/varvel/varvel/internal/rig"
	"github.com/varvel/varvel/internal/workload"
)

// daemon is Varvel on the measured node, with one agent.
type daemon struct {
	*rig.Daemon
	site *site
}

// startDaemon starts varveld and waits until it answers.
func (s *site) startDaemon(ctx context.Context) (*daemon, error) {
	cgroup := filepath.Join(s.top(), "node")
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		return nil, err
	}
	s.OnClose(func() error { return workload.Remove(cgroup) })
	if err := s.writeConfig(cgroup); err != nil {
		return nil, err
	}
	d := &daemon{&rig.Daemon{
		Bin: s.options.Bin, Dir: s.path("config"), Socket: s.path("run/admin.sock"), Log: s.path("varveld.log"),
	}, s}
	if err := d.Start(ctx); err != nil {
		return nil, err
	}
	s.OnClose(func() error { return d.Stop(s.path("bpf")) })
	return d, d.WaitReady(ctx)
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// writeConfig writes a configuration with rules of every kind that is measured.
func (s *site) writeConfig(cgroup string) error {
	for _, dir := range []string{"config/agents.d", "config/tools.d", "bpf"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	node := fmt.Sprintf(`trust_domain: bench.test
state_dir: %[1]s/state
run_dir: %[1]s/run
bpffs: %[1]s/bpf
cgroup: %[2]s
dns: { upstreams: ["%[3]s:%[4]d"] }
`, s.dir, cgroup, worldAddress, portDNS)
	agent := fmt.Sprintf(`agent: bench
owner: bench
mode: enforce
tools: [web]
egress:
  - { cidr: %[1]s/32, ports: [%[2]d] }
  - { name: %[3]s, ports: [%[4]d], within: [%[1]s/32] }
environment: { pass: [PATH] }
`, worldAddress, portSend, nameTLS, portTLS)
	tool := fmt.Sprintf(`tool: web
hosts: ["%[1]s:%[2]d"]
client: http
upstream: plain
within: [%[3]s/32]
actions:
  - { name: get, http: { methods: [GET], path: / }, risk: read }
`, nameHTTP, portHTTP, worldAddress)
	return errors.Join(
		os.WriteFile(s.path("config/varvel.yaml"), []byte(node), 0o600),
		os.WriteFile(s.path("config/agents.d/bench.yaml"), []byte(agent), 0o600),
		os.WriteFile(s.path("config/tools.d/web.yaml"), []byte(tool), 0o600),
	)
}

// inRun is a command as a run of the agent.
func (d *daemon) inRun(ctx context.Context, argv ...string) *exec.Cmd {
	return d.Varvel(ctx, append([]string{"run", "--agent", "bench", "--quiet", "--"}, argv...)...)
}

// worker starts a worker by varvel run.
func (d *daemon) worker(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(d.inRun(ctx, self, ArgWorker, strconv.Itoa(d.site.cpu)))
	if err == nil {
		d.site.OnClose(p.Stop)
	}
	return p, err
}
