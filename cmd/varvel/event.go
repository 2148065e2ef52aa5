package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

// eventLine is one event for people: when, what, by whom, and why.
func (e *env) eventLine(v audit.Event) string {
	parts := []string{
		fmt.Sprintf("#%d", v.Seq), e.tui.when(v.Time), kindOf(v), effectOf(v),
		named("agent", v.Agent), named("run", v.Run), named("tool", v.Tool), named("action", v.Action), named("risk", string(v.Risk)),
		subject(v), times(v.Count), named("approval", v.ApprovalID), personOf(v), reasonOf(v), countsOf(v.Counts),
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "  ")
}

func kindOf(v audit.Event) string {
	if v.Activity == "" {
		return string(v.Kind)
	}
	return string(v.Kind) + "/" + string(v.Activity)
}

func effectOf(v audit.Event) string {
	s := strings.ToUpper(string(v.Effect))
	if v.Would != "" {
		s += " (would " + string(v.Would) + ")"
	}
	return s
}

func named(name, value string) string {
	if value == "" {
		return ""
	}
	return name + "=" + value
}

func times(n uint64) string {
	if n <= 1 {
		return ""
	}
	return fmt.Sprintf("×%d", n)
}

// subject is what the event is about.
func subject(v audit.Event) string {
	switch {
	case v.HTTP != nil:
		s := fmt.Sprintf("%s %s%s", v.HTTP.Method, v.HTTP.Authority, v.HTTP.Path)
		if v.HTTP.Query != "" {
			s += "?" + v.HTTP.Query
		}
		if v.HTTP.Status != 0 {
			s += fmt.Sprintf(" → %d", v.HTTP.Status)
		}
		return s
	case v.DNS != nil:
		return strings.TrimSpace(fmt.Sprintf("%s %s %s", v.DNS.Name, v.DNS.Type, v.DNS.Code))
	case v.Credential != nil:
		return "audience=" + v.Credential.Audience
	case v.Peer != nil && v.Target != nil:
		return "port " + targetOf(*v.Target) + " from " + peerOf(*v.Peer)
	case v.Target != nil:
		return targetOf(*v.Target)
	case v.Process != nil:
		return process(*v.Process)
	}
	return named("component", v.Component)
}

func targetOf(t audit.Target) string {
	s := t.Name
	switch {
	case s != "" && t.Port != 0:
		s = fmt.Sprintf("%s:%d", s, t.Port)
	case s == "" && t.Address.IsValid() && t.Port != 0:
		s = netip.AddrPortFrom(t.Address, t.Port).String()
	case s == "" && t.Address.IsValid():
		s = t.Address.String()
	case s == "" && t.Port != 0:
		s = fmt.Sprint(t.Port)
	}
	if t.Protocol != "" {
		s += "/" + t.Protocol
	}
	return s
}

func peerOf(p audit.Peer) string {
	if p.Port == 0 {
		return p.Address.String()
	}
	return netip.AddrPortFrom(p.Address, p.Port).String()
}

func process(p audit.Process) string {
	s := strings.Join(p.Command, " ")
	if s == "" {
		s = p.Program
	}
	switch {
	case p.Signal != 0:
		s += fmt.Sprintf(" (signal %d)", p.Signal)
	case p.ExitCode != nil:
		s += fmt.Sprintf(" (exit %d)", *p.ExitCode)
	}
	if p.PID != 0 { // a run begins before its first process
		s += fmt.Sprintf(" pid=%d", p.PID)
	}
	return strings.TrimSpace(fmt.Sprintf("%s uid=%d", s, p.UID))
}

func personOf(v audit.Event) string {
	switch {
	case v.Approval != nil && v.Approval.By != nil:
		s := "by=" + person(&decision.LocalUser{UID: v.Approval.By.UID, Name: v.Approval.By.Name})
		if v.Approval.Reason != "" {
			s += fmt.Sprintf(" %q", v.Approval.Reason)
		}
		return s
	case v.StartedBy != nil:
		return "by=" + person(&decision.LocalUser{UID: v.StartedBy.UID, Name: v.StartedBy.Name})
	}
	return ""
}

func reasonOf(v audit.Event) string {
	if len(v.Reasons) > 0 {
		r := v.Reasons[len(v.Reasons)-1]
		return fmt.Sprintf("%s (%s)", r.Text, r.Rule)
	}
	return v.Message
}

func countsOf(counts map[string]uint64) string {
	var list []string
	for _, code := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%s:%d", code, counts[code]))
	}
	return strings.Join(list, " ")
}
