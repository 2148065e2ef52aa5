// Package rig is what the benchmarks and the chaos harness stand on: processes
// that listen to orders, a network of two machines with one wire, and a daemon
// that is started, watched and stopped. It is not shipped.
package rig
