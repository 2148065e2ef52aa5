// Package world is the outside that the demo's agent meets: a name server, an
// HTTPS server that two names share, a git server that demands a token, and a
// host that nobody is allowed to reach. Each writes down what it received. The
// demo believes these logs, and not what Varvel says about itself.
package world
