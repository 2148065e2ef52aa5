package config

import (
	"math"
	"strconv"
	"strings"
)

// Wildcards bound what one run of an agent can have asked below the names that its
// wildcards allow, because who serves such a zone reads it. The zero value of a field
// means the default of egress.Limits.
type Wildcards struct {
	Label   int     // bytes of one label before the name after the wildcard
	Length  int     // bytes of all of them
	Entropy float64 // bits a character of a long word
	Rate    int     // new names a second
	Burst   int     // new names at once
	Names   int     // different names an hour
}

// Limits of the agent's settings: what DNS can have (RFC 1035, section 2.3.4), and
// what a run is made to remember.
const (
	maxWildLabel   = 63
	maxWildLength  = 253
	maxWildEntropy = 8
	maxWildRate    = 1000
	maxWildNames   = 4096
)

func (r *reader) wildcards(to *Wildcards) field {
	number := func(to *int, high int) field {
		return r.scalar("a whole number", keep(to, numberIn(1, high)))
	}
	return r.part(fields{
		"label":   number(&to.Label, maxWildLabel),
		"length":  number(&to.Length, maxWildLength),
		"entropy": r.scalar("a number", keep(&to.Entropy, decimalIn(1, maxWildEntropy))),
		"rate":    number(&to.Rate, maxWildRate),
		"burst":   number(&to.Burst, maxWildNames),
		"names":   number(&to.Names, maxWildNames),
	})
}

// decimalIn returns a parser of decimal fractions between two limits.
func decimalIn(low, high float64) func(string) (float64, error) {
	show := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	return func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || strings.Trim(s, "0123456789.") != "" || math.IsInf(v, 0) {
			return 0, problem("write digits, with a point if there is a fraction: 4.1", "%q is not a decimal number", s)
		}
		return v, between(s, v, low, high, show)
	}
}
