// Package scalr runs web applications on clouds: farms of servers that scale with load, survive failures and move
// between clouds. It is a set of packages that a host program embeds; there is no daemon and no panel.
//
// # The tour
//
//   - [github.com/scalr-go/scalr/farm] joins the rest. A farm.Spec says what there should be (roles, sizes, names), a
//     farm.Config says with what (providers, a DNS registrar, databases, caches), and Farm.Run keeps the two together.
//   - [github.com/scalr-go/scalr/provider] is a cloud, behind three methods and optional capabilities. Its drivers are
//     provider/local (real processes on this machine) and provider/memcloud (in memory, with every fault a cloud has).
//   - [github.com/scalr-go/scalr/dnsreg] keeps names up to date: record sets, compare-and-set changes, ownership.
//     dnsreg/nameserver is an authoritative server to embed.
//   - [github.com/scalr-go/scalr/replication] owns a database's topology: it configures replication, detects a dead
//     primary, promotes a replica and says what was lost. replication/mysql speaks to MariaDB.
//   - [github.com/scalr-go/scalr/cronlock] holds locks and leases with fencing tokens.
//   - [github.com/scalr-go/scalr/cache] reads through a set of cache servers; cache/memcached speaks to memcached.
//
// Each package is useful alone. Each interface has an in-memory implementation and a public conformance suite
// (providertest, dnsregtest, replicationtest, cronlocktest, cachetest), so that a program's own infrastructure logic can
// be unit-tested without a cloud, and a driver of one's own can be held to the same rules.
//
// # The words
//
// A farm is a named set of roles with one DNS zone. A role is machines of one kind. Each machine has an index in its
// role, and the index owns the address, the volume and the DNS name: a successor inherits them. A pool is one provider
// at one placement. A pass is observe, decide, act, once.
package scalr

import (
	"fmt"
	"strings"
	"time"
)

// Kind names what an [Event] reports, as words joined by hyphens: "instance-launched". The packages that emit events
// declare their kinds as constants.
type Kind string

// Event reports something that happened or was decided. It is the one type that all packages share.
//
// A sink of events is a plain func(Event). It is never called concurrently by one emitter, is called in the order in
// which things happened, and must not block: the emitter waits for it. Events never carry secrets.
type Event struct {
	Time    time.Time         `json:"time"`
	Kind    Kind              `json:"kind"`
	Farm    string            `json:"farm,omitempty"`
	Role    string            `json:"role,omitempty"`
	Index   int               `json:"index,omitempty"`   // the slot in the role, counted from 1; 0 where none is meant
	Subject string            `json:"subject,omitempty"` // the ID or name of the thing: an instance, a volume, a DNS name
	Message string            `json:"message"`           // one sentence for a person, with the reason
	Attrs   map[string]string `json:"attrs,omitempty"`   // further facts for a program
	Err     string            `json:"error,omitempty"`   // the error's text where the event reports a failure
}

// String gives the event as one line for a person: the clock time in UTC, the kind, whom it concerns and the message.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-20s", e.Time.UTC().Format("15:04:05.000"), e.Kind)
	switch {
	case e.Role != "" && e.Index > 0:
		fmt.Fprintf(&b, " %s-%d", e.Role, e.Index)
	case e.Role != "":
		fmt.Fprintf(&b, " %s", e.Role)
	}
	if e.Subject != "" {
		fmt.Fprintf(&b, " [%s]", e.Subject)
	}
	b.WriteString(" " + e.Message)
	if e.Err != "" {
		b.WriteString(": " + e.Err)
	}
	return b.String()
}
