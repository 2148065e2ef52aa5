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

// spray sends a datagram to each of the first addresses of a prefix.
func spray(prefix, count string) string {
	to, n := netip.MustParsePrefix(prefix).Addr(), 0
	fmt.Sscan(count, &n)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	sent := 0
	for range n {
		to = to.Next()
		if unix.Sendto(fd, []byte("x"), 0, sockaddr(netip.AddrPortFrom(to, 9).String())) == nil {
			sent++
		}
	}
	return fmt.Sprint("sent ", sent)
}

// again sends datagrams to one address, all from one socket.
func again(how, address, count string) string {
	n := 0
	fmt.Sscan(count, &n)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	if how == "connected" {
		if err := unix.Connect(fd, sockaddr(address)); err != nil {
			return word(err)
		}
	}
	for range n {
		if how == "connected" {
			_, err = unix.Write(fd, []byte("x"))
		} else {
			err = unix.Sendto(fd, []byte("x"), 0, sockaddr(address))
		}
		if err != nil {
			return word(err)
		}
	}
	return "ok"
}
