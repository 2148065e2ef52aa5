// Command varvel is the operator's tool: it shows what the daemon knows, starts
// runs, and takes people's answers to held actions. Nouns read, verbs write.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(start()) }

// start runs the command of os.Args and returns the exit code.
func start() int {
	e := &env{
		ctx: context.Background(), tui: newTUI(os.Stdout, os.Stderr, time.Now),
		stdin: os.Stdin, getenv: os.Getenv,
	}
	return e.run(os.Args[1:])
}

// env is what commands need of their surroundings.
type env struct {
	ctx    context.Context
	tui    *tui
	stdin  *os.File
	getenv func(string) string
	flags  globals
}

// interruptible returns a context that ends at Ctrl-C or a request to end.
func (e *env) interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(e.ctx, os.Interrupt, syscall.SIGTERM)
}

// run parses args, runs the command and returns its exit code.
func (e *env) run(args []string) int {
	parser, commands, err := newParser(e)
	if err != nil {
		e.tui.failure(err)
		return exitFailure
	}
	if e.complete(parser) {
		return exitOK
	}
	ctx, err := parser.Parse(args)
	e.flags = commands.globals
	if err != nil {
		e.tui.failure(usage(err))
		return usageCode(err)
	}
	if err := ctx.Run(e); err != nil {
		return e.finish(err)
	}
	return exitOK
}
