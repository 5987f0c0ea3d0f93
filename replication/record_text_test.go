package replication

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The text of a record is what it would be if it were written anew each time, whatever has changed since the last one.
func TestTheRecordIsUpToDate(t *testing.T) {
	verdicts := []*Verdict{nil, {To: "a"}, {To: "a", Lost: 1}, {To: "b", Began: time.Unix(1, 0)}}
	keys := []key{{"a", "a:1", ""}, {"b", "b:1", ""}, {"c", "c:1", "i-1"}}
	rapid.Check(t, func(t *rapid.T) {
		s, anew := newState("db"), newState("db")
		for _, k := range keys {
			for _, x := range []*state{s, anew} {
				x.members = append(x.members, &fact{Member: Member{ID: k.id, Addr: k.addr, Machine: k.machine}})
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			what, n := rapid.IntRange(0, 6).Draw(t, "what"), rapid.IntRange(0, 3).Draw(t, "n")
			for _, x := range []*state{s, anew} {
				switch what {
				case 0:
					x.verdict = verdicts[n]
				case 1:
					x.draft = verdicts[n]
				case 2:
					x.recoveries = append(x.recoveries, time.Unix(int64(n), 0))
				case 3:
					k := keys[n%3]
					if x.former[k] {
						delete(x.former, k)
					} else {
						x.former[k] = true
					}
				case 4:
					x.lost, x.lostAt = keys[n%3], Position([]string{"", "p"}[n%2])
				case 5:
					if v := x.verdict; v != nil {
						x.verdict = new(*v)
						x.verdict.Saved = []string{"", "f"}[n%2]
					}
				case 6:
					x.inherit(`{"set":"db","number":`+[]string{"1", "2", "9", "0"}[n]+`,"recoveries":["1970-01-01T00:00:07Z"],"verdict":{"to":"c"}}`, time.Unix(100, 0))
				}
			}
			anew.written = nil
			require.Equal(t, anew.text(), s.text())
			require.Equal(t, anew.number, s.number)
		}
	})
}

// A record that stays as it is costs next to nothing: it is looked at in each round.
func TestTheRecordIsWrittenWhenItChanges(t *testing.T) {
	s := newState("db")
	s.verdict, s.recoveries = &Verdict{Reason: "x"}, []time.Time{time.Unix(1, 0)}
	s.former[key{"a", "a:1", ""}] = true
	s.members = []*fact{{Member: Member{ID: "a", Addr: "a:1"}}}
	text := s.text()
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { s.text() }), 3.0)
	require.Equal(t, text, s.text())
}

// A record of another set says nothing here.
func TestTheRecordOfAnotherSet(t *testing.T) {
	theirs, s := newState("theirs"), newState("ours")
	theirs.verdict, theirs.recoveries = &Verdict{Reason: "x"}, []time.Time{time.Unix(1, 0)}
	s.inherit(theirs.text(), time.Unix(100, 0))
	require.Nil(t, s.verdict)
	require.Empty(t, s.recoveries)
	theirs.set, theirs.written = "ours", nil
	s.inherit(theirs.text(), time.Unix(100, 0))
	require.NotNil(t, s.verdict)
}
