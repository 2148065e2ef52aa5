package admin

import (
	"fmt"
	"net/http"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/peer"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/decision"
)

// who is a peer that is in no run, and what it may do.
type who struct {
	peer   *peer.Peer
	roles  roles
	cgroup string // where the peer was found, as evidence
}

// started reports whether this user started what l is about.
func (w who) started(by *decision.LocalUser) bool { return by != nil && by.UID == w.peer.UID }

// sees reports whether w may look at what the user by has started.
func (w who) sees(by *decision.LocalUser) bool { return w.roles.has(every) || w.started(by) }

// approver returns w as the approval store wants to know it.
func (w who) approver(p approval.Presence) approval.Approver {
	return approval.Approver{
		UID: w.peer.UID, Name: userName(w.peer.UID), Groups: groupNames(w.peer.AllGroups()),
		Presence: p, PID: w.peer.PID,
		PeerCheck: fmt.Sprintf("process %d in cgroup %s, which is in no run", w.peer.PID, w.cgroup),
	}
}

// identify says who has sent r. It refuses a process that is in a run, that
// has ended, or that cannot be told to be in none.
func (s *Server) identify(r *http.Request) (who, *api.Problem) {
	p, err := connOf(r.Context())
	if err != nil {
		return who{}, s.unknown(0, err)
	}
	run, in, err := s.opts.PeerRuns.InRun(p.PID)
	if err != nil {
		return who{}, s.unknown(p.PID, err)
	}
	if in {
		s.refuseRun(r, p, run)
		return who{}, problem(http.StatusForbidden, api.CodePeerInRun, "This process is part of a run, and no run may use the admin API.",
			"Ask from a process outside, as the person who is to decide.")
	}
	cgroup, err := p.Cgroup() // it also finds out that the process still is the one that was judged
	if err != nil {
		return who{}, s.unknown(p.PID, err)
	}
	return who{peer: p, roles: rolesOf(p, s.opts.Configs.Config()), cgroup: cgroup}, nil
}

// unknown refuses a peer of which it cannot be said that it is in no run.
func (s *Server) unknown(pid int, err error) *api.Problem {
	s.opts.Log.Warn("admin peer refused", "pid", pid, "error", err)
	return problem(http.StatusForbidden, api.CodePeerUnknown, "The daemon cannot tell which process is asking, so it does not answer.",
		"Connect from a process on this host that stays alive until the answer is there.")
}

// authorise checks the peer's roles for a route.
func authorise(w who, r route) *api.Problem {
	if w.roles.has(r.roles) || r.own {
		return nil
	}
	name := userName(w.peer.UID)
	if name == "" {
		name = fmt.Sprintf("uid %d", w.peer.UID)
	}
	return problem(http.StatusForbidden, api.CodeRole, fmt.Sprintf("This needs the role %s, and %s does not have it.", r.roles, name),
		"Add the user or one of its groups under roles in varvel.yaml, or ask somebody who has the role.")
}
