package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// arrival is something that has reached a receiver.
type arrival struct {
	network string // tcp, udp or dns
	from    netip.Addr
	to      netip.AddrPort
	payload string // what was sent, or the name that was asked for; "" for a connection by itself
}

// leak is an arrival that should not have been.
type leak struct {
	Time    time.Time `json:"time"`
	Why     string    `json:"why"`
	Network string    `json:"network"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Payload string    `json:"payload,omitempty"`
}

func (l leak) String() string {
	return fmt.Sprintf("%s: %s from %s to %s: %q", l.Why, l.Network, l.From, l.To, l.Payload)
}

// counts is what has arrived by who sent it and by flow.
type counts map[string]map[string]uint64

func (c counts) add(who, flow string) {
	if c[who] == nil {
		c[who] = map[string]uint64{}
	}
	c[who][flow]++
}

// order asks the world what has arrived from some runs, or the outsiders what
// they have done.
type order struct {
	Of []string `json:"of,omitempty"`
}

func (order) String() string { return "say what has happened" }

// arrived is the world's answer.
type arrived struct {
	Allowed  map[string]uint64 `json:"allowed"`  // from runs, by flow
	From     counts            `json:"from"`     // the same, of the runs that were asked for
	Controls map[string]uint64 `json:"controls"` // from outsiders, by flow
	Leaked   uint64            `json:"leaked"`
	First    []leak            `json:"first"` // of the leaks
}

// ledger is what has arrived.
type ledger struct {
	mu      sync.Mutex
	allowed map[string]bool // by flow
	arrived arrived
	from    counts
	log     io.Writer // every leak, a JSON object a line
}

func newLedger(log io.Writer) *ledger {
	l := &ledger{allowed: map[string]bool{}, from: counts{}, log: log}
	for _, f := range flows() {
		l.allowed[f.name] = f.allowed
	}
	l.arrived.Allowed, l.arrived.Controls = map[string]uint64{}, map[string]uint64{}
	return l
}

// add judges an arrival and counts it.
func (l *ledger) add(a arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent, readable := readAttempt(a.payload)
	if hostAt(a.from) == hostOutsiders {
		if readable {
			l.arrived.Controls[sent.Flow]++
		}
		return
	}
	if why := l.judge(a, sent, readable); why != "" {
		l.leak(a, why)
		return
	}
	if readable {
		l.arrived.Allowed[sent.Flow]++
		l.from.add(sent.Who, sent.Flow)
	}
}

// judge says why an arrival from the governed side is a leak, "" if it is none.
func (l *ledger) judge(a arrival, sent attempt, readable bool) string {
	host := hostAt(a.to.Addr())
	switch {
	case a.network == "dns":
		return judgeQuestion(a.payload)
	case host == hostUnlisted:
		return "the address is unlisted"
	case a.to.Port() != port:
		return "the port is unlisted"
	case a.payload == "":
		return ""
	case !readable:
		return "nobody sends that"
	case !l.allowed[sent.Flow]:
		return "such an attempt is to be refused"
	}
	want := byte(hostListed)
	if sent.Flow == flowName || sent.Flow == flowRemembered {
		want = hostOf(sent.Agent)
	}
	if host != want {
		return "it leads elsewhere"
	}
	return ""
}

// judgeQuestion knows the names that the daemon may ask for.
func judgeQuestion(name string) string {
	if name == nameOf(alpha) || name == nameOf(beta) {
		return ""
	}
	return "the name is unlisted"
}

func (l *ledger) leak(a arrival, why string) {
	found := leak{time.Now().UTC(), why, a.network, a.from.String(), a.to.String(), strings.TrimSpace(a.payload)}
	l.arrived.Leaked++
	if len(l.arrived.First) < maxTold {
		l.arrived.First = append(l.arrived.First, found)
	}
	// A log that cannot be written would hide a leak's details, not the leak.
	_ = json.NewEncoder(l.log).Encode(found)
}

// report is what has arrived so far.
func (l *ledger) report(o order) (arrived, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.arrived
	out.From = counts{}
	for _, who := range o.Of {
		out.From[who] = l.from[who]
	}
	// Encoded after the lock is free, so copied.
	raw, err := json.Marshal(out)
	if err != nil {
		return arrived{}, err
	}
	var copied arrived
	return copied, json.Unmarshal(raw, &copied)
}
