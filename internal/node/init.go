package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/launch"
)

// runInit is the program that is the first process of runs.
type runInit struct {
	program *os.File // nil: this one
	why     error    // why it is this one
}

// findInit looks beside this program for the one that is smaller and starts faster.
// Without it, runs are the same, and their start takes longer.
func (n *node) findInit(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	n.runInit.program, n.runInit.why = launch.FindInit(ctx, filepath.Dir(self))
	if n.runInit.why != nil {
		n.Log.Warn("runs begin with this program instead of "+launch.InitProgram+", which takes longer", "reason", n.runInit.why)
		return nil
	}
	n.onStop(n.runInit.program.Close)
	return nil
}

// control tells operators which program it is.
func (i runInit) control() api.Control {
	if i.why != nil {
		return api.Control{Name: launch.InitProgram, Detail: fmt.Sprintf("starts take longer, and runs are confined all the same: varveld is its own init, because %v", i.why)}
	}
	return api.Control{Name: launch.InitProgram, Active: true, Detail: "the first process of a run is a small program"}
}
