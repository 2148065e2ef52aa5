package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/varvel/varvel/internal/admin/admintest"
	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/launch"
)

func TestMain(m *testing.M) {
	flag.Bool("write-docs", false, "write docs/cli.md")
	testscript.Main(m, map[string]func(){"varvel": func() { os.Exit(start()) }})
}

// TestScripts runs testdata/script, each against a node of its own. The
// commands of the scripts besides varvel are in commands.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(e *testscript.Env) error { return setup(t, e) },
		Cmds:                scriptCommands(),
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
	})
}

type nodeKey struct{}

// setup starts a node with a run of somebody else, a run of the test's user,
// and one held action of each.
func setup(t *testing.T, e *testscript.Env) error {
	tb := e.T().(testing.TB)
	n := admintest.New(tb, admintest.Files())
	n.Serve(t.Context(), tb)
	theirs := n.AddRun(tb, "run_theirs", "billing-bot", uint32(os.Getuid())+4242, "python3", "bot.py", "--month", "1")
	mine := n.AddRun(tb, "run_mine", "billing-bot", uint32(os.Getuid()), "sh")
	hostile := "POST /v1/refunds\n{\"note\":\"\x1b[2J\x1b[1;1Hvarvel: APPROVED \u202etxt.exe\"}\nstate  granted"
	e.Setenv("THEIRS", n.Hold(tb, theirs, decision.FourEyes, hostile))
	e.Setenv("MINE", n.Hold(tb, mine, decision.Confirm, "DELETE /v1/everything"))
	e.Setenv("VARVEL_SOCKET", n.Socket)
	e.Setenv("AUDIT", n.Log.Dir())
	e.Setenv("CONFIG", n.ConfigDir())
	e.Setenv("TZ", "UTC")
	e.Values[nodeKey{}] = n
	return serveLaunch(t.Context(), e, tb, filepath.Join(n.Dir, "launch.sock"))
}

// serveLaunch answers requests to start something with a refusal.
func serveLaunch(ctx context.Context, e *testscript.Env, tb testing.TB, path string) error {
	l, err := launch.Listen(path)
	if err != nil {
		return err
	}
	n := e.Values[nodeKey{}].(*admintest.Node)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	srv := &launch.Server{Starter: refuser{}, Log: n.Options.Log}
	go func() { done <- srv.Serve(ctx, l) }()
	e.Defer(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return nil
}

type refuser struct{}

func (refuser) Begin(_ context.Context, _ launch.Peer, r launch.StartRequest) (launch.Plan, launch.Handle, error) {
	return launch.Plan{}, nil, launch.Refuse("Agent %s may not run %s here.", r.Agent, strings.Join(r.Argv, " "))
}

func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"unwell": func(ts *testscript.TestScript, _ bool, args []string) {
			node(ts).Health.Set(health.Code(args[0]), strings.Join(args[1:], " "))
		},
		"inrun": func(ts *testscript.TestScript, _ bool, args []string) { node(ts).InRun.Set(args[0], nil) },
		"event": addEvent,
		"noroles": func(ts *testscript.TestScript, _ bool, _ []string) {
			cfg := *node(ts).Config()
			cfg.Node.Roles = map[string]config.Principals{}
			node(ts).SetConfig(&cfg)
		},
		"flip":      flip,
		"nocontrol": noControl,
		"later":     later,
		"await":     await,
	}
}

func node(ts *testscript.TestScript) *admintest.Node { return ts.Value(nodeKey{}).(*admintest.Node) }

// addEvent appends an event: event KIND EFFECT RUN [TARGET].
func addEvent(ts *testscript.TestScript, _ bool, args []string) {
	e := &audit.Event{Kind: audit.Kind(args[0]), Effect: decision.Effect(args[1]), Run: args[2], Agent: "billing-bot"}
	if len(args) > 3 {
		name, err := strconv.Unquote(`"` + args[3] + `"`)
		ts.Check(err)
		e.Target = &audit.Target{Name: name, Port: 443, Protocol: "tcp"}
	}
	ts.Check(node(ts).Log.Append(context.Background(), e, decision.Durable))
}

// later appends an event again and again, until somebody who follows the log
// has surely begun: later RUN.
func later(ts *testscript.TestScript, _ bool, args []string) {
	stop := make(chan struct{})
	ended := make(chan struct{})
	ts.Defer(func() { close(stop); <-ended })
	log := node(ts).Log
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				if err := log.Append(context.Background(), &audit.Event{Kind: audit.KindRunEnd, Run: args[0]}, decision.Appended); err != nil {
					ts.Logf("append: %v", err)
				}
			}
		}
	}()
}

// await waits until a file has a text: await FILE TEXT.
func await(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if text, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(text), args[1]) {
			return
		}
	}
	ts.Fatalf("%s does not get %q", args[0], args[1])
}

// flip changes one byte of the first event that names an agent: flip DIR.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*"))
	ts.Check(err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		ts.Check(err)
		if i := bytes.Index(b, []byte("billing-bot")); i >= 0 {
			b[i] = 'B'
			ts.Check(os.WriteFile(name, b, 0o600))
			return
		}
	}
	ts.Fatalf("no event in %s", args[0])
}

// noControl checks that a file has no byte or character that a terminal obeys.
func noControl(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	for i, r := range text {
		if r != '\n' && !visible(r) {
			ts.Fatalf("%s has %q at byte %d", args[0], r, i)
		}
	}
	if text == "" {
		ts.Fatalf("%s is empty", args[0])
	}
}

// TestEveryCommandHasAnExample keeps the help useful.
func TestEveryCommandHasAnExample(t *testing.T) {
	e := &env{ctx: t.Context(), tui: newTUI(os.Stdout, os.Stderr, time.Now), getenv: func(string) string { return "" }}
	p, _, err := newParser(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Model.Children {
		if !strings.Contains(c.Detail, "Example") || !strings.Contains(c.Detail, "varvel "+c.Name) {
			t.Errorf("%s has no example in its help", c.Name)
		}
		if c.Help == "" || !strings.HasSuffix(c.Help, ".") {
			t.Errorf("%s: the help is no sentence: %q", c.Name, c.Help)
		}
	}
	if n := len(p.Model.Children); n < 14 {
		t.Error(fmt.Sprint(n, " commands"))
	}
}
