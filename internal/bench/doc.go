// Package bench measures what Varvel costs. Each figure compares an operation
// under Varvel with the same operation without it, in turns, in many short
// rounds, so that what else happens on the machine falls on both alike.
package bench
