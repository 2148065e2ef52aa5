// Varveld is the node agent: it starts agents' runs, governs what they reach,
// hands out their credentials, asks people about risky actions, and records it
// all.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/mdlayher/sdnotify"

	"github.com/varvel/varvel/internal/keeper"
	"github.com/varvel/varvel/internal/launch"
	"github.com/varvel/varvel/internal/node"
)

func main() {
	launch.InitMain() // does not return in the init of a run
	keeper.Main()     // nor in the keeper
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "varveld:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("varveld", flag.ExitOnError)
	dir := flags.String("config", "/etc/varvel", "directory with varvel.yaml, agents.d and tools.d")
	level := flags.String("log-level", "info", "debug, info, warn or error")
	format := flags.String("log-format", "text", "text or json")
	version := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "Varveld is Varvel's node agent. It needs root.\n\n"+
			"  varveld --config /etc/varvel\n\n"+
			"Check a configuration first with: varvel check /etc/varvel\n"+
			"SIGHUP reads it again. SIGTERM ends the daemon and its runs. SIGUSR2 ends the daemon\n"+
			"and leaves its runs to the next one, for an upgrade: they stay governed and wait.\n\nFlags:\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; varveld takes flags only, see --help", flags.Arg(0))
	}
	if *version {
		fmt.Println("varveld", buildVersion())
		return nil
	}
	log, err := logger(*level, *format)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	handOver := make(chan os.Signal, 1)
	signal.Notify(handOver, syscall.SIGUSR2)
	return node.Run(ctx, node.Options{
		ConfigDir: *dir, Version: buildVersion(), Log: log, Ready: ready, Hangup: reload, HandOver: handOver,
	})
}

func logger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: choose debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: choose text or json", format)
}

// ready tells systemd, if it started us (sd_notify(3)).
func ready() {
	if n, err := sdnotify.New(); err == nil {
		_ = n.Notify(sdnotify.Ready)
		_ = n.Close()
	}
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
