package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"
)

// hammer tries a listed and an unlisted address over TCP and UDP, again and again,
// until its stdin ends. It says how often it was let through and refused, as
// "listed/refused unlisted/refused", and the last error about a listed one.
func hammer(tcpYes, tcpNo, udpYes, udpNo string) string {
	fmt.Println("hammering")
	var stop atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	var yes, yesRefused, no, noRefused int
	last := "-"
	count := func(err error, all, refused *int) {
		*all++
		if err != nil {
			*refused++
		}
	}
	for !stop.Load() {
		for _, listed := range []error{connect(tcpYes), datagram(udpYes)} {
			count(listed, &yes, &yesRefused)
			if listed != nil {
				last = word(listed)
			}
		}
		count(connect(tcpNo), &no, &noRefused)
		count(datagram(udpNo), &no, &noRefused)
	}
	return fmt.Sprintf("%d/%d %d/%d %s\n", yes, yesRefused, no, noRefused, last)
}

// connect makes a connection and drops it with a reset, so that its port is free.
func connect(address string) error {
	c, err := net.DialTimeout("tcp4", address, 2*time.Second)
	if err != nil {
		return err
	}
	c.(*net.TCPConn).SetLinger(0)
	return c.Close()
}

func datagram(address string) error {
	to, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo([]byte("x"), to)
	return err
}

func spawn(count string) string {
	n, _ := strconv.Atoi(count)
	for range n {
		if err := exec.Command("/proc/self/exe", "nothing").Run(); err != nil {
			return err.Error()
		}
	}
	return "ok"
}
