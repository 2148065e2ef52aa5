// Package chaos interrupts Varvel at random moments while runs make allowed and
// denied attempts, and judges by what arrives.
//
// Four kinds of processes take part besides the harness, all of them this same
// program:
//
//   - The world, in a network namespace of its own: receivers that take whatever
//     comes, and a name server. It counts, and writes down every leak.
//   - Workers, in runs that varvel run has started. Each makes all kinds of
//     attempts all the time and says in each who it is, of which kind the attempt
//     is and its number.
//   - Outsiders, in no run, which make the same attempts from another address of
//     the node. They must never fail, and show that every receiver works.
//   - The daemon, which is interrupted.
//
// The harness knows Varvel as its users do: by its programs, its files of
// configuration and its signals.
package chaos
