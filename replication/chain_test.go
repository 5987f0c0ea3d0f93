package replication_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// relayed is a world of two members in the east and three in the west, where one is the relay.
func relayed(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	policies(t, func(t *testing.T, c replication.Config) {
		c.Relays = true
		bubble(t, 5, c, func(t *testing.T, w *world) {
			for i := range w.members {
				w.members[i].Pool = map[bool]string{true: "east", false: "west"}[i < 2]
			}
			w.start()
			w.whole()
			w.write("db-1", "first")
			w.settled()
			relay := func() int { return strings.Index(w.sources(3, 4, 5), "db-1")/len("db-1 ") + 3 }
			for n := relay(); n != 3; n = relay() { // the one that was seeded first is it
				w.db.Crash(addr(n))
				time.Sleep(5 * time.Second)
				w.db.Start(addr(n))
				w.settled()
			}
			require.Equal(t, "db-1 db-1 db-3 db-3", w.sources(2, 3, 4, 5))
			f(t, w)
		})
	})
}

// sources says whom the members with these numbers follow.
func (w *world) sources(numbers ...int) string {
	var ids []string
	for _, n := range numbers {
		st, err := w.db.Observe(w.ctx, w.members[n-1])
		require.NoError(w.t, err)
		id := "nobody"
		for _, m := range w.members {
			if st.Source == m.Addr {
				id = m.ID
			}
		}
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}

// steps gives the steps since then, without reasons.
func (w *world) steps(since int) string {
	var steps []string
	for _, e := range w.seen(replication.KindStep)[since:] {
		step, _, _ := strings.Cut(e.Message, ":")
		steps = append(steps, step)
	}
	return strings.Join(steps, ", ")
}

func TestRelayDies(t *testing.T) {
	relayed(t, func(t *testing.T, w *world) {
		app := w.application(20 * time.Millisecond)
		w.db.Crash(addr(3))
		w.until("db-3 is down", time.Minute, func(t replication.Topology) bool {
			m, _ := t.Member("db-3")
			return m.Role == replication.RoleDown
		})
		time.Sleep(5 * time.Second)
		require.Equal(t, "db-1 db-1 db-4", w.sources(2, 4, 5), "another one is the relay")
		w.db.Start(addr(3))
		w.whole()
		time.Sleep(3 * time.Second)
		require.Equal(t, "db-1 db-4 db-1 db-4", w.sources(2, 3, 4, 5), "who is followed stays the relay")
		app.stop()
		top := w.settled()
		require.Equal(t, "db-1", top.Primary)
		require.Nil(t, top.Verdict)
		require.Empty(t, w.missing(app, "db-5"))
	})
}

// A change of primary concerns the relay, and not those who follow it.
func TestRelayAndLostPrimary(t *testing.T) {
	relayed(t, func(t *testing.T, w *world) {
		app := w.application(20 * time.Millisecond)
		time.Sleep(time.Second)
		before := len(w.seen(replication.KindStep))
		w.db.Crash(addr(1))
		require.Equal(t, "db-2", w.primary("db-1").Primary)
		time.Sleep(2 * time.Second)
		require.Equal(t, "db-2 db-3 db-3", w.sources(3, 4, 5))
		require.NotContains(t, w.steps(before), "db-4")
		require.NotContains(t, w.steps(before), "db-5")
		w.db.Start(addr(1))
		w.whole()
		app.stop()
		w.settled()
		require.Equal(t, "db-2 db-2 db-3 db-3", w.sources(1, 3, 4, 5))
		if w.config.Policy == replication.Durability {
			require.Empty(t, w.missing(app, "db-5"))
		}
	})
}

// The relay's pool becomes the primary's, and the other one gets a relay.
func TestRelaySwitchover(t *testing.T) {
	relayed(t, func(t *testing.T, w *world) {
		app := w.application(20 * time.Millisecond)
		time.Sleep(time.Second)
		require.NoError(t, w.manager().Switchover(w.ctx, "db-5"))
		w.whole()
		time.Sleep(3 * time.Second)
		require.Equal(t, "db-5 db-1 db-5 db-5", w.sources(1, 2, 3, 4))
		app.stop()
		w.settled()
		require.Empty(t, w.missing(app, "db-2"))
	})
}

func TestRelayTakesOverFromAPool(t *testing.T) {
	relayed(t, func(t *testing.T, w *world) {
		w.stoppable(time.Second, nil)
		w.manager().SetMembers(w.members, len(w.members))
		w.db.Crash(addr(1))
		w.db.Crash(addr(2))
		if w.config.Policy == replication.Durability {
			time.Sleep(time.Minute)
			top, _ := w.manager().Topology()
			require.Empty(t, top.Primary, "db-2 may have acknowledged what the west lacks")
			w.db.Start(addr(2))
			time.Sleep(time.Minute)
			top, _ = w.manager().Topology()
			require.Empty(t, top.Primary, "it has started again, and may have lost what it had received")
		} else {
			require.Equal(t, "db-3", w.primary("db-1").Primary)
			require.Equal(t, "db-3 db-3", w.sources(4, 5))
			w.db.Start(addr(2))
		}
		w.db.Start(addr(1))
		w.settled()
	})
}

// The relay stops applying: its followers get nothing through it, and do without it.
func TestRelayIsBehind(t *testing.T) {
	relayed(t, func(t *testing.T, w *world) {
		w.db.Hang(addr(3))
		app := w.application(20 * time.Millisecond)
		time.Sleep(6 * time.Second)
		require.Equal(t, "db-1 db-4", w.sources(4, 5))
		w.db.Resume(addr(3))
		w.whole()
		app.stop()
		w.settled()
		require.Equal(t, "db-1 db-4 db-1 db-4", w.sources(2, 3, 4, 5))
	})
}

// The relay is told to follow another one that has become it meanwhile. Its followers stay no further behind than one relay.
func TestRelayOfARelay(t *testing.T) {
	relayed(t, func(t *testing.T, w *world) {
		app := w.application(20 * time.Millisecond)
		w.stop()
		_, err := w.db.Drain(w.ctx, w.members[2])
		require.NoError(t, err)
		require.NoError(t, w.db.Follow(w.ctx, w.members[3], w.members[0]))
		for w.db.Follow(w.ctx, w.members[2], w.members[3]) != nil {
			time.Sleep(10 * time.Millisecond)
		}
		require.Equal(t, "db-4 db-1 db-3", w.sources(3, 4, 5))
		w.start()
		time.Sleep(5 * time.Second)
		require.Equal(t, "db-4 db-1 db-4", w.sources(3, 4, 5))
		app.stop()
		w.settled()
	})
}

// A Manager that sees neither the primary nor the relay, but somebody whom the relay feeds, does nothing.
func TestRelayIsAWitness(t *testing.T) {
	relayed(t, func(t *testing.T, w *world) {
		w.stoppable(time.Second, nil)
		w.manager().SetMembers(w.members, len(w.members))
		w.db.Crash(addr(2))
		time.Sleep(3 * time.Second)
		w.db.Cut("manager", addr(1))
		w.db.Cut("manager", addr(3))
		w.stays(time.Minute)
		w.db.Heal("manager", addr(1))
		w.db.Heal("manager", addr(3))
		w.db.Start(addr(2))
		require.Nil(t, w.settled().Verdict)
	})
}
