package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"time"
)

// stream uses one unconnected UDP socket: it sends to the address on each line of
// stdin, and says how that went.
func stream(network string) string {
	c, err := net.ListenPacket(network, ":0")
	if err != nil {
		return word(err)
	}
	defer c.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		to, err := net.ResolveUDPAddr(network, lines.Text())
		if err != nil {
			return err.Error()
		}
		if _, err := c.WriteTo([]byte("hello"), to); err != nil {
			fmt.Println(word(err))
			continue
		}
		fmt.Println("ok")
	}
	return ""
}

// route does what resolvers do to sort addresses (RFC 6724): it connects a UDP
// socket and asks for its own address, and sends nothing.
func route(network, address string) string {
	c, err := net.Dial(network, address)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	return "ok " + c.LocalAddr().(*net.UDPAddr).IP.String()
}

// askAll puts a question to each address from one socket of both families, as musl's
// resolver does, and returns the first answer.
func askAll(addresses []string) string {
	c, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return word(err)
	}
	defer c.Close()
	for _, address := range addresses {
		to, err := net.ResolveUDPAddr("udp", address)
		if err != nil {
			return err.Error()
		}
		_, _ = c.WriteTo([]byte("question"), to) // one may be refused
	}
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return word(err)
	}
	buf := make([]byte, 64)
	n, from, err := c.ReadFrom(buf)
	if err != nil {
		return "read " + word(err)
	}
	return string(buf[:n]) + " from " + from.String()
}
