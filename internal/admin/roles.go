package admin

import (
	"os/user"
	"slices"
	"strconv"

	"github.com/varvel/varvel/internal/admin/peer"
	"github.com/varvel/varvel/internal/config"
)

// roles is a set of roles.
type roles uint8

// The roles of the configuration. anybody is no role: a route that has it is
// for every peer that is in no run.
const (
	viewer roles = 1 << iota
	auditor
	approver
	operator

	anybody roles = 0
	every         = viewer | auditor | approver | operator
)

// roleNames pairs the roles with their names in the configuration.
func roleNames() map[string]roles {
	return map[string]roles{"viewer": viewer, "auditor": auditor, "approver": approver, "operator": operator}
}

// has reports whether one of the wanted roles is in the set.
func (r roles) has(wanted roles) bool { return wanted == anybody || r&wanted != 0 }

// String returns the names of the set, as in "approver or operator".
func (r roles) String() string {
	var s string
	for _, name := range config.Roles() {
		if r&roleNames()[name] == 0 {
			continue
		}
		if s != "" {
			s += " or "
		}
		s += name
	}
	return s
}

// rolesOf returns the roles of a peer under a configuration. Root has all. A
// name that this node does not know grants nobody anything.
func rolesOf(p *peer.Peer, cfg *config.Config) roles {
	if p.UID == 0 {
		return every
	}
	var set roles
	for name, role := range roleNames() {
		if isMember(p, cfg.Node.Roles[name]) {
			set |= role
		}
	}
	return set
}

func isMember(p *peer.Peer, of config.Principals) bool {
	return slices.ContainsFunc(of.Users, func(name string) bool {
		uid, ok := userID(name)
		return ok && uid == p.UID
	}) || slices.ContainsFunc(of.Groups, func(name string) bool {
		gid, ok := groupID(name)
		return ok && p.InGroup(gid)
	})
}

// UnknownPrincipals returns the users and groups of roles that this node does
// not know, for the health of the node.
func UnknownPrincipals(cfg *config.Config) []string {
	var unknown []string
	for _, role := range config.Roles() {
		for _, name := range cfg.Node.Roles[role].Users {
			if _, ok := userID(name); !ok {
				unknown = append(unknown, "user "+name+" of role "+role)
			}
		}
		for _, name := range cfg.Node.Roles[role].Groups {
			if _, ok := groupID(name); !ok {
				unknown = append(unknown, "group "+name+" of role "+role)
			}
		}
	}
	return unknown
}

// userID looks a user up by name. A name that is a number, and no user's name,
// is taken as the id itself: for users that only a directory service knows.
func userID(name string) (uint32, bool) {
	if u, err := user.Lookup(name); err == nil {
		return number(u.Uid)
	}
	return number(name)
}

func groupID(name string) (uint32, bool) {
	if g, err := user.LookupGroup(name); err == nil {
		return number(g.Gid)
	}
	return number(name)
}

func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}

// userName returns the name of a user, or "" if it has none on this node.
func userName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

// groupNames returns the names of groups; those without a name are left out.
func groupNames(gids []uint32) []string {
	var names []string
	for _, gid := range gids {
		if g, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10)); err == nil {
			names = append(names, g.Name)
		}
	}
	return names
}
