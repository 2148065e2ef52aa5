package node

import (
	"context"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

// degraded says that something is wrong: in health, and so in metrics and the
// log, and once in the record.
func (n *node) degraded(code health.Code, detail string) {
	if n.health.Set(code, detail) {
		n.recordHealth(code, "degraded", detail)
	}
}

// well says that it is right again.
func (n *node) well(code health.Code) {
	if n.health.Clear(code) {
		n.recordHealth(code, "well", "")
	}
}

func (n *node) recordHealth(code health.Code, activity audit.Activity, detail string) {
	if n.log == nil {
		return // not open yet, or what is wrong is the record itself
	}
	e := &audit.Event{Kind: audit.KindHealth, Activity: activity, Component: string(code), Message: detail}
	if err := n.log.Append(context.Background(), e, decision.Appended); err != nil {
		n.Log.Error("a change of health was not recorded", "code", code, "error", err)
	}
}
