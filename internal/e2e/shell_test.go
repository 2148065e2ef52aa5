package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// shell is a live run that does what the test tells it.
type shell struct {
	n      *node
	cmd    *exec.Cmd
	in     io.WriteCloser
	cancel context.CancelFunc
	prefix string
	number int
}

// shell starts sh as a run of an agent.
func (n *node) shell(agent string) *shell {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	dir, err := os.MkdirTemp(filepath.Join(n.dir, "shared"), "shell-")
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		n.t.Fatal(err)
	}
	s := &shell{n: n, cmd: n.command(ctx, alice, n.run(agent, "sh")...), cancel: cancel, prefix: filepath.Join(dir, "out")}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		n.t.Fatal(err)
	}
	n.fork(s.cmd)
	n.t.Cleanup(s.end)
	return s
}

// end closes the shell's input and waits for the end of the run.
func (s *shell) end() {
	s.in.Close()
	_ = s.cmd.Wait()
	s.cancel()
}

// do carries out a command in the run.
func (s *shell) do(argv ...string) result {
	s.n.t.Helper()
	s.number++
	out := fmt.Sprintf("%s-%d", s.prefix, s.number)
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	fmt.Fprintf(s.in, "%s >%s.out 2>%s.err </dev/null; echo $? >%s.new; mv %s.new %s.code\n",
		strings.Join(quoted, " "), out, out, out, out, out)
	var code []byte
	s.n.eventually("the run's "+argv[0], func() bool {
		var err error
		code, err = os.ReadFile(out + ".code")
		return err == nil
	})
	var r result
	r.code, _ = strconv.Atoi(strings.TrimSpace(string(code)))
	b, _ := os.ReadFile(out + ".out")
	r.stdout = string(b)
	b, _ = os.ReadFile(out + ".err")
	r.stderr = string(b)
	return r
}
