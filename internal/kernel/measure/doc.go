// Package measure helps to say what Varvel's kernel programs cost: do-nothing
// programs for the same hooks, and system calls with nothing around them. It is
// not part of what is shipped.
package measure
