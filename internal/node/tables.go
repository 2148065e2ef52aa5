package node

import (
	"context"
	"errors"
	"strings"

	"github.com/varvel/varvel/internal/admin/health"
)

// watchTables turns tables of the kernel without room into the health of the node.
func (n *node) watchTables(ctx context.Context) error {
	return every(ctx, watchInterval, n.lookAtTables)
}

// lookAtTables tries whether each table takes another entry: the finding is there as
// long as one does not, whoever fills it.
func (n *node) lookAtTables() {
	full, err := n.kernel.FullTables()
	if err != nil {
		n.Log.Error("whether the kernel's tables have room is not known", "error", err)
		return
	}
	n.finding(health.KernelMapFull, errors.New("no room in: "+strings.Join(full, ", ")), len(full) > 0)
}
