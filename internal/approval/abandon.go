package approval

import "context"

// Abandon records that an action which Ask granted will not be started. It
// implements decision.Approver.
func (s *Store) Abandon(ctx context.Context, id, why string) error {
	return s.Settle(ctx, id, Outcome{Error: why})
}
