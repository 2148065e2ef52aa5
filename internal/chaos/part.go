package chaos

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Part is what this program does in a role other than the harness. It reports
// whether the arguments name one.
func Part(ctx context.Context, args []string) (bool, error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case ArgWorker:
		signal.Ignore(syscall.SIGHUP)
		return true, Work(ctx, args[1:], os.Stdout)
	case ArgWorld:
		if len(args) != 2 {
			return true, io.ErrUnexpectedEOF
		}
		return true, Serve(ctx, os.Stdin, os.Stdout, args[1])
	case ArgOutsiders:
		return true, Outside(ctx, os.Stdin, os.Stdout)
	}
	return false, nil
}
