package egress

import "time"

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
	Tasks       int           // datagrams at once that need more than a look-up, such as refusals; default 64
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
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
