// Varvel-bench measures what Varvel costs, and writes bench/results.json. It is
// not shipped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/varvel/varvel/internal/bench"
	"github.com/varvel/varvel/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "varvel-bench:", err)
		os.Exit(1)
	}
}

// run is one of the parts of the benchmark.
func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case bench.ArgWorker:
			cpu, err := strconv.Atoi(args[len(args)-1])
			if err != nil {
				return err
			}
			return bench.Work(os.Stdin, os.Stdout, cpu)
		case bench.ArgWorld:
			return bench.Serve(ctx, os.Stdin, os.Stdout)
		case bench.ArgInside:
			return inside(ctx, args[1:])
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("it loads kernel programs and makes network namespaces, so it needs root: sudo make bench")
	}
	return rig.Apart(ctx, false, append([]string{bench.ArgInside}, args...)...)
}

// inside measures.
func inside(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("varvel-bench", flag.ExitOnError)
	o := bench.Options{Output: os.Stdout}
	flags.StringVar(&o.Bin, "bin", "bin", "folder with varveld and varvel")
	flags.StringVar(&o.Only, "only", "", "names of figures, separated by commas; all by default")
	flags.BoolVar(&o.Quick, "quick", false, "few rounds: shows that it works, not how fast it is")
	out := flags.String("out", filepath.Join("bench", "results.json"), "file to write; figures that are not measured stay as they are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	results, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	return bench.Save(*out, results)
}
