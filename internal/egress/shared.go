package egress

import (
	"sync"
	"weak"

	"github.com/varvel/varvel/internal/ruleset"
)

// sharedRules keeps equal rule sets once, as long as a plan has them: runs of one
// agent have the same. The zero value is ready to use.
type sharedRules struct {
	mu   sync.Mutex
	byID map[string]weak.Pointer[ruleset.RuleSet]
}

// one returns the rule set with this content.
func (s *sharedRules) one(rs *ruleset.RuleSet) *ruleset.RuleSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.byID[rs.ID].Value(); known != nil {
		return known
	}
	for id, p := range s.byID {
		if p.Value() == nil {
			delete(s.byID, id)
		}
	}
	if s.byID == nil {
		s.byID = map[string]weak.Pointer[ruleset.RuleSet]{}
	}
	s.byID[rs.ID] = weak.Make(rs)
	return rs
}
