package memdb

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// txn is a transaction in a server's log. Origin and seq name it for ever; a server's data gets a new identity when it is
// replaced, so a name is never used twice.
type txn struct {
	origin     string
	seq        uint64
	key, value string
	born       time.Time // when it was committed at its origin
	at         time.Time // when it entered this log
	logged     time.Time // when it was applied here, from when on replicas of this server can get it
}

// commit appends a transaction of the server's own.
func (s *server) commit(key, value string, now time.Time) {
	var seq uint64 = 1
	for _, x := range slices.Backward(s.log) {
		if x.origin == s.name {
			seq = x.seq + 1
			break
		}
	}
	s.log = append(s.log, txn{s.name, seq, key, value, now, now, now})
}

func (s *server) truncate(n int) {
	s.log = s.log[:n:n]
	s.applied, s.acked = min(s.applied, n), min(s.acked, n)
}

// view brings the data that readers see up to date and returns it.
func (s *server) view() map[string]string {
	n := s.applied
	if s.writable && s.semisync {
		n = min(n, s.acked)
	}
	if s.dataTo > n {
		s.data, s.dataTo = map[string]string{}, 0
	}
	for _, x := range s.log[s.dataTo:n] {
		s.data[x.key] = x.value
	}
	s.dataTo = n
	return s.data
}

// follows reports whether what r has is the beginning of what s has. Whoever has a transaction has got it together with
// all that was before it, so the last one tells.
func follows(r, s []txn) bool {
	n := len(r)
	return n == 0 || n <= len(s) && s[n-1].origin == r[n-1].origin && s[n-1].seq == r[n-1].seq
}

// sends is what replicas of s can get: a replica hands on what it has applied.
func (s *server) sends() []txn {
	if s.source != "" {
		return s.log[:s.applied]
	}
	return s.log
}

// link works out who is connected to whom.
func (c *Cluster) link(now time.Time) {
	for _, r := range c.servers {
		r.trouble = ""
		if r.source == "" || !r.up {
			r.linked, r.heard = time.Time{}, time.Time{}
			continue
		}
		s := c.servers[r.source]
		silent := false
		switch {
		case r.hung:
			continue // it notices nothing
		case !r.receiving:
			r.trouble = "receiving is stopped"
		case s == nil, c.cuts[pair(r.addr, r.source)], s.hung:
			r.trouble, silent = "source is silent", true
		case !s.up:
			r.trouble = "source refuses connections"
		case !follows(r.log, s.sends()):
			r.trouble = "source lacks transactions that this server has"
		}
		switch linked := !r.linked.IsZero(); {
		case r.trouble == "" && !linked:
			r.linked = now
			if s.writable && s.semisync && !s.deaf { // where a replica begins says what it has
				s.acked = max(s.acked, len(r.log))
			}
		case r.trouble != "" && linked:
			r.linked, r.heard, r.silent = time.Time{}, now, silent
		case r.trouble != "" && !silent:
			r.silent = false
		}
	}
}

// advance lets replication do what it has done by now. Between two changes of the world nothing but time matters, so it
// does not matter how often or in which order this is worked out.
func (c *Cluster) advance(now time.Time) {
	for progress := true; progress; {
		progress = false
		for _, r := range c.servers {
			if c.receive(r, now) || c.apply(r, now) {
				progress = true
			}
		}
	}
}

// receive lets r get what it has got by now, and reports whether that is anything.
func (c *Cluster) receive(r *server, now time.Time) (progress bool) {
	s := c.servers[r.source]
	if s == nil || r.linked.IsZero() || r.hung || s.hung {
		return false
	}
	for from := s.sends(); len(r.log) < len(from); {
		x := from[len(r.log)]
		x.at = latest(x.logged.Add(c.options.Delay), r.linked)
		if x.at.After(now) {
			break
		}
		r.log = append(r.log, x)
		progress = true
		if s.writable && s.semisync && !s.deaf {
			s.acked = max(s.acked, len(r.log))
			r.hasAcked = true
		}
	}
	return progress
}

// apply lets r apply what it has applied by now, and reports whether that is anything.
func (c *Cluster) apply(r *server, now time.Time) (progress bool) {
	for r.up && !r.hung && r.source != "" && r.applied < len(r.log) {
		at := c.appliesNext(r)
		if at.After(now) {
			break
		}
		r.log[r.applied].logged = at
		r.applied++
		r.appliedAt = at
		progress = true
	}
	return progress
}

// appliesNext says when the replica will have applied one transaction more.
func (c *Cluster) appliesNext(r *server) time.Time {
	return latest(r.log[r.applied].at.Add(r.delay), r.appliedAt, r.resumed).Add(c.options.Apply)
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// position names the transactions: for each origin, in order, how many of its transactions there are.
func position(log []txn) replication.Position {
	last := map[string]uint64{}
	for _, x := range log {
		last[x.origin] = x.seq
	}
	var b strings.Builder
	for _, origin := range slices.SortedFunc(maps.Keys(last), byNumber) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(origin + ":" + strconv.FormatUint(last[origin], 10))
	}
	return replication.Position(b.String())
}

func byNumber(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

func parse(p replication.Position) map[string]uint64 {
	last := map[string]uint64{}
	for part := range strings.SplitSeq(string(p), ",") {
		if origin, n, ok := strings.Cut(part, ":"); ok {
			last[origin], _ = strconv.ParseUint(n, 10, 64)
		}
	}
	return last
}

// Compare says how a relates to b.
func (c *Cluster) Compare(a, b replication.Position) replication.Order {
	more, _ := c.Count(a, b)
	less, _ := c.Count(b, a)
	switch {
	case more > 0 && less > 0:
		return replication.Diverged
	case more > 0:
		return replication.Ahead
	case less > 0:
		return replication.Behind
	}
	return replication.Equal
}

// Count says how many transactions a has that b lacks. It is always exact.
func (c *Cluster) Count(a, b replication.Position) (n uint64, exact bool) {
	has := parse(b)
	for origin, last := range parse(a) {
		if last > has[origin] {
			n += last - has[origin]
		}
	}
	return n, true
}
