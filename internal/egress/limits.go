package egress

import (
	"time"

	"github.com/varvel/varvel/internal/config"
)

// Limits bound what one run can make the DNS server do. The zero value of a
// field means the default.
type Limits struct {
	Names       int           // names with an address; default 4096
	Queries     float64       // questions a second; default 2000
	QueryBurst  int           // questions at once; default 4000
	Events      float64       // events of refused names a second; default 5
	EventBurst  int           // such events at once; default 100
	Connections int           // TCP connections at once; default 64
	Pipeline    int           // questions on one TCP connection; default 1000
	Idle        time.Duration // until a silent TCP connection is closed; default 10 s
	Leases      int           // addresses times ports that are open for direct names; default 2048
	WildNames   int           // different names below wildcards that are resolved in an hour; default 512
	WildRate    float64       // such names a second; default 5
	WildBurst   int           // such names at once; default 100
	WildLabel   int           // bytes of one label before the name after a wildcard; default 52
	WildLength  int           // bytes of all of them; default 110
	WildEntropy float64       // bits a character of a word there that is long enough to measure; default 4.1
	Tasks       int           // datagrams at once that need more than a look-up, such as refusals; default 64
}

// with returns l with what an agent's configuration says of wildcards.
func (l Limits) with(w config.Wildcards) Limits {
	override(&l.WildNames, w.Names)
	override(&l.WildRate, float64(w.Rate))
	override(&l.WildBurst, w.Burst)
	override(&l.WildLabel, w.Label)
	override(&l.WildLength, w.Length)
	override(&l.WildEntropy, w.Entropy)
	return l
}

func override[T comparable](field *T, value T) {
	var zero T
	if value != zero {
		*field = value
	}
}

// orDefaults returns l with its zero fields filled in.
func (l Limits) orDefaults() Limits {
	setDefault(&l.Names, 4096)
	setDefault(&l.Queries, 2000)
	setDefault(&l.QueryBurst, 4000)
	setDefault(&l.Events, 5)
	setDefault(&l.EventBurst, 100)
	setDefault(&l.Connections, 64)
	setDefault(&l.Pipeline, 1000)
	setDefault(&l.Idle, 10*time.Second)
	setDefault(&l.Tasks, 64)
	setDefault(&l.Leases, 2048)
	setDefault(&l.WildNames, 512)
	setDefault(&l.WildRate, 5)
	setDefault(&l.WildBurst, 100)
	// They let through what providers make (UUIDs, digests in hex of 40 digits, load
	// balancers of 49 characters), and stop what is only made to carry data: hex has 4
	// bits a character at most, base32 of 40 characters about 4.5.
	setDefault(&l.WildLabel, 52)
	setDefault(&l.WildLength, 110)
	setDefault(&l.WildEntropy, 4.1)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
