// Package testutil helps tests: a TestMain that finds leaks, cgroups, network
// namespaces and capabilities for tests that run as root, and a datapath in
// memory with the suite that every datapath must pass.
package testutil
