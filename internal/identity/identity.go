// Package identity says who acts in a run: the machine account of its agent, and
// the local user whose process asked for it, as the kernel vouches for that.
package identity

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"github.com/varvel/varvel/internal/decision"
)

// maxPath is how long the path of a SPIFFE ID may be here; the whole ID may have
// 2048 bytes (SPIFFE-ID, section 2.3).
const maxPath = 255

// Account returns the machine account of an agent, a SPIFFE ID that is the same
// for ever: spiffe://TRUST_DOMAIN/agent/NAME. It is an error if one of the parts
// has characters that a SPIFFE ID may not have (SPIFFE-ID, sections 2.1 and 2.2).
func Account(trustDomain, agent string) (string, error) {
	if !valid(trustDomain, "abcdefghijklmnopqrstuvwxyz0123456789.-_", maxPath) {
		return "", fmt.Errorf("%q is not a trust domain of SPIFFE: lower-case letters, digits, dots, hyphens and underscores", trustDomain)
	}
	if !valid(agent, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", maxPath) || agent == "." || agent == ".." {
		return "", fmt.Errorf("%q cannot be part of a SPIFFE ID: letters, digits, dots, hyphens and underscores", agent)
	}
	return "spiffe://" + trustDomain + "/agent/" + agent, nil
}

func valid(s, alphabet string, limit int) bool {
	return s != "" && len(s) <= limit && strings.Trim(s, alphabet) == ""
}

// Actor returns the actor of an autonomous run of an agent that the local user
// with that uid asked for. The name is looked up for people; the uid counts.
func Actor(trustDomain, agent string, uid uint32) (decision.Actor, error) {
	account, err := Account(trustDomain, agent)
	if err != nil {
		return decision.Actor{}, err
	}
	return decision.Actor{Account: account, StartedBy: &decision.LocalUser{UID: uid, Name: userName(uid)}}, nil
}

// userName is the name of a local user, or "" if it has none.
func userName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}
