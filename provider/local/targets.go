package local

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// backend is the name of the group of servers in HAProxy's configuration.
const backend = "targets"

// ended reports whether a target that is being drained has no connection any more, or no more time. That it has none counts
// only once HAProxy gives it no new ones.
func (t target) ended(s server, known bool, now time.Time) bool {
	return t.Draining && (!known || !now.Before(t.Until) || s.sessions == 0 && (s.draining || s.maintained))
}

// commands is what HAProxy is to be told so that its servers become the targets, in steps that may stop anywhere: whoever
// looks next goes on from what is found. It is empty when they are.
func (b balancer) commands(servers map[string]server) []string {
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	wanted := map[string]bool{}
	for _, t := range b.Targets {
		wanted[t.Instance] = true
		name := backend + "/" + t.Instance
		s, known := servers[t.Instance]
		switch {
		case t.Draining:
			if known && !s.draining && !s.maintained {
				say("set server %s state drain", name)
			}
		case known && !s.maintained && !s.draining:
		default:
			// HAProxy would take a server for healthy until a check fails. So it is taken down while it is still drained,
			// and comes up when a check has succeeded.
			if !known {
				say("add server %s %s:%d check inter 1s fastinter 250ms downinter 500ms rise 1 fall 2", name, t.Addr, b.targetPort())
			}
			if !known || s.maintained {
				say("enable health %s", name)
				say("set server %s state drain", name)
			}
			if !known || s.maintained || !s.checked {
				say("set server %s health down", name)
			}
			say("set server %s state ready", name)
		}
	}
	for _, instance := range slices.Sorted(maps.Keys(servers)) {
		if wanted[instance] {
			continue
		}
		name := backend + "/" + instance
		if !servers[instance].maintained {
			say("set server %s state maint", name)
		}
		if servers[instance].sessions > 0 {
			say("shutdown sessions server %s", name)
		}
		say("del server %s", name)
	}
	return list
}

func (b balancer) targetPort() int {
	if b.Spec.TargetPort != 0 {
		return b.Spec.TargetPort
	}
	return b.Spec.Port
}

// find gives where the instance is among the targets, or -1.
func (b *balancer) find(instance string) int {
	return slices.IndexFunc(b.Targets, func(t target) bool { return t.Instance == instance })
}

// isRemoval reports whether HAProxy may refuse a command for the time being: a server that has connections cannot be removed.
func isRemoval(command string) bool { return strings.HasPrefix(command, "del server ") }
