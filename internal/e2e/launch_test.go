package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// launchNode has agents that differ in who may start them.
func launchNode(t *testing.T) *node {
	return newRealm(t).newNode(t, options{files: map[string]string{
		"agents.d/bot.yaml":   killAgent,
		"agents.d/group.yaml": "agent: shared\nlaunch: { groups: [man] }\n",
		"agents.d/root.yaml":  "agent: closed\n",
	}})
}

// TestWhoMayLaunch: peer credentials against the configuration.
func TestWhoMayLaunch(t *testing.T) {
	n := launchNode(t)
	tests := []struct {
		name  string
		as    user
		agent string
		code  int
		want  []string
	}{
		{"a user of the list", alice, "bot", 0, nil},
		{"root", root, "bot", 0, nil},
		{"another user", bob, "bot", 125, []string{"user 2 may not start agent", "bot.yaml", "launch"}},
		{"a member of a group of the list", stranger, "shared", 0, nil},
		{"no member", bob, "shared", 125, []string{"may not start"}},
		{"nobody is listed", alice, "closed", 125, []string{"may not start"}},
		{"root, nobody is listed", root, "closed", 0, nil},
		{"an agent that does not exist", alice, "bott", 125, []string{`"bott"`, "bot, closed, shared"}},
	}
	for _, tt := range tests {
		r := n.do(tt.as, n.run(tt.agent, "sh", "-c", "id -u; id -G")...)
		if r.code != tt.code {
			t.Errorf("%s: exit status %d, want %d: %s", tt.name, r.code, tt.code, r)
		}
		contains(t, tt.name, r.stderr, tt.want...)
		if tt.code == 0 && !strings.HasPrefix(r.stdout, fmt.Sprint(tt.as.id)+"\n") {
			t.Errorf("%s: the run is somebody else's: %s", tt.name, r)
		}
	}
	// A process that is in a run, however it came to the socket.
	s := n.shell("bot")
	id := n.onlyRun()
	script := fmt.Sprintf(`echo $$ >%s/varvel/runs/%s/cgroup.procs && exec "$@"`, n.cgroup.Path, id)
	r := n.do(root, append([]string{"sh", "-c", script, "sh"}, n.run("bot", "true")...)...)
	if r.code != 125 {
		t.Errorf("a run in a run: %s", r)
	}
	contains(t, "a run in a run", r.stderr, id, "a run cannot start another")
	if r := s.do(n.run("bot", "true")...); r.code == 0 {
		t.Errorf("the socket is open inside of a run: %s", r)
	}
}

// TestLikeTheCommand: a run behaves as its command does.
func TestLikeTheCommand(t *testing.T) {
	n := launchNode(t)
	tests := []struct {
		name string
		argv []string
		code int
	}{
		{"exit status", []string{"sh", "-c", "exit 37"}, 37},
		{"ended by a signal", []string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{"not executable", []string{"/etc/passwd"}, 126},
		{"not found", []string{"no-such-program"}, 127},
	}
	for _, tt := range tests {
		if r := n.do(alice, n.run("bot", tt.argv...)...); r.code != tt.code {
			t.Errorf("%s: exit status %d, want %d: %s", tt.name, r.code, tt.code, r)
		}
	}
	if got := n.must(alice, n.run("bot", "pwd")...); got != n.dir+"/shared\n" {
		t.Errorf("the working directory is %q", got)
	}
	t.Run("signals", func(t *testing.T) { n.with(t).signals() })
	t.Run("a big input", func(t *testing.T) { n.with(t).bigInput() })
	t.Run("output closed early", func(t *testing.T) { n.with(t).closedOutput() })
	t.Run("a child in the background", func(t *testing.T) { n.with(t).backgroundChild() })
	t.Run("a terminal", func(t *testing.T) { n.with(t).atTerminal() })
	t.Run("the summary", func(t *testing.T) { n.with(t).summary() })
}

// signals reach the command, and its answer decides.
func (n *node) signals() {
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 7, syscall.SIGINT: 8, syscall.SIGUSR1: 9} {
		ready := filepath.Join(n.dir, "shared", fmt.Sprintf("ready-%d", code))
		script := fmt.Sprintf("trap 'exit 7' TERM; trap 'exit 8' INT; trap 'exit 9' USR1; : >%s; while :; do sleep 0.02; done", ready)
		b := n.begin(alice, n.run("bot", "sh", "-c", script)...)
		n.eventually("the command is there", func() bool { _, err := os.Stat(ready); return err == nil })
		_ = b.cmd.Process.Signal(sig)
		if r := n.await(b); r.code != code {
			n.t.Errorf("%s: %s", sig, r)
		}
	}
}

func (n *node) bigInput() {
	input := bytes.Repeat([]byte("varvel and its hawk\n"), 10<<20/20)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := n.command(ctx, alice, n.run("bot", "sh", "-c", "tee big | sha256sum; cat big >&2")...)
	var out, echo bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &echo
	n.fork(cmd)
	if err := cmd.Wait(); err != nil {
		n.t.Fatal(err)
	}
	sum := sha256.Sum256(input)
	if !strings.HasPrefix(out.String(), hex.EncodeToString(sum[:])) {
		n.t.Errorf("the run has read something else: %s", out.String())
	}
	if !bytes.Equal(echo.Bytes(), input) {
		n.t.Errorf("%d bytes came back, not the %d that went in", echo.Len(), len(input))
	}
}

// closedOutput: who writes to a reader that is gone ends as it would without Varvel.
func (n *node) closedOutput() {
	for _, argv := range [][]string{{"yes"}, n.run("bot", "yes")} {
		r, w, err := os.Pipe()
		if err != nil {
			n.t.Fatal(err)
		}
		cmd := n.command(n.t.Context(), alice, argv...)
		cmd.Stdout = w
		n.fork(cmd)
		w.Close()
		_, _ = r.Read(make([]byte, 10))
		r.Close()
		_ = cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		if cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			code = 128 + int(cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
		}
		if code != 128+13 {
			n.t.Errorf("%s ended with %d", argv, code)
		}
	}
}

// backgroundChild: the run is over when its last process is.
func (n *node) backgroundChild() {
	gate := filepath.Join(n.dir, "shared", "gate")
	cmd := n.command(n.t.Context(), alice, n.run("bot", "sh", "-c", "(while ! test -e "+gate+"; do sleep 0.02; done) & exit 3")...)
	n.fork(cmd)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		n.t.Errorf("the command ended with %d", code)
	}
	time.Sleep(200 * time.Millisecond)
	if ids := n.runIDs(); len(ids) != 1 {
		n.t.Errorf("%d runs are alive, not the one with a child in the background", len(ids))
	}
	n.write("shared/gate", "")
	n.eventually("the run ends", func() bool { return len(n.runIDs()) == 0 })
}

func (n *node) atTerminal() {
	x := n.terminal(alice, n.run("bot", "sh", "-c", "test -t 0 && test -t 1 && stty size; read line; echo got:$line; read line; exit 5")...)
	x.types("hello\n")
	x.sees("got:hello")
	x.types("\n")
	if r := x.end(); r.code != 5 {
		n.t.Errorf("at a terminal: %s", r)
	}
	x = n.terminal(alice, n.run("bot", "sh", "-c", "echo here; sleep 60")...)
	x.sees("here")
	x.types("\x03")
	if r := x.end(); r.code != 128+2 {
		n.t.Errorf("Ctrl-C at a terminal: %s", r)
	}
}

func (n *node) summary() {
	quiet := n.run("bot", bin("client"), "act", "send", "x", "tcp4/"+at(v4(hostUnlisted)), "tcp/later.e2e.test:7000")
	if r := n.do(alice, quiet...); r.stderr != "" {
		n.t.Errorf("--quiet: %s", r)
	}
	loud := append(n.varvel("run", "--agent", "bot", "--"), quiet[len(n.run("bot")):]...)
	cmd := append([]string{"env", "DB_PASSWORD=x"}, loud...)
	r := n.do(alice, cmd...)
	contains(n.t, "the summary", r.stderr, "removed from the environment", "DB_PASSWORD", "Refused in this run",
		at(v4(hostUnlisted)), "later.e2e.test", "varvel why run_")
	// A command that ends right after its only refusal is told of it, too.
	for range 10 {
		r := n.do(alice, append(n.varvel("run", "--agent", "bot", "--"), bin("client"), "act", "send", "x", "tcp4/"+at(v4(hostUnlisted)))...)
		if !strings.Contains(r.stderr, at(v4(hostUnlisted))) {
			n.t.Fatalf("the summary lacks the only refusal: %s", r)
		}
	}
}
