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

// gtidSet is a set of MySQL's transactions: for each writer, which is a server's UUID and perhaps a tag ("uuid" or
// "uuid:tag"), the numbers in rising intervals that do not touch.
type gtidSet map[string][]interval

// interval is numbers from first to last, both included.
type interval struct{ first, last uint64 }

// maxNumber is the highest number that MySQL gives a transaction.
const maxNumber = 1<<63 - 2

// isGTIDSet tells a position of MySQL from one of MariaDB, which has no colon.
func isGTIDSet(p replication.Position) bool { return strings.Contains(string(p), ":") }

// parseGTIDSet reads a set as MySQL writes it: "uuid:1-5:7,uuid:tag:1-3". Owners, as gtid_owned has them ("uuid:8#31"), are
// left out.
func parseGTIDSet(s string) (gtidSet, error) {
	set := gtidSet{}
	if strings.TrimSpace(s) == "" {
		return set, nil
	}
	for item := range strings.SplitSeq(s, ",") {
		parts := strings.Split(strings.TrimSpace(item), ":")
		uuid := strings.ToLower(parts[0])
		if !isUUID(uuid) || len(parts) < 2 {
			return nil, fmt.Errorf("%q is no GTID set, want uuid[:tag]:number[-number]", item)
		}
		writer, numbers := uuid, 0
		for i, part := range parts[1:] {
			if tag := strings.ToLower(strings.TrimSpace(part)); isTag(tag) {
				if i > 0 && numbers == 0 {
					return nil, fmt.Errorf("%q is no GTID set, want numbers after each tag", item)
				}
				writer, numbers = uuid+":"+tag, 0
				continue
			}
			part, _, _ = strings.Cut(strings.TrimSpace(part), "#")
			in, err := parseInterval(part)
			if err != nil {
				return nil, fmt.Errorf("%q in %q is %w", part, item, err)
			}
			set[writer] = append(set[writer], in)
			numbers++
		}
		if numbers == 0 {
			return nil, fmt.Errorf("%q is no GTID set, want uuid[:tag]:number[-number]", item)
		}
	}
	for writer := range set {
		set[writer] = joined(set[writer])
	}
	return set, nil
}

func parseInterval(s string) (interval, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 63)
	b, err2 := strconv.ParseUint(last, 10, 63)
	if cmp.Or(err1, err2) != nil || a == 0 || b < a || b > maxNumber {
		return interval{}, fmt.Errorf("no interval, want number or number-number, from 1 to %d", uint64(maxNumber))
	}
	return interval{a, b}, nil
}

func isUUID(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch dash := i == 8 || i == 13 || i == 18 || i == 23; {
		case dash != (c == '-'), !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f'):
			return false
		}
	}
	return len(s) == 36
}

func isTag(s string) bool {
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c == '_' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 32
}

// joined sorts intervals and joins those that overlap or touch.
func joined(list []interval) []interval {
	slices.SortFunc(list, func(a, b interval) int { return cmp.Compare(a.first, b.first) })
	var out []interval
	for _, in := range list {
		if n := len(out); n > 0 && in.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, in.last)
			continue
		}
		out = append(out, in)
	}
	return out
}

// String gives the one notation of the set that MySQL reads too: writers in order, without spaces.
func (s gtidSet) String() string {
	var b strings.Builder
	for _, writer := range slices.Sorted(maps.Keys(s)) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(writer)
		for _, in := range s[writer] {
			fmt.Fprintf(&b, ":%d", in.first)
			if in.last > in.first {
				fmt.Fprintf(&b, "-%d", in.last)
			}
		}
	}
	return b.String()
}

func (s gtidSet) public() replication.Position { return replication.Position(s.String()) }

// union gives what is in either set.
func (s gtidSet) union(t gtidSet) gtidSet {
	u := gtidSet{}
	for _, set := range []gtidSet{s, t} {
		for writer, list := range set {
			u[writer] = joined(slices.Concat(u[writer], list))
		}
	}
	return u
}

// without gives what is in s and not in t.
func (s gtidSet) without(t gtidSet) gtidSet {
	d := gtidSet{}
	for writer, list := range s {
		var left []interval
		for _, in := range list {
			for _, cut := range t[writer] {
				if cut.last < in.first || cut.first > in.last {
					continue
				}
				if cut.first > in.first {
					left = append(left, interval{in.first, cut.first - 1})
				}
				in.first = cut.last + 1
				if in.first > in.last {
					break
				}
			}
			if in.first <= in.last {
				left = append(left, in)
			}
		}
		if len(left) > 0 {
			d[writer] = left
		}
	}
	return d
}

func (s gtidSet) holds(t gtidSet) bool { return len(t.without(s)) == 0 }

func (s gtidSet) count() (n uint64) {
	for _, list := range s {
		for _, in := range list {
			n += in.last - in.first + 1
		}
	}
	return n
}

// compareSets and countSets are Compare and Count for positions of MySQL. A set says of every transaction whether it is
// there, so that nothing is assumed.
func compareSets(a, b replication.Position) replication.Order {
	if a == b {
		return replication.Equal
	}
	s, err1 := parseGTIDSet(string(a))
	t, err2 := parseGTIDSet(string(b))
	if err1 != nil || err2 != nil {
		return replication.Diverged
	}
	return order(s, t)
}

func countSets(a, b replication.Position) (n uint64, exact bool) {
	s, err1 := parseGTIDSet(string(a))
	t, err2 := parseGTIDSet(string(b))
	if err1 != nil || err2 != nil {
		return 0, a == b
	}
	return s.without(t).count(), true
}
