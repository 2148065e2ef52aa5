package bench

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// printConditions says where and how it was measured.
func printConditions(w io.Writer, o Options) {
	var u unix.Utsname
	release := "unknown"
	if err := unix.Uname(&u); err == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	cpu, load := "unknown CPU", "unknown"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		cpu = field(string(raw), "model name")
	}
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(raw), " ")
	}
	fmt.Fprintf(w, "# Linux %s, %s, %d CPUs, load %s, %s\n", release, cpu, runtime.NumCPU(), load, runtime.Version())
	if o.Quick {
		fmt.Fprintln(w, "# quick: too few rounds for numbers that mean something")
	}
	fmt.Fprintf(w, "# %-22s %12s %-5s %8s %12s\n", "name", "value", "unit", "ratio", "baseline")
}

// field returns the value of the first line "name : value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
