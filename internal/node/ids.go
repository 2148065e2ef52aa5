package node

import "github.com/oklog/ulid/v2"

// newID returns a fresh id: the prefix, an underscore and a ULID, which sorts by
// time.
func newID(prefix string) string { return prefix + "_" + ulid.Make().String() }

func newDecisionID() string { return newID("dec") }
