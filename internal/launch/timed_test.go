package launch

import "time"

// timed returns how long do takes, in nanoseconds.
func timed(do func()) int64 {
	start := time.Now()
	do()
	return int64(time.Since(start))
}
