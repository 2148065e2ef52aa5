package launch

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scopesABI is the first version of Landlock with scopes (landlock(7),
// "Landlock ABI versions"), in Linux 6.12.
const scopesABI = 6

// MissingScopes is what Started.Missing and Probe report of a kernel whose
// Landlock has no scopes: abstract unix sockets of the host's processes can be
// connected to. Signals and ptrace stay within the run all the same, because
// its PID namespace has no other process.
const MissingScopes = "landlock-scopes"

// Features is what the kernel offers of the optional controls.
type Features struct {
	LandlockABI int      // 0: no Landlock
	Missing     []string // controls that runs will not have
}

// Probe asks the kernel for the optional controls.
func Probe() Features {
	f := Features{LandlockABI: landlockABI()}
	if f.LandlockABI < scopesABI {
		f.Missing = append(f.Missing, MissingScopes)
	}
	return f
}

// landlockABI returns the version of Landlock that the kernel has enabled, or 0.
func landlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// enterDomain puts the calling thread into a Landlock domain of its own, with
// the scopes for signals and abstract unix sockets. A domain also keeps ptrace
// and what is judged like it (/proc/PID/mem, process_vm_readv) inside. It
// returns what the kernel does not have. no_new_privs must be set.
func enterDomain() (missing []string, err error) {
	missing = Probe().Missing
	if len(missing) > 0 {
		return missing, nil
	}
	attr := unix.LandlockRulesetAttr{Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return nil, fmt.Errorf("make Landlock rule set: %w", errno)
	}
	defer unix.Close(int(fd))
	if _, _, errno = unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return nil, fmt.Errorf("enter Landlock domain: %w", errno)
	}
	return nil, nil
}
