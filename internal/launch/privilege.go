package launch

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// identity is whom a process runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
}

// assume changes every thread of the process to the identity.
func (id identity) assume() error {
	groups := make([]int, len(id.groups))
	for i, g := range id.groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("set supplementary groups: %w", err)
	}
	gid, uid := int(id.gid), int(id.uid)
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("set group %d: %w", gid, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("set user %d: %w", uid, err)
	}
	return nil
}

// securebits keep a program of uid 0 from getting capabilities at execve, and
// any program from ambient ones, for ever (capabilities(7), "The securebits
// flags").
const securebits = 1<<0 | 1<<1 | // SECBIT_NOROOT and its lock
	1<<5 | // SECBIT_KEEP_CAPS_LOCKED
	1<<6 | 1<<7 // SECBIT_NO_CAP_AMBIENT_RAISE and its lock

// giveUpRights makes the calling thread, which must be locked to its goroutine,
// one that runs as id and can never do more than that id without any capability
// may.
func giveUpRights(id identity) error {
	if err := dropBoundingSet(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, securebits, 0, 0, 0); err != nil {
		return fmt.Errorf("lock securebits: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if err := id.assume(); err != nil {
		return err
	}
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return checkRights(id)
}

// dropBoundingSet drops every capability that the kernel knows; it answers
// EINVAL for the first that it does not (PR_CAPBSET_DROP(2const)).
func dropBoundingSet() error {
	for c := uintptr(0); c < 64; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL && c > 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

// checkRights looks whether the thread is what giveUpRights made it. It costs
// little, and a command with rights must never run.
func checkRights(id identity) error {
	var have [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if have != [2]unix.CapUserData{} {
		return errors.New("capabilities are left after all were dropped")
	}
	r, e, s := unix.Getresuid()
	if want := int(id.uid); r != want || e != want || s != want {
		return fmt.Errorf("user ids are %d, %d, %d instead of %d", r, e, s, want)
	}
	r, e, s = unix.Getresgid()
	if want := int(id.gid); r != want || e != want || s != want {
		return fmt.Errorf("group ids are %d, %d, %d instead of %d", r, e, s, want)
	}
	return checkGroups(id)
}

func checkGroups(id identity) error {
	groups, err := unix.Getgroups()
	if err != nil {
		return fmt.Errorf("read groups: %w", err)
	}
	for _, g := range groups {
		if !slices.Contains(id.groups, uint32(g)) {
			return fmt.Errorf("group %d is left", g)
		}
	}
	return nil
}

// retire takes init's own rights away, from all its threads: it becomes the
// caller, without capabilities, and no process of that user can look into it.
func retire(id identity) error {
	if err := id.assume(); err != nil {
		return err
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := &[2]unix.CapUserData{}
	// psx passes numbers on, so what they point to must not move.
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(header)
	pinned.Pin(none)
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(none)), 0)
	if errno != 0 {
		return fmt.Errorf("drop init's capabilities: %w", errno)
	}
	_, _, errno = psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("set no_new_privs for init: %w", errno)
	}
	// Changing user made it so already; suid_dumpable could say otherwise.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide init's memory: %w", err)
	}
	return checkRights(id)
}
