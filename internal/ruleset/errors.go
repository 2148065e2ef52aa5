package ruleset

import "errors"

// What a datapath answers when it has no room.
var (
	ErrFull  = errors.New("the kernel's table is full")
	ErrShare = errors.New("the run has its share of the kernel's table")
)
