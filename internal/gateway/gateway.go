// Package gateway takes the connections that the kernel has redirected from
// runs: to synthetic addresses, to the endpoint's addresses, and to port 53.
// It asks the kernel who is calling and where to, judges, and only then
// resolves and dials.
//
// A name is served in one of two ways. In pass mode bytes go through after the
// TLS server name was checked. In http mode each request is matched to an
// action of the tool, judged, given the tool's credential, and sent on.
//
// What is not understood is refused.
package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// Attributor tells from an accepted socket which cgroup its peer's socket was
// born in, and where the program meant to connect to. An error means that the
// connection did not come through the judged path.
type Attributor interface {
	Attribute(c *net.TCPConn) (cgroupID, cookie uint64, dst netip.AddrPort, err error)
}

// Runs finds live runs; *workload.Registry is one.
type Runs interface {
	ByCgroup(id uint64) (*workload.Run, bool)
}

// Name is what a synthetic address stands for in one run and at one port.
type Name struct {
	Host   string          // lower case, no trailing dot
	Tool   *tool.Tool      // nil: an egress rule
	Within []netip.Prefix  // private ranges that the name may resolve to
	Via    string          // tool.ViaWorkload, or "": dialled from the node's network namespace
	Opaque bool            // an egress rule that lets bytes through that are not TLS
	Rule   decision.Reason // the rule that lists the name, for events; may be empty
}

// Names finds the name behind a synthetic address and port of a run. It
// reports false for everything that the run may not reach by name.
type Names interface {
	Lookup(cgroupID uint64, dst netip.AddrPort) (Name, bool)
	// Admit reports whether a name of a run may be put to name servers, which
	// learn it by that, and the reason if not. Each call may count.
	Admit(cgroupID uint64, host string) (decision.Reason, bool)
}

// Resolver resolves the names of upstreams in the node's namespace. Check
// refuses addresses that no name may lead to, and private ones outside within.
type Resolver interface {
	Resolve(ctx context.Context, host string) ([]netip.Addr, error)
	Check(addr netip.Addr, within []netip.Prefix) error
}

// Dialer connects from the network namespace of a run.
type Dialer interface {
	DialFrom(ctx context.Context, run *workload.Run, to netip.AddrPort) (*net.TCPConn, error)
}

// Decider judges; *decision.Engine is one.
type Decider interface {
	Decide(ctx context.Context, r decision.Request) (decision.Decision, error)
}

// Tokens makes credentials; *broker.Broker is one.
type Tokens interface {
	Token(ctx context.Context, run *workload.Run, t *tool.Tool) (broker.Lease, error)
}

// Settler is told how the one execution of an approved action ended.
type Settler interface {
	Settle(ctx context.Context, approvalID string, o Outcome) error
}

// Handler serves one connection of a run and returns when it is done. It need
// not close the connection. It ends soon after ctx does.
type Handler func(ctx context.Context, c net.Conn, run *workload.Run)

// Options are a Gateway's parts. All are needed except those that say so.
type Options struct {
	Attributor Attributor
	Runs       Runs
	Names      Names
	Resolver   Resolver
	Dialer     Dialer // for names that are dialled from the run's network namespace; nil: they fail
	Decider    Decider
	Tokens     Tokens
	Settler    Settler
	Events     Events
	Endpoint   Handler // for 169.254.170.2:80 and [fd00:ec2::23]:80
	DNS        Handler // for port 53
	Log        *slog.Logger

	MaxConns       int              // in total; default 4096
	MaxConnsPerRun int              // default 256
	HelloTimeout   time.Duration    // for a ClientHello; default 10 s
	DialTimeout    time.Duration    // to resolve and connect; default 15 s
	Now            func() time.Time // default time.Now
}

// Gateway serves redirected connections. It is safe for concurrent use.
type Gateway struct {
	opts       Options
	conns      *limiter
	transports *transports
	unknown    *rate.Limiter // of events about unattributed connections
	unknownNew atomic.Uint64 // those that no event has told of yet
	count      counters
}

// counters are read by Stats.
type counters struct {
	accepted, unattributed, limited, refused, lostEvents atomic.Uint64
}

// Stats are counts since the start, for metrics.
type Stats struct {
	Accepted     uint64 // connections accepted
	Unattributed uint64 // closed at once: of no run
	Limited      uint64 // closed at once: too many
	Refused      uint64 // refused before a decision, connections and requests
	LostEvents   uint64 // events that could not be kept
	Open         int    // connections open now
}

// New returns a Gateway.
func New(opts Options) *Gateway {
	defaultTo(&opts.MaxConns, 4096)
	defaultTo(&opts.MaxConnsPerRun, 256)
	defaultTo(&opts.HelloTimeout, 10*time.Second)
	defaultTo(&opts.DialTimeout, 15*time.Second)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Gateway{
		opts: opts, conns: newLimiter(opts.MaxConns, opts.MaxConnsPerRun),
		transports: newTransports(), unknown: rate.NewLimiter(1, 10),
	}
}

func defaultTo[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Stats returns the counts.
func (g *Gateway) Stats() Stats {
	return Stats{
		Accepted: g.count.accepted.Load(), Unattributed: g.count.unattributed.Load(),
		Limited: g.count.limited.Load(), Refused: g.count.refused.Load(),
		LostEvents: g.count.lostEvents.Load(), Open: g.conns.open(),
	}
}

// Revoke cuts every connection of a run, and refuses those that it has not
// accepted yet.
func (g *Gateway) Revoke(runID string) {
	g.conns.revoke(runID)
	g.transports.drop(runID)
}

// Recheck cuts the connections of a run to names that it may not use any more,
// and returns how many there were. Requests in http mode are looked up one by
// one anyway; this ends what is already on its way.
func (g *Gateway) Recheck(runID string, cgroupID uint64) int {
	return g.conns.cut(runID, func(dst netip.AddrPort) bool {
		if isEndpoint(dst) || dst.Port() == dnsPort {
			return true
		}
		_, ok := g.opts.Names.Lookup(cgroupID, dst)
		return ok
	})
}
