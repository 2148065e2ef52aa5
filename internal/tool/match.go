package tool

import (
	"slices"

	"github.com/varvel/varvel/internal/decision"
)

// Match finds the action that a request is. The path is the request's path in
// percent-encoded form, without query; see SplitPath for what is refused. If
// several actions match, the highest risk wins; among equal risks the most
// specific template, then the one that is written first. Methods are compared
// exactly (RFC 9110 section 9.1: they are case-sensitive).
func (t *Tool) Match(method, path string) (Action, bool) {
	segments, err := SplitPath(path)
	if err != nil {
		return Action{}, false
	}
	best := -1
	for i, a := range t.Actions {
		if !slices.Contains(a.HTTP.Methods, method) || !a.HTTP.Path.matches(segments) {
			continue
		}
		if best < 0 || beats(a, t.Actions[best]) {
			best = i
		}
	}
	if best < 0 {
		return Action{}, false
	}
	return t.Actions[best], true
}

// beats reports whether a is preferred to b, which comes first in the file.
func beats(a, b Action) bool {
	if ra, rb := riskRank(a.Risk), riskRank(b.Risk); ra != rb {
		return ra > rb
	}
	return a.HTTP.Path.moreSpecific(b.HTTP.Path)
}

// riskRank orders risks. What is unknown is the highest, because it is denied.
func riskRank(r decision.Risk) int {
	switch r {
	case decision.RiskRead:
		return 0
	case decision.RiskWrite:
		return 1
	case decision.RiskIrreversible:
		return 2
	default:
		return 3
	}
}
