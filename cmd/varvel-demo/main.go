// Varvel-demo shows one governed run, end to end, against real servers that it
// starts in network namespaces of its own. It is not shipped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// readyLine is what the servers say when they listen.
const readyLine = "ready\n"

func main() {
	bin := flag.String("bin", "bin", "folder with varveld and varvel")
	servers := flag.String("servers", "", "serve the world of the demo in this folder (used by the demo itself)")
	verbose := flag.Bool("v", false, "show every expectation")
	keep := flag.Bool("keep", false, "keep the folder with the servers' logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	if *servers != "" {
		err = serve(ctx, *servers)
	} else {
		err = show(ctx, *bin, *verbose, *keep)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "varvel-demo:", err)
		os.Exit(1)
	}
}

// serve runs the world's servers until it is told to end.
func serve(ctx context.Context, dir string) error {
	return world.Run(ctx, world.NewPlan(dir), func() error {
		_, err := os.Stdout.WriteString(readyLine)
		return err
	})
}

// The ways in which a demo ends badly.
var (
	errNotHeld     = errors.New("not every expectation held")
	errInterrupted = errors.New("interrupted; everything that was started is gone")
)

// show sets up, walks through the steps, and cleans up whatever happens.
func show(ctx context.Context, bin string, verbose, keep bool) error {
	if err := prerequisites(); err != nil {
		return err
	}
	if err := sweep(ctx); err != nil {
		return fmt.Errorf("remove what an earlier demo has left: %w", err)
	}
	start := time.Now()
	r := &report{out: os.Stdout, colour: terminal(os.Stdout), verbose: verbose}
	fmt.Println("Varvel demo: one governed run against real servers. What held is read from the servers' own logs.")
	d := new(demo)
	err := d.begin(ctx, bin)
	if err == nil {
		err = d.walk(ctx, r)
	}
	if err != nil {
		r.failed++
	}
	if ctx.Err() != nil {
		err = errInterrupted
	}
	keep = keep || r.failed > 0 && err != errInterrupted
	if err := d.end(keep); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	fmt.Printf("%d steps in %.0f s.\n", r.steps, time.Since(start).Seconds())
	if keep && d.work != nil {
		fmt.Printf("The logs are kept in %s.\n", d.plan.File("logs"))
	}
	r.tally()
	if err == nil && r.failed > 0 {
		err = errNotHeld
	}
	return err
}

// prerequisites says in one sentence what is missing.
func prerequisites() error {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces and starts a daemon with kernel programs, so it needs root: sudo ./scripts/demo")
	}
	if err := os.Setenv("PATH", systemPath); err != nil {
		return err
	}
	var absent []string
	for _, program := range []string{"ip", "nsenter", "prometheus", "promtool", "git", "curl", "python3", "node"} {
		if _, err := exec.LookPath(program); err != nil {
			absent = append(absent, program)
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("not installed: %s; ./scripts/demo installs what is missing", strings.Join(absent, ", "))
	}
	return nil
}

func terminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
