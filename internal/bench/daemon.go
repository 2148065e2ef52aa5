package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/workload"
)

// daemon is Varvel on the measured node, with one agent.
type daemon struct {
	site *site
	cmd  *exec.Cmd
	ends chan error
}

// startDaemon starts varveld and waits until it answers.
func (s *site) startDaemon(ctx context.Context) (*daemon, error) {
	cgroup := filepath.Join(s.top(), "node")
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		return nil, err
	}
	s.onClose(func() error { return workload.Remove(cgroup) })
	if err := s.writeConfig(cgroup); err != nil {
		return nil, err
	}
	log, err := os.Create(s.path("varveld.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d := &daemon{site: s, ends: make(chan error, 1)}
	d.cmd = exec.CommandContext(ctx, filepath.Join(s.options.Bin, "varveld"), "--config", s.path("config"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start varveld; make build makes it: %w", err)
	}
	go func() { d.ends <- d.cmd.Wait() }()
	s.onClose(d.stop)
	return d, d.waitReady(ctx)
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
  - { name: %[5]s, ports: [%[4]d], within: [%[1]s/32], direct: true }
environment: { pass: [PATH] }
`, worldAddress, portSend, nameTLS, portTLS, nameDirect)
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

// waitReady asks until the daemon answers.
func (d *daemon) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if err := d.varvel(ctx, "status").Run(); err == nil {
			return nil
		}
		select {
		case err := <-d.ends:
			d.ends <- err
			return fmt.Errorf("varveld has ended: %w: %s", err, d.log())
		case <-ctx.Done():
			return fmt.Errorf("varveld does not answer: %s", d.log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *daemon) log() string {
	raw, err := os.ReadFile(d.site.path("varveld.log"))
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-2000):])
}

// varvel is the command line tool, speaking to this daemon.
func (d *daemon) varvel(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(d.site.options.Bin, "varvel"),
		append([]string{"--socket", d.site.path("run/admin.sock")}, args...)...)
}

// inRun is a command as a run of the agent.
func (d *daemon) inRun(ctx context.Context, argv ...string) *exec.Cmd {
	return d.varvel(ctx, append([]string{"run", "--agent", "bench", "--quiet", "--"}, argv...)...)
}

// worker starts a worker by varvel run.
func (d *daemon) worker(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(d.inRun(ctx, self, ArgWorker, strconv.Itoa(d.site.cpu)))
	if err == nil {
		d.site.onClose(p.stop)
	}
	return p, err
}

// stop ends the daemon and takes its bpffs away.
func (d *daemon) stop() error {
	// It may have ended already; then there is nobody to be told.
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ends:
	case <-time.After(15 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.ends
	}
	err := unix.Unmount(d.site.path("bpf"), unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) {
		return nil // it was not mounted
	}
	return err
}
