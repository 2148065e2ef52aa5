// Varvel-chaos interrupts Varvel at random moments while agents' runs make
// allowed and denied attempts, and judges by what arrives. It is not shipped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"

	"github.com/varvel/varvel/internal/chaos"
	"github.com/varvel/varvel/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err == chaos.ErrFailed {
		os.Exit(1) // the last line is the tally
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "varvel-chaos:", err)
		os.Exit(1)
	}
}

// run is one of the parts of the harness.
func run(ctx context.Context, args []string) error {
	if is, err := chaos.Part(ctx, args); is {
		return err
	}
	if len(args) > 0 && args[0] == chaos.ArgInside {
		return inside(ctx, args[1:])
	}
	if _, err := parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("it loads kernel programs and makes network namespaces, so it needs root: sudo make chaos")
	}
	return rig.Apart(ctx, true, append([]string{chaos.ArgInside}, args...)...)
}

// parse reads the flags.
func parse(args []string) (chaos.Options, error) {
	o := chaos.Options{Output: os.Stdout}
	flags := flag.NewFlagSet("varvel-chaos", flag.ExitOnError)
	flags.StringVar(&o.Bin, "bin", "bin", "folder with varveld and varvel")
	flags.StringVar(&o.Other, "other", "", "folders with other builds of varveld and varvel, separated by commas")
	flags.StringVar(&o.Only, "only", "", "kinds of interruptions, separated by commas; all by default")
	flags.IntVar(&o.N, "n", 500, "how many interruptions")
	flags.Uint64Var(&o.Seed, "seed", rand.Uint64()%1_000_000, "of everything that is random")
	flags.IntVar(&o.Runs, "runs", 0, "runs at the same time; 4, or 200 in a soak")
	flags.BoolVar(&o.Quick, "quick", false, "shorter interruptions")
	flags.DurationVar(&o.Soak, "soak", 0, "instead of interrupting, start and end runs for this long")
	output := flags.String("output", "text", "text or json; as json, the lines for people go to standard error")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "Varvel-chaos interrupts Varvel while runs make attempts, and judges by what arrives.\n\nFlags:\n")
		flags.PrintDefaults()
		fmt.Fprintln(flags.Output(), "\nInterruptions:")
		chaos.ListKinds(flags.Output())
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.JSON = *output == "json"; !o.JSON && *output != "text" {
		return o, fmt.Errorf("-output %q: choose text or json", *output)
	}
	return o, o.Check()
}

// inside does what was asked for.
func inside(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.Soak > 0 {
		return chaos.Soak(ctx, o)
	}
	return chaos.Interrupt(ctx, o)
}
