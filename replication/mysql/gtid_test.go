package mysql

import (
	"fmt"
	"slices"
	"testing"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/replication"
)

func TestPosition(t *testing.T) {
	for _, c := range []struct{ in, plain, state, public string }{
		{"", "", "", ""},
		{"0-1-5", "0-1-5", "0-1-5", "0-1-5"},
		{" 0-1-9, 0-2-12 ", "0-2-12", "0-1-9,0-2-12", "0-1-9,0-2-12"},
		{"1-7-3,0-2-12+,0-1-9", "0-2-12,1-7-3", "0-1-9,0-2-12,1-7-3", "0-1-9,0-2-12+,1-7-3"},
		{"4294967295-4294967295-18446744073709551615", "4294967295-4294967295-18446744073709551615",
			"4294967295-4294967295-18446744073709551615", "4294967295-4294967295-18446744073709551615"},
	} {
		p, err := parsePosition(c.in)
		require.NoError(t, err)
		require.Equal(t, c.plain, p.plain(), c.in)
		require.Equal(t, c.state, p.state(), c.in)
		require.Equal(t, replication.Position(c.public), p.public(), c.in)
	}
	for _, bad := range []string{"x", "0-1", "0-1-2-3", "0-1-", "-1-1-1", "0-1-2,", "4294967296-1-1", "0-1-+"} {
		_, err := parsePosition(bad)
		require.ErrorContains(t, err, "no GTID", bad)
		require.Equal(t, replication.Diverged, compare(replication.Position(bad), "0-1-1"))
		require.Equal(t, replication.Equal, compare(replication.Position(bad), replication.Position(bad)))
	}
}

func TestCompareAndCount(t *testing.T) {
	for _, c := range []struct {
		a, b  replication.Position
		order replication.Order
		n     uint64 // that a has and b lacks
		exact bool
		why   string
	}{
		{"", "", replication.Equal, 0, true, "nothing"},
		{"0-1-5", "", replication.Ahead, 5, true, "numbers begin with 1"},
		{"0-1-5", "0-1-3", replication.Ahead, 2, true, "one writer"},
		{"0-1-9,0-2-12", "0-1-9", replication.Ahead, 3, true, "the second writer went on"},
		{"0-1-10", "0-1-9,0-2-12", replication.Diverged, 1, true, "a tail that the successor never got"},
		{"0-1-9,0-2-12", "0-1-10", replication.Diverged, 3, true, "and the other way round"},
		{"0-1-11", "0-1-9,0-2-10", replication.Diverged, 2, true, "also where the tail has the higher number"},
		{"0-1-8", "0-1-9,0-2-12", replication.Behind, 0, true, "a replica that lags behind a failover"},
		{"0-1-5,1-2-3", "0-1-6,1-2-2", replication.Diverged, 1, true, "domains are apart"},
		{"0-2-12+", "0-1-8", replication.Ahead, 4, false, "an open history is assumed to hold what is below"},
		{"0-1-8", "0-2-12+", replication.Behind, 0, false, "and it stays an assumption"},
		{"0-1-7,0-2-12+", "0-1-9,0-2-12", replication.Equal, 0, true, "the last transaction is the same"},
		{"0-2-12+", "0-3-12+", replication.Diverged, 1, false, "one number, two writers"},
	} {
		require.Equal(t, c.order, compare(c.a, c.b), c.why)
		n, exact := count(c.a, c.b)
		require.Equal(t, c.n, n, c.why)
		require.Equal(t, c.exact, exact, c.why)
	}
}

// world is servers with the histories that they truly have, by domain.
type world struct {
	histories [][][]gtid // by server and domain
	ids       []uint32
	nextID    uint32
}

const worldServers, worldDomains = 4, 2

func newWorld() *world {
	w := &world{nextID: worldServers + 1}
	for i := range worldServers {
		w.histories = append(w.histories, make([][]gtid, worldDomains))
		w.ids = append(w.ids, uint32(i+1))
	}
	return w
}

// step lets something happen: a write, a replica that receives some, a server that is replaced by a copy of another one.
func (w *world) step(t *rapid.T) {
	a := rapid.IntRange(0, worldServers-1).Draw(t, "server")
	d := rapid.IntRange(0, worldDomains-1).Draw(t, "domain")
	mine := &w.histories[a][d]
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0, 1:
		*mine = append(*mine, gtid{uint32(d), w.ids[a], uint64(len(*mine) + 1)})
	case 2:
		theirs := w.histories[rapid.IntRange(0, worldServers-1).Draw(t, "source")][d]
		if n := len(*mine); len(theirs) >= n && slices.Equal(theirs[:n], *mine) {
			*mine = slices.Clone(theirs[:rapid.IntRange(n, len(theirs)).Draw(t, "upTo")])
		}
	case 3:
		b := rapid.IntRange(0, worldServers-1).Draw(t, "source")
		for d := range worldDomains {
			w.histories[a][d] = slices.Clone(w.histories[b][d])
		}
		w.ids[a] = w.nextID
		w.nextID++
	}
}

// known is the position of a server whose history is known up to applied, by domain, and received beyond that.
func known(history [][]gtid, applied func(domain int) int) position {
	p, list := position{}, position{}
	for d, h := range history {
		n := applied(d)
		if n > 0 && n < len(h) && h[n-1].server == h[len(h)-1].server &&
			slices.ContainsFunc(h[n:], func(g gtid) bool { return g.server != h[n-1].server }) {
			n = len(h) // see extend: two switchovers while a replica lags
		}
		for _, g := range h[:n] {
			p.add(g)
		}
		if len(h) > 0 {
			list.add(h[len(h)-1])
		}
	}
	p.extend(list)
	return p
}

// truth compares and counts by looking at every transaction.
func truth(a, b [][]gtid) (order replication.Order, missing uint64) {
	lacks := func(a, b [][]gtid) (n uint64) {
		for d := range a {
			for _, g := range a[d] {
				if !slices.Contains(b[d], g) {
					n++
				}
			}
		}
		return n
	}
	missing = lacks(a, b)
	switch ahead, behind := missing > 0, lacks(b, a) > 0; {
	case ahead && behind:
		order = replication.Diverged
	case ahead:
		order = replication.Ahead
	case behind:
		order = replication.Behind
	}
	return order, missing
}

var inverse = map[replication.Order]replication.Order{replication.Equal: replication.Equal, replication.Ahead: replication.Behind,
	replication.Behind: replication.Ahead, replication.Diverged: replication.Diverged}

func TestPositionsSayWhatIsSo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			w.step(t)
		}
		var whole, partly []replication.Position
		for _, h := range w.histories {
			whole = append(whole, known(h, func(d int) int { return len(h[d]) }).public())
			partly = append(partly, known(h, func(d int) int { return rapid.IntRange(0, len(h[d])).Draw(t, "applied") }).public())
		}
		for i, a := range w.histories {
			for j, b := range w.histories {
				order, missing := truth(a, b)
				got := compare(whole[i], whole[j])
				if got != order {
					t.Fatalf("%s to %s: %v, want %v", whole[i], whole[j], got, order)
				}
				if back := compare(whole[j], whole[i]); back != inverse[got] {
					t.Fatalf("%s to %s: %v, and back %v", whole[i], whole[j], got, back)
				}
				if (whole[i] == whole[j]) != (got == replication.Equal) {
					t.Fatalf("%s and %s: %v", whole[i], whole[j], got)
				}
				if n, exact := count(whole[i], whole[j]); n != missing || !exact {
					t.Fatalf("%s has %d that %s lacks (exact: %t), want %d", whole[i], n, whole[j], exact, missing)
				}
				for k := range w.histories { // transitive
					if below(got) && below(compare(whole[j], whole[k])) && !below(compare(whole[i], whole[k])) {
						t.Fatalf("%s <= %s <= %s, and not the first and the last", whole[i], whole[j], whole[k])
					}
				}
				// What is known in part is never wrong about histories that have not parted.
				for _, pair := range [][2]replication.Position{{partly[i], whole[j]}, {whole[i], partly[j]}, {partly[i], partly[j]}} {
					p, q := pair[0], pair[1]
					if i == j {
						p, q = partly[i], whole[i]
					}
					got := compare(p, q)
					if order != replication.Diverged && got != order {
						t.Fatalf("%s to %s: %v, want %v", p, q, got, order)
					}
					if back := compare(q, p); back != inverse[got] {
						t.Fatalf("%s to %s: %v, and back %v", p, q, got, back)
					}
					if n, exact := count(p, q); n > missing || exact && n != missing {
						t.Fatalf("%s has %d that %s lacks (exact: %t), want %d", p, n, q, exact, missing)
					}
				}
			}
		}
	})
}

// What two histories share is the transactions that both have, and never more where they are not known whole.
func TestCommonIsWhatIsShared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			w.step(t)
		}
		all := func(h [][]gtid) func(int) int { return func(d int) int { return len(h[d]) } }
		for i, a := range w.histories {
			for j, b := range w.histories {
				shared := make([][]gtid, worldDomains)
				for d := range shared {
					for n := 0; n < min(len(a[d]), len(b[d])) && a[d][n] == b[d][n]; n++ {
						shared[d] = a[d][:n+1]
					}
				}
				p, q := known(a, all(a)), known(b, all(b))
				got, whole := p.common(q)
				if want := known(shared, all(shared)).public(); got.public() != want || !whole {
					t.Fatalf("%s and %s share %s (known: %t), want %s", p.public(), q.public(), got.public(), whole, want)
				}
				part := func(h [][]gtid) position {
					return known(h, func(d int) int { return rapid.IntRange(0, len(h[d])).Draw(t, "applied") })
				}
				if p = part(a); i%2 == j%2 {
					q = part(b)
				}
				got, whole = p.common(q)
				if want := known(shared, all(shared)).plain(); whole && got.plain() != want {
					t.Fatalf("%s and %s are known to share %s, want %s (%v, %v)", p.public(), q.public(), got.public(), want, a, b)
				}
				for domain, h := range got {
					if g := h.last(domain); !slices.Contains(shared[domain], g) {
						t.Fatalf("%s and %s share %s, and %s is not shared (%v, %v)", p.public(), q.public(), got.public(), g, a, b)
					}
				}
			}
		}
	})
}

func below(o replication.Order) bool { return o == replication.Equal || o == replication.Behind }

func TestPositionNotation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := position{}
		for range rapid.IntRange(0, 8).Draw(t, "entries") {
			g := gtid{rapid.Uint32Range(0, 2).Draw(t, "domain"), rapid.Uint32().Draw(t, "server"), rapid.Uint64Min(1).Draw(t, "seq")}
			p.add(g)
			p[g.domain].open = rapid.Bool().Draw(t, "open")
		}
		back, err := parsePosition(string(p.public()))
		if err != nil || fmt.Sprint(back.public()) != fmt.Sprint(p.public()) || compare(p.public(), back.public()) != replication.Equal {
			t.Fatalf("%s became %s (%v)", p.public(), back.public(), err)
		}
	})
}

func FuzzParsePosition(f *testing.F) {
	f.Add("0-1-9,0-2-12+")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePosition(s)
		if err != nil {
			return
		}
		if q, err := parsePosition(string(p.public())); err != nil || q.public() != p.public() {
			t.Fatalf("%q: %v", p.public(), err)
		}
	})
}

// What a client can tell of two positions, each the last transaction of a domain or a set.
func TestClientContains(t *testing.T) {
	client, err := NewClient(&sqldriver.Config{User: "app"})
	require.NoError(t, err)
	const uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	for _, c := range []struct {
		a, b replication.Position
		want bool
	}{
		{"0-1-7", "0-1-7", true}, {"0-1-8", "0-1-7", true}, {"0-1-7", "0-1-8", false},
		{"0-2-8", "0-1-7", true},                             // strict mode: it was written by somebody who had the other
		{"0-2-7", "0-1-7", false}, {"0-1-7", "0-2-7", false}, // two transactions with one number are of two histories
		{"0-1-7,1-1-2", "0-1-7", true}, {"0-1-7", "0-1-7,1-1-2", false},
		{"", "", true}, {"0-1-7", "", true}, {"", "0-1-7", false},
		{uuid + ":1-7", uuid + ":1-7", true}, {uuid + ":1-5:7", uuid + ":6", false}, {"", uuid + ":1", false},
		{"0-1-7", uuid + ":1", false}, {uuid + ":1", "0-1-7", false}, {"what", "0-1-7", false}, {"0-1-7", "what", false},
	} {
		require.Equal(t, c.want, client.Contains(c.a, c.b), "%q has %q", c.a, c.b)
	}
}
