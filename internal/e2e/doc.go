// Package e2e tests Varvel as its users meet it: the real daemon and the real
// command line tool, with real programs as workloads, in network namespaces that
// belong to one test each. What was allowed and what was not is judged by what
// the servers received. It has nothing but tests.
package e2e
