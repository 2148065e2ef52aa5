package bench

// layerBenches compare a system call in a run with the same outside of any. What
// a run has more: the programs on the hooks, seccomp, Landlock, its namespaces.
func layerBenches() []nodeBench {
	const against = "the same outside of any run"
	bench := func(figure string, rounds int, o order, note string) nodeBench {
		return nodeBench{[]nodeFigure{{figure, "ns", against, note}}, rounds, o, o}
	}
	return []nodeBench{
		bench("udp_sendto_inside", 200, sendtoOrder(), "64 bytes to an address that a range allows; the destination is judged with each"),
		bench("udp_send_inside", 200, sendOrder(), "64 bytes on a connected socket"),
		bench("accept_inside", 200, acceptOrder(), "socket, connect, accept and reset on loopback, which only the run itself can do"),
		bench("exec_inside", 100, order{Op: "exec", N: 10}, "fork, exec and exit of true"),
		bench("fork_inside", 100, forkOrder(), "fork and exit"),
		bench("open_inside", 200, openOrder(), "open and close"),
	}
}
