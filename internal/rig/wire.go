package rig

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// Wire lays a wire, called "wire" at both ends, from this network namespace to a
// process's. Then it gives each end what it needs: lines of ip(8).
func Wire(ctx context.Context, pid int, here, there []string) error {
	name := strconv.Itoa(pid)
	here = append([]string{
		"link set lo up",
		"link add wire type veth peer name wire netns " + name,
		"link set wire up",
	}, here...)
	there = append([]string{"link set lo up", "link set wire up"}, there...)
	if err := batch(ctx, nil, here); err != nil {
		return err
	}
	return batch(ctx, []string{"nsenter", "--net=/proc/" + name + "/ns/net", "--"}, there)
}

// Unwire takes the wire away. The kernel does that by itself only some time
// after the last process of a namespace.
func Unwire(ctx context.Context) error { return Command(ctx, "ip", "link", "delete", "wire") }

// batch runs commands of ip(8) behind a prefix.
func batch(ctx context.Context, prefix, lines []string) error {
	// A machine may have IPv6 switched off for new namespaces, or not have it.
	argv := append(prefix, "sh", "-c",
		"{ echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6; } 2>/dev/null || true; exec ip -batch -")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if err := run(cmd); err != nil {
		return fmt.Errorf("make the network: %w", err)
	}
	return nil
}
