package egress

import (
	"math"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/varvel/varvel/internal/decision"
)

const (
	minMeasured    = 28   // a shorter word says too little for its entropy to be measured
	maxWildHosts   = 4096 // names that are remembered as seen
	secondsPerHour = 3600
)

// budget bounds the names below wildcards that one run can have put to the node's
// name servers, because whoever serves the zone reads them. It is safe for
// concurrent use.
type budget struct {
	mu       sync.Mutex    // guards what is below
	limits   Limits        // that it was made of
	rate     *rate.Limiter // new names
	distinct *rate.Limiter // new names, in the long run
	seen     map[string]struct{}
}

func newBudget(l Limits) *budget {
	return &budget{limits: l, rate: perSecond(l), distinct: perHour(l), seen: map[string]struct{}{}}
}

func perSecond(l Limits) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(l.WildRate), l.WildBurst)
}

func perHour(l Limits) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(float64(l.WildNames)/secondsPerHour), l.WildNames)
}

// set changes the limits. What was spent stays spent.
func (b *budget) set(l Limits) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limits == l {
		return
	}
	b.limits = l
	b.rate, b.distinct = moved(b.rate, perSecond(l)), moved(b.distinct, perHour(l))
}

// moved returns a new limiter from which is taken what was taken from the old one.
func moved(old, limiter *rate.Limiter) *rate.Limiter {
	spent := int(math.Ceil(float64(old.Burst()) - old.Tokens()))
	limiter.AllowN(time.Now(), min(max(spent, 0), limiter.Burst()))
	return limiter
}

// tunnels reports whether the part of a name below a wildcard looks as if it were
// made to carry data, and by which measure.
func (b *budget) tunnels(part string) (decision.Reason, bool) {
	b.mu.Lock()
	l := b.limits
	b.mu.Unlock()
	return l.tunnels(part)
}

// spend admits a name. One that was seen before is free: asking for it again tells
// nobody anything new.
func (b *budget) spend(host string) (decision.Reason, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.seen[host]; ok {
		return decision.Reason{}, true
	}
	if !b.rate.Allow() {
		return reasonWildRate(), false
	}
	if !b.distinct.Allow() {
		return reasonWildNames(), false
	}
	if len(b.seen) >= maxWildHosts {
		clear(b.seen) // they cost again what they have cost before
	}
	b.seen[host] = struct{}{}
	return decision.Reason{}, true
}

// wild returns what stands before the name after the wildcard that lets a host
// be reached: the longest such name counts. It reports false for hosts that are
// listed exactly, and those that are not listed.
func (t *nameTable) wild(host string) (part string, ok bool) {
	if _, exact := t.exact[host]; exact {
		return "", false
	}
	found := t.covering(host)
	if len(found) == 0 {
		return "", false
	}
	_, base := splitWildcard(found[0].pattern)
	return strings.TrimSuffix(host, "."+base), true
}

func (l Limits) tunnels(part string) (decision.Reason, bool) {
	if len(part) > l.WildLength {
		return reasonWildLength(), true
	}
	for label := range strings.SplitSeq(part, ".") {
		if len(label) > l.WildLabel {
			return reasonWildLength(), true
		}
		// People and providers join words by hyphens, encoders don't.
		for word := range strings.SplitSeq(label, "-") {
			if len(word) >= minMeasured && entropy(word) > l.WildEntropy {
				return reasonWildEntropy(), true
			}
		}
	}
	return decision.Reason{}, false
}

// entropy is Shannon's, of the characters of a word, in bits a character.
func entropy(word string) float64 {
	var count [256]int
	for i := range len(word) {
		count[word[i]]++
	}
	bits := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(word))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// admit says whether a listed name may be put to the node's name servers, and
// counts it. Names that are listed exactly may always.
func (s *runState) admit(host string) (decision.Reason, bool) {
	_, plan := s.current()
	if _, wild := plan.names.wild(host); !wild {
		return decision.Reason{}, true
	}
	return s.budget.spend(host)
}

// Admit says whether the gateway may put a name of a run to the node's name
// servers, and by which reason not. Of names below a wildcard a run has a budget.
func (c *Controller) Admit(cgroupID uint64, host string) (decision.Reason, bool) {
	state, ok := c.state(cgroupID)
	if !ok {
		return reasonUnlisted(), false
	}
	reason, ok := state.admit(host)
	run, _ := state.current()
	return reason, ok || run.Mode == decision.ModeObserve
}

func reasonWildLength() decision.Reason {
	return decision.Reason{Rule: "name.length", Text: "What stands before the name after the wildcard is longer than names are that are not made to carry data."}
}

func reasonWildEntropy() decision.Reason {
	return decision.Reason{Rule: "name.entropy", Text: "What stands before the name after the wildcard looks like encoded data."}
}

func reasonWildRate() decision.Reason {
	return decision.Reason{Rule: "name.rate", Text: "The run asks for new names below a wildcard too fast."}
}

func reasonWildNames() decision.Reason {
	return decision.Reason{Rule: "name.distinct", Text: "The run has had as many different names below wildcards resolved as it may in an hour."}
}
