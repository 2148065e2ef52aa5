// Package audit keeps the record of what happened on a node: one append-only,
// hash-chained log of events in segment files.
//
// An event is kept with one of two promises. Appended means that write(2) has
// taken it, so that it survives the death of the daemon. Durable means that
// fsync(2) has returned after that, so that it survives power loss. Callers
// that wait for durability at the same time share one fsync, and nobody who
// only wants Appended waits for it.
//
// One goroutine writes, one makes durable, and readers work on the files, in
// this process or in another. The format is described in docs/audit.md, in
// enough detail to write an independent verifier.
package audit
