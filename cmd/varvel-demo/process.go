package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// systemPath is where programs for every user are. The demo's clients run as an
// ordinary user, to whom root's own folders are closed.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// nobody is the ordinary user of the demo; every Linux has it.
const nobody = 65534

// invocation is a program to be started.
type invocation struct {
	netns string // "": the demo's own
	uid   int    // and gid
	dir   string
	env   []string // besides PATH and LANG; nothing else is inherited
	argv  []string
}

// command prepares an invocation. Root may enter a network namespace, so the
// namespace comes first and the user after it.
func (i invocation) command(ctx context.Context) *exec.Cmd {
	var argv []string
	if i.netns != "" {
		argv = append(argv, "nsenter", "--net=/run/netns/"+i.netns)
		if i.uid != 0 {
			argv = append(argv, "--setuid", strconv.Itoa(i.uid), "--setgid", strconv.Itoa(i.uid))
		}
		argv = append(argv, "--")
	}
	argv = append(argv, i.argv...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = i.dir
	cmd.Env = append([]string{"PATH=" + systemPath, "LANG=C.UTF-8"}, i.env...)
	// Its own process group, so that Ctrl-C reaches only the demo, which then
	// ends everything in order; and an end with the demo if that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second
	return cmd
}

// result is what became of a program that has ended.
type result struct {
	stdout, stderr string
	code           int
}

// String shows a result as evidence.
func (r result) String() string {
	return fmt.Sprintf("exit status %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}

// run carries out an invocation to its end. Only a program that could not be
// started or had to be stopped is an error.
func (i invocation) run(ctx context.Context) (result, error) {
	p, err := i.start(ctx)
	if err != nil {
		return result{}, err
	}
	return p.wait()
}

// process is a program that was started, with its output so far.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	ended          chan struct{}
	err            error // of Wait, valid after ended is closed
	name           string
}

// start begins an invocation whose output is kept.
func (i invocation) start(ctx context.Context) (*process, error) {
	p := &process{cmd: i.command(ctx), ended: make(chan struct{}), name: i.argv[0]}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	return p.begin()
}

// serve begins an invocation that goes on, with its output in a file.
func (i invocation) serve(ctx context.Context, logFile string) (*process, error) {
	return i.serveTo(ctx, logFile, nil)
}

// serveTo is serve with the standard output elsewhere.
func (i invocation) serveTo(ctx context.Context, logFile string, stdout *os.File) (*process, error) {
	out, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if stdout == nil {
		stdout = out
	}
	p := &process{cmd: i.command(ctx), ended: make(chan struct{}), name: i.argv[0]}
	p.cmd.Stdout, p.cmd.Stderr = stdout, out
	return p.begin()
}

// begin starts the program. There is no process if it cannot be started.
func (p *process) begin() (*process, error) {
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// wait returns what became of the program.
func (p *process) wait() (result, error) {
	<-p.ended
	r := result{p.stdout.String(), p.stderr.String(), p.cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return r, fmt.Errorf("%s: %w", p.name, p.err)
	}
	return r, nil
}

// alive reports whether the program still runs.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// stop asks the program to end, and makes it after a grace.
func (p *process) stop(grace time.Duration) {
	if p == nil {
		return
	}
	// It may have ended already; then there is nobody to be told.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// eventually tries until it works or the time is up, and returns the last error.
func eventually(ctx context.Context, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
