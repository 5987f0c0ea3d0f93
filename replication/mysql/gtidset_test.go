package mysql

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/replication"
)

const (
	uuidA = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	uuidB = "4f22ab58-71ca-11e1-9e33-c80aa9429562"
)

func TestGTIDSetNotation(t *testing.T) {
	for in, want := range map[string]string{
		"":                                   "",
		" \n":                                "",
		uuidA + ":1":                         uuidA + ":1",
		strings.ToUpper(uuidA) + ":1-1":      uuidA + ":1",
		uuidA + ":7:1-3:4-5":                 uuidA + ":1-5:7",
		uuidB + ":1-3,\n" + uuidA + ":2":     uuidA + ":2," + uuidB + ":1-3",
		uuidA + ":1-3," + uuidA + ":2-9":     uuidA + ":1-9",
		uuidA + ":1-3:Fix:1-2:4:other_1:9":   uuidA + ":1-3," + uuidA + ":fix:1-2:4," + uuidA + ":other_1:9",
		uuidA + ":fix:5":                     uuidA + ":fix:5",
		uuidA + ":8#31:9#32," + uuidB + ":1": uuidA + ":8-9," + uuidB + ":1",
	} {
		set, err := parseGTIDSet(in)
		require.NoError(t, err, in)
		require.Equal(t, want, set.String(), in)
	}
	for _, bad := range []string{"x", uuidA, uuidA + ":", uuidA + ":0", uuidA + ":3-1", uuidA + ":1-", uuidA + ":1,", uuidA + ":fix",
		uuidA + ":1:fix", uuidA + ":fix:other:1", uuidA[1:] + ":1", "g" + uuidA[1:] + ":1", uuidA + ":9223372036854775807",
		uuidA + ":18446744073709551616", "0-1-5"} {
		_, err := parseGTIDSet(bad)
		require.Error(t, err, bad)
	}
}

// Positions of the two kinds of server have nothing in common, and no position is behind all of either.
func TestCompareKindsOfPositions(t *testing.T) {
	e := &Engine{}
	set, maria := replication.Position(uuidA+":1-5"), replication.Position("0-1-5")
	require.Equal(t, replication.Diverged, e.Compare(set, maria))
	require.Equal(t, replication.Diverged, e.Compare(maria, set))
	require.Equal(t, replication.Ahead, e.Compare(set, ""))
	require.Equal(t, replication.Behind, e.Compare("", set))
	require.Equal(t, replication.Diverged, e.Compare(set, uuidA+":x"))
	n, exact := e.Count(set, "")
	require.True(t, exact)
	require.EqualValues(t, 5, n)
	_, exact = e.Count(set, maria)
	require.False(t, exact)
}

// drawSet gives a set as its elements, one by one, and in some notation of MySQL's.
func drawSet(t *rapid.T, name string) (elements map[string]bool, text string) {
	elements = map[string]bool{}
	var items []string
	for range rapid.IntRange(0, 6).Draw(t, name) {
		writer := rapid.SampledFrom([]string{uuidA, uuidB, uuidA + ":fix"}).Draw(t, "writer")
		first := rapid.IntRange(1, 12).Draw(t, "first")
		last := rapid.IntRange(first, 12).Draw(t, "last")
		for n := first; n <= last; n++ {
			elements[fmt.Sprint(writer, "#", n)] = true
		}
		if item := fmt.Sprintf("%s:%d-%d", writer, first, last); rapid.Bool().Draw(t, "upper") {
			items = append(items, strings.ToUpper(item))
		} else {
			items = append(items, item)
		}
	}
	return elements, strings.Join(items, rapid.SampledFrom([]string{",", ",\n", " , "}).Draw(t, "comma"))
}

func lacking(a, b map[string]bool) (n uint64) {
	for e := range a {
		if !b[e] {
			n++
		}
	}
	return n
}

// Whatever the notation, sets are compared and counted as their elements are.
func TestGTIDSetsAreSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, aText := drawSet(t, "a")
		b, bText := drawSet(t, "b")
		s, err := parseGTIDSet(aText)
		require.NoError(t, err)
		u, err := parseGTIDSet(bText)
		require.NoError(t, err)
		require.EqualValues(t, len(a), s.count())
		require.Equal(t, lacking(a, b), s.without(u).count())
		both := maps.Clone(a)
		maps.Copy(both, b)
		require.EqualValues(t, len(both), s.union(u).count())
		require.Equal(t, lacking(a, b) == 0, u.holds(s))
		require.True(t, s.union(u).holds(s) && s.union(u).holds(u))
		require.True(t, s.holds(s.without(u)) && s.without(u).without(s.without(u)).count() == 0)
		require.Equal(t, s.union(u).String(), u.union(s).String())

		p, q := s.public(), u.public()
		want := replication.Equal
		switch more, less := lacking(a, b) > 0, lacking(b, a) > 0; {
		case more && less:
			want = replication.Diverged
		case more:
			want = replication.Ahead
		case less:
			want = replication.Behind
		}
		require.Equal(t, want, compareSets(p, q))
		require.Equal(t, want == replication.Equal, p == q, "one notation for one set: %s and %s", p, q)
		n, exact := countSets(p, q)
		require.True(t, exact)
		require.Equal(t, lacking(a, b), n)

		back, err := parseGTIDSet(s.String())
		require.NoError(t, err)
		require.Equal(t, s.String(), back.String())
		for _, list := range s {
			require.True(t, slices.IsSortedFunc(list, func(x, y interval) int {
				if x.last+1 < y.first {
					return -1
				}
				return 1
			}), "%v", list)
		}
	})
}

func FuzzParseGTIDSet(f *testing.F) {
	f.Add(uuidA + ":1-5:fix:7," + uuidB + ":8#3")
	f.Fuzz(func(t *testing.T, s string) {
		set, err := parseGTIDSet(s)
		if err != nil {
			return
		}
		if back, err := parseGTIDSet(set.String()); err != nil || back.String() != set.String() {
			t.Fatalf("%q became %q (%v)", set, back, err)
		}
	})
}
