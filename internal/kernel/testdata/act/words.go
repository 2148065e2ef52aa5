package main

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// word names an error.
func word(err error) string {
	for errno, name := range map[syscall.Errno]string{
		syscall.EPERM: "EPERM", syscall.ECONNREFUSED: "ECONNREFUSED", syscall.EACCES: "EACCES",
		syscall.ENETUNREACH: "ENETUNREACH", syscall.EPROTONOSUPPORT: "EPROTONOSUPPORT",
		syscall.ECONNRESET: "ECONNRESET", syscall.EAGAIN: "timeout", syscall.EINPROGRESS: "timeout",
		syscall.EADDRINUSE: "EADDRINUSE",
	} {
		if errors.Is(err, errno) {
			return name
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "timeout"
	}
	return err.Error()
}

func sockaddr(s string) unix.Sockaddr {
	a := netip.MustParseAddrPort(s)
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

func uintptrOf(b *[16]byte) uintptr { return uintptr(unsafe.Pointer(b)) }
