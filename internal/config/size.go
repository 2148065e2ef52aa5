package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ByteSize is a number of bytes.
type ByteSize int64

type unit struct {
	name  string
	bytes int64
}

// sizeUnits returns the units of sizes, larger first.
func sizeUnits() []unit {
	return []unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
		{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
	}
}

// String returns the size with the largest binary unit that divides it.
func (s ByteSize) String() string {
	for _, u := range sizeUnits() {
		if strings.HasSuffix(u.name, "iB") && s != 0 && int64(s)%u.bytes == 0 {
			return fmt.Sprintf("%d%s", int64(s)/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

// parseSize reads a whole number with a unit, as in 64MiB.
func parseSize(s string) (ByteSize, error) {
	digits := strings.TrimRight(s, "BKMGTikb")
	name := s[len(digits):]
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, errors.New("not a whole number with a unit")
	}
	for _, u := range sizeUnits() {
		if u.name != name {
			continue
		}
		if int64(n) > math.MaxInt64/u.bytes {
			return 0, errors.New("too large")
		}
		return ByteSize(int64(n) * u.bytes), nil
	}
	return 0, errors.New("no known unit")
}

// parseDuration reads a Go duration, or a whole number of days, as in 30d.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, errors.New("not a whole number of days")
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(s)
}
