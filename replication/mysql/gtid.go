package mysql

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/scalr-go/scalr/replication"
)

// gtid is MariaDB's name for one transaction: the domain, the server that wrote it, and its number in the domain.
type gtid struct {
	domain, server uint32
	seq            uint64
}

func (g gtid) String() string { return fmt.Sprintf("%d-%d-%d", g.domain, g.server, g.seq) }

// history is what a member has of one domain: the number of the last transaction of each server that wrote in it. The
// numbers rise through the whole domain (gtid_strict_mode), and a transaction's writer had all that came before it, so the
// last number of each writer says of every transaction whether it is in the history.
type history struct {
	seqs map[uint32]uint64
	// open: below its last transaction the history may hold more than seqs says, since what lies there was received or
	// restored and never written to a binary log of the member's own.
	open bool
}

func (h *history) last(domain uint32) gtid {
	g := gtid{domain: domain}
	for server, seq := range h.seqs {
		if seq > g.seq || seq == g.seq && server > g.server {
			g.server, g.seq = server, seq
		}
	}
	return g
}

// holds reports whether g is in the history. It is proven if the numbers say so, and assumed if the history is open and
// goes further than g.
func (h *history) holds(g gtid) (held, proven bool) {
	switch {
	case h == nil:
		return false, true
	case h.seqs[g.server] >= g.seq:
		return true, true
	case h.open && g.seq < h.last(g.domain).seq:
		return true, false
	}
	return false, !h.open
}

// surely reports whether g is in the history for certain.
func (h *history) surely(g gtid) bool {
	held, proven := h.holds(g)
	return held && proven
}

// position is a [replication.Position], by domain.
type position map[uint32]*history

// parsePosition reads a position, and any GTID list of the server's: gtid_slave_pos, gtid_binlog_state, Gtid_IO_Pos.
func parsePosition(s string) (position, error) {
	p := position{}
	if strings.TrimSpace(s) == "" {
		return p, nil
	}
	for item := range strings.SplitSeq(s, ",") {
		item = strings.TrimSpace(item)
		text, open := strings.CutSuffix(item, "+")
		g, err := parseGTID(text)
		if err != nil {
			return nil, fmt.Errorf("position %q: %w", s, err)
		}
		p.add(g)
		if open {
			p[g.domain].open = true
		}
	}
	return p, nil
}

func parseGTID(s string) (gtid, error) {
	parts := strings.Split(s, "-")
	if len(parts) != 3 {
		return gtid{}, fmt.Errorf("%q is no GTID, want domain-server-number", s)
	}
	domain, err1 := strconv.ParseUint(parts[0], 10, 32)
	server, err2 := strconv.ParseUint(parts[1], 10, 32)
	seq, err3 := strconv.ParseUint(parts[2], 10, 64)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return gtid{}, fmt.Errorf("%q is no GTID, want domain-server-number", s)
	}
	return gtid{uint32(domain), uint32(server), seq}, nil
}

func (p position) add(g gtid) {
	h := p[g.domain]
	if h == nil {
		h = &history{seqs: map[uint32]uint64{}}
		p[g.domain] = h
	}
	h.seqs[g.server] = max(h.seqs[g.server], g.seq)
}

// extend adds what a plain GTID list (the last transaction of each domain) says beyond p. How it got from p's last
// transaction to there is known only if the same server wrote both: then it is taken to have written what is between, which
// is wrong for a replica that lags behind two switchovers, away from a server and back to it.
func (p position) extend(list position) {
	for domain, h := range list {
		g := h.last(domain)
		if p[domain] == nil {
			p.add(g)
			p[domain].open = true
			continue
		}
		last := p[domain].last(domain)
		if g.seq <= last.seq {
			continue
		}
		p.add(g)
		if g.server != last.server {
			p[domain].open = true
		}
	}
}

// upTo gives what p says of the history up to a plain GTID list: p may go beyond it, since the binary log has transactions
// that wait to be committed.
func (p position) upTo(list position) position {
	q := position{}
	for domain, h := range list {
		last := h.last(domain)
		q.add(last)
		if p[domain] == nil {
			q[domain].open = last.seq > 1
			continue
		}
		q[domain].open = p[domain].open
		for server, seq := range p[domain].seqs {
			if seq < last.seq {
				q.add(gtid{domain, server, seq})
			} else if server != last.server {
				q[domain].open = true // it may have written before, too
			}
		}
	}
	return q
}

// common gives what two histories share: for each domain and server the lower of the two numbers, since whoever has a
// transaction has all that came before it. It may be more than that where one of them is open and its last transaction is not
// known to be the other's too.
func (p position) common(q position) (shared position, known bool) {
	shared, known = position{}, true
	for domain, h := range p {
		other := q[domain]
		if other == nil {
			continue
		}
		if h.open || other.open {
			known = known && (other.surely(h.last(domain)) || h.surely(other.last(domain)))
		}
		for server, seq := range h.seqs {
			if n := min(seq, other.seqs[server]); n > 0 {
				shared.add(gtid{domain, server, n})
			}
		}
		if shared[domain] != nil {
			shared[domain].open = h.open
		}
	}
	return shared, known
}

func (p position) clone() position {
	c := position{}
	for domain, h := range p {
		c[domain] = &history{seqs: maps.Clone(h.seqs), open: h.open}
	}
	return c
}

// gtids lists the entries by domain and number: the last one of a domain is its last transaction.
func (p position) gtids() []gtid {
	var list []gtid
	for domain, h := range p {
		for server, seq := range h.seqs {
			list = append(list, gtid{domain, server, seq})
		}
	}
	slices.SortFunc(list, func(a, b gtid) int {
		return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.seq, b.seq), cmp.Compare(a.server, b.server))
	})
	return list
}

// plain gives the last transaction of each domain: what gtid_slave_pos and MASTER_GTID_WAIT take.
func (p position) plain() string {
	var list []string
	for _, domain := range slices.Sorted(maps.Keys(p)) {
		list = append(list, p[domain].last(domain).String())
	}
	return strings.Join(list, ",")
}

// state gives every entry: what gtid_binlog_state takes.
func (p position) state() string {
	var list []string
	for _, g := range p.gtids() {
		list = append(list, g.String())
	}
	return strings.Join(list, ",")
}

// public gives the notation of a [replication.Position]: state, with a "+" after the last entry of an open domain.
func (p position) public() replication.Position {
	list := p.gtids()
	var b strings.Builder
	for i, g := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(g.String())
		if p[g.domain].open && (i+1 == len(list) || list[i+1].domain != g.domain) {
			b.WriteByte('+')
		}
	}
	return replication.Position(b.String())
}

// holds reports whether everything of q is in p. A transaction's writer had all that came before it, so the last one of
// each domain speaks for the domain.
func (p position) holds(q position) bool {
	for domain, h := range q {
		if held, _ := p[domain].holds(h.last(domain)); !held {
			return false
		}
	}
	return true
}

// lacks lists the last transactions of q that are not in p, one for each domain.
func (p position) lacks(q position) []gtid {
	var list []gtid
	for _, domain := range slices.Sorted(maps.Keys(q)) {
		g := q[domain].last(domain)
		if held, _ := p[domain].holds(g); !held {
			list = append(list, g)
		}
	}
	return list
}

// Compare says how a relates to b; see the package doc for the notation. A position that is not in the notation relates
// to nothing: it is Diverged from all but itself.
//
// What can be known: each position says, for each domain and server, how far it has that server's transactions, so that a
// tail that one member wrote and another never got is seen even where the other has gone on to higher numbers. What cannot
// be known: a history that is marked open ("+") is assumed to hold what is below its last transaction; and a server that
// lost a tail and wrote again under the same server_id is taken to have kept it, so a machine that replaces another one
// should have a server_id of its own.
//
// Of MySQL's positions, which are sets, nothing is assumed.
func (e *Engine) Compare(a, b replication.Position) replication.Order {
	if isGTIDSet(a) || isGTIDSet(b) {
		return compareSets(a, b)
	}
	return compare(a, b)
}

func compare(a, b replication.Position) replication.Order {
	if a == b {
		return replication.Equal
	}
	p, err1 := parsePosition(string(a))
	q, err2 := parsePosition(string(b))
	if err1 != nil || err2 != nil {
		return replication.Diverged
	}
	return order(p, q)
}

// order compares what two members have by what each of them holds of the other's.
func order[P interface{ holds(P) bool }](p, q P) replication.Order {
	switch ahead, behind := !q.holds(p), !p.holds(q); {
	case ahead && behind:
		return replication.Diverged
	case ahead:
		return replication.Ahead
	case behind:
		return replication.Behind
	}
	return replication.Equal
}

// Count says how many transactions a has that b lacks. It is exact where both histories are known: servers number the
// transactions of a domain without gaps (as long as nobody sets gtid_seq_no), so the numbers above the last common one are
// counted. With an open history it is a lower bound. Of MySQL's positions it is always exact.
func (e *Engine) Count(a, b replication.Position) (n uint64, exact bool) {
	if isGTIDSet(a) || isGTIDSet(b) {
		return countSets(a, b)
	}
	return count(a, b)
}

func count(a, b replication.Position) (n uint64, exact bool) {
	p, err1 := parsePosition(string(a))
	q, err2 := parsePosition(string(b))
	if err1 != nil || err2 != nil {
		return 0, a == b
	}
	exact = true
	for domain, h := range p {
		last, other := h.last(domain), q[domain]
		if other == nil {
			n += last.seq
			continue
		}
		held, proven := other.holds(last)
		if held {
			exact = exact && proven
			continue
		}
		var common uint64
		for server, seq := range h.seqs {
			common = max(common, min(seq, other.seqs[server]))
		}
		end := other.last(domain)
		if known, proven := h.holds(end); (h.open || other.open) && !(known && proven) {
			exact = false
			if last.seq > end.seq {
				n += last.seq - end.seq
			} else {
				n++
			}
			continue
		}
		n += last.seq - common
	}
	return n, exact
}
