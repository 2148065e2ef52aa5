package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// flood connects UDP sockets from two threads, and says how often that was
// refused.
func flood(address string) string {
	var refused atomic.Int64
	var stop atomic.Bool
	var threads sync.WaitGroup
	for range 2 {
		threads.Go(func() {
			for !stop.Load() {
				refused.Add(connects(sockaddr(address), 1000))
			}
		})
	}
	io.Copy(io.Discard, os.Stdin)
	stop.Store(true)
	threads.Wait()
	return fmt.Sprintln("refused", refused.Load())
}

func connects(to unix.Sockaddr, n int) (refused int64) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	for range n {
		if unix.Connect(fd, to) == unix.EPERM {
			refused++
		}
	}
	return refused
}

// sockets says how often a socket could not be made, and why.
func sockets(count string) string {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err.Error()
	}
	refused := 0
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err == nil {
			unix.Close(fd)
			continue
		}
		if err != unix.EPERM {
			return word(err)
		}
		refused++
	}
	return fmt.Sprint("refused ", refused)
}

// distinct connects to count ports, from that of the address on, so that no two
// refusals are alike.
func distinct(address, count string) string {
	to := netip.MustParseAddrPort(address)
	n, err := strconv.Atoi(count)
	if err != nil {
		return err.Error()
	}
	var refused int64
	for i := range n {
		refused += connects(sockaddr(netip.AddrPortFrom(to.Addr(), to.Port()+uint16(i)).String()), 1)
	}
	return fmt.Sprint("refused ", refused)
}
