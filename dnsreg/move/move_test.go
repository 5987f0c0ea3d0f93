package move_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/move"
)

const (
	zone = "example.com."
	name = "www.example.com."
)

var (
	oldIPs = []string{"192.0.2.1", "192.0.2.2"}
	newIPs = []string{"198.51.100.1", "198.51.100.2"}
)

// world is a zone on lagging name servers, its clients, and the machines behind it.
type world struct {
	dnsreg.Memory
	mu      sync.Mutex
	history []version
	servers []*server
	caches  []client // resolvers that clients share
	clients []client
	rand    *rand.Rand
	dead    map[string]bool // addresses that no longer serve
	harm    []string        // what should never be
}

type version struct {
	at  time.Time
	set dnsreg.RRset
}

type server struct {
	lag       time.Duration
	downUntil time.Time
}

type client struct {
	set     dnsreg.RRset
	expires time.Time
}

var errDown = errors.New("down")

// Apply keeps what the name had at each instant.
func (w *world) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	err := w.Memory.Apply(ctx, zone, changes)
	list, _ := w.Records(context.WithoutCancel(ctx), zone)
	v := version{at: time.Now(), set: dnsreg.RRset{Name: name, Type: "A"}}
	for _, r := range list {
		if r.Name == name && r.Type == "A" {
			v.set = r
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, v)
	return err
}

// answer is what a name server says: what the zone was a while ago.
func (w *world) answer(s *server) (dnsreg.RRset, error) {
	if time.Now().Before(s.downUntil) {
		return dnsreg.RRset{}, errDown
	}
	for _, v := range slices.Backward(w.history) {
		if !v.at.After(time.Now().Add(-s.lag)) {
			return v.set, nil
		}
	}
	return w.history[0].set, nil
}

// ask is what a client gets and until when it holds it, from a name server or from a resolver that has it: that one counts
// whole seconds, as BIND does, so that the rest of its TTL is up to a second longer than it should be. Answers take up to two
// seconds to arrive, and are held from then on.
func (w *world) ask(now time.Time) (client, bool) {
	late := func() time.Duration { return time.Duration(w.rand.IntN(2000)) * time.Millisecond }
	asked := func() (client, bool) {
		set, err := w.answer(w.servers[w.rand.IntN(len(w.servers))])
		return client{set, now.Add(late() + set.TTL)}, err == nil
	}
	i := w.rand.IntN(2 * len(w.caches))
	if i >= len(w.caches) {
		return asked()
	}
	c := &w.caches[i]
	if !now.Before(c.expires) {
		got, ok := asked()
		if !ok {
			return got, false
		}
		*c = got
	}
	rest := c.expires.Truncate(time.Second).Sub(now.Truncate(time.Second))
	return client{c.set, now.Add(min(rest, c.set.TTL))}, true
}

// look lets every client look up the name where it does not hold it any more, and checks that what they hold serves.
func (w *world) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for i := range w.clients {
		c := &w.clients[i]
		if !now.Before(c.expires) && w.rand.IntN(3) > 0 {
			if got, ok := w.ask(now); ok {
				*c = got
			}
		}
		if !now.Before(c.expires) {
			continue
		}
		if len(c.set.Values) == 0 {
			w.harm = append(w.harm, "a client holds no address")
		}
		for _, v := range c.set.Values {
			if w.dead[v] {
				w.harm = append(w.harm, fmt.Sprintf("%v: client %d holds %s for %v more", now, i, v, c.expires.Sub(now)))
			}
		}
	}
}

// mover gives the move, and the function that keeps its states and ends machines as soon as they may go.
func (w *world) mover(ttl time.Duration) (move.Move, func(move.State) error) {
	m := move.Move{Registrar: w, Zone: zone, Owner: "shop", Name: name, Type: "A", Old: oldIPs, New: newIPs, TTL: ttl, Patience: 5 * time.Minute}
	for _, s := range w.servers {
		m.Servers = append(m.Servers, func(context.Context, string, string) (dnsreg.RRset, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.answer(s)
		})
	}
	return m, func(s move.State) error {
		w.mu.Lock()
		if s.OldUnused() {
			for _, v := range oldIPs {
				w.dead[v] = true
			}
		}
		if s.NewUnused() {
			for _, v := range newIPs {
				w.dead[v] = true
			}
		}
		w.mu.Unlock()
		w.look()
		return nil
	}
}

func newWorld(t require.TestingT, seed uint64, lags []time.Duration, ttl time.Duration) *world {
	w := &world{Memory: dnsreg.Memory{Zones: []string{zone}}, caches: make([]client, 4), clients: make([]client, 12), rand: rand.New(rand.NewPCG(seed, 1)), dead: make(map[string]bool)}
	for _, lag := range lags {
		w.servers = append(w.servers, &server{lag: lag})
	}
	_, err := dnsreg.Sync(context.Background(), w, zone, "shop", []dnsreg.RRset{
		{Name: name, Type: "A", TTL: ttl, Values: oldIPs},
		{Name: "other.example.com.", Type: "A", TTL: ttl, Values: oldIPs},
	})
	require.NoError(t, err)
	time.Sleep(slices.Max(lags) + time.Second)
	return w
}

// clientsUntil lets clients look every 500 ms until the context ends.
func (w *world) clientsUntil(ctx context.Context) {
	for ctx.Err() == nil {
		w.look()
		time.Sleep(500 * time.Millisecond)
	}
}

// At no instant does a client hold an address that no longer serves, whatever lags, fails, stops or starts again.
func TestNoClientHoldsAnAddressThatDoesNotServe(t *testing.T) {
	done, back := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		seconds := func(label string, low, high int) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(rt, label)) * time.Second
		}
		var lags []time.Duration
		for range rapid.IntRange(1, 3).Draw(rt, "servers") {
			lags = append(lags, seconds("lag", 0, 40))
		}
		before, ttl := seconds("before", 1, 120), seconds("ttl", 1, 60)
		unhealthy := seconds("unhealthy", 0, 300) // from then on, if the flag is set
		fails := rapid.IntRange(0, 3).Draw(rt, "fails") == 0
		outage, outageAt := seconds("outage", 0, 500), seconds("outage at", 0, 300)
		crashes := rapid.SliceOfN(rapid.IntRange(1, 200), 0, 4).Draw(rt, "crashes")
		seed := rapid.Uint64().Draw(rt, "seed")
		var last move.State
		var harm []string
		var list []dnsreg.RRset
		var listErr error
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, lags, before)
			m, save := w.mover(ttl)
			begin := time.Now()
			m.Check = func(context.Context) error {
				if fails && time.Since(begin) > unhealthy {
					return errors.New("the new machines do not serve")
				}
				return nil
			}
			ctx, cancel := context.WithCancel(context.Background())
			go w.clientsUntil(ctx)
			go func() { // one name server does not answer for a while
				time.Sleep(outageAt)
				w.mu.Lock()
				w.servers[0].downUntil = time.Now().Add(outage)
				w.mu.Unlock()
			}()
			var kept move.State
			for _, after := range append(crashes, 1<<20) { // the program dies and starts again
				run, stop := context.WithTimeout(ctx, time.Duration(after)*time.Second)
				_, err := m.Run(run, kept, func(s move.State) error { kept = s; return save(s) })
				stop()
				if err == nil {
					break
				}
				time.Sleep(time.Second)
			}
			time.Sleep(2 * max(before, ttl))
			cancel()
			synctest.Wait()
			time.Sleep(max(outageAt, time.Second))
			last, harm = kept, w.harm
			list, listErr = w.Records(context.Background(), zone)
		})
		require.Empty(rt, harm[:min(3, len(harm))])
		require.NoError(rt, listErr)
		require.True(rt, last.Ended(), "%+v", last)
		want := newIPs
		if last.Phase == move.BackDone {
			back++
			want = oldIPs
			require.NotEmpty(rt, last.Reason)
		} else {
			done++
			require.Empty(rt, last.Reason)
		}
		require.Equal(rt, []dnsreg.RRset{
			{Name: "other.example.com.", Type: "A", TTL: before, Values: oldIPs},
			{Name: name, Type: "A", TTL: before, Values: want},
		}, dnsreg.Owned(zone, "shop", list))
	})
	require.NotZero(t, done)
	require.NotZero(t, back)
}

// The phases come in their order and last as long as they must.
func TestAMoveWaitsForTheTTLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, []time.Duration{0, 5 * time.Second}, time.Hour)
		m, save := w.mover(20 * time.Second)
		at := map[move.Phase]time.Duration{}
		begin := time.Now()
		s, err := m.Run(t.Context(), move.State{}, func(s move.State) error {
			if _, ok := at[s.Phase]; !ok {
				at[s.Phase] = time.Since(begin).Round(time.Second)
			}
			return save(s)
		})
		require.NoError(t, err)
		require.Equal(t, move.Done, s.Phase)
		require.Equal(t, map[move.Phase]time.Duration{move.Lower: 0, move.Add: time.Hour + 11*time.Second,
			move.Remove: time.Hour + 16*time.Second, move.Raise: time.Hour + 47*time.Second, move.Done: time.Hour + 47*time.Second}, at)
	})
}

// A name that does not hold the old values is not moved.
func TestAMoveBeginsWithTheOldValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, []time.Duration{0}, time.Minute)
		m, _ := w.mover(0)
		m.Old = []string{"203.0.113.1"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		serial := w.Serial(zone)
		s, err := m.Run(ctx, move.State{}, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, move.Start, s.Phase)
		require.Equal(t, serial, w.Serial(zone))
	})
}

// Where a registrar has a minimum, no TTL of a move is below it, there and back, also if the name has that one already.
func TestAMoveKeepsToTheMinimumTTL(t *testing.T) {
	for _, before := range []time.Duration{time.Minute, time.Minute + time.Second, 5 * time.Minute} {
		for _, want := range []move.Phase{move.Done, move.BackDone} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, []time.Duration{0, 3 * time.Second}, before)
				w.MinTTL = time.Minute
				m, save := w.mover(0)
				m.Check = func(context.Context) error {
					if want == move.BackDone {
						return errors.New("the new machines do not serve")
					}
					return nil
				}
				ctx, cancel := context.WithCancel(t.Context())
				go w.clientsUntil(ctx)
				bounded, stop := context.WithTimeout(ctx, time.Hour)
				defer stop()
				s, err := m.Run(bounded, move.State{}, save)
				time.Sleep(2 * before)
				cancel()
				synctest.Wait()
				require.NoError(t, err)
				require.Equal(t, want, s.Phase)
				require.Empty(t, w.harm[:min(3, len(w.harm))])
				time.Sleep(time.Second)
			})
		}
	}
}

func TestMovesAreChecked(t *testing.T) {
	w := &world{Memory: dnsreg.Memory{Zones: []string{zone}}, servers: []*server{{}}}
	for want, change := range map[string]func(*move.Move){
		"move: Registrar is missing":                                           func(m *move.Move) { m.Registrar = nil },
		"move: Servers is empty, want every name server of the zone":           func(m *move.Move) { m.Servers = nil },
		`move: Type is "CNAME", want A or AAAA`:                                func(m *move.Move) { m.Type = "CNAME" },
		"move: New: www.example.com. A: invalid: no values, want at least one": func(m *move.Move) { m.New = nil },
		"move: New has 192.0.2.1, which is in Old too":                         func(m *move.Move) { m.New = oldIPs },
		"move: TTL is -1ns, want more than 0, or 0 for the default":            func(m *move.Move) { m.TTL = -1 },
		"move: TTL is 10s, want at least 31s, a second more than the registrar's minimum": func(m *move.Move) {
			m.Registrar = &dnsreg.Memory{Zones: []string{zone}, MinTTL: 30 * time.Second}
			m.TTL = 10 * time.Second
		},
		"move: www.example.net. A: invalid: the name is not in zone example.com.": func(m *move.Move) { m.Name = "www.example.net." },
	} {
		m, _ := w.mover(0)
		change(&m)
		_, err := m.Run(t.Context(), move.State{}, nil)
		require.EqualError(t, err, want)
	}
}

// A name server that has not seen the new values yet is not taken for one that has given them up already.
func TestGoingBackWaitsForTheNewValuesToHaveBeenSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, []time.Duration{10 * time.Second}, 2*time.Second)
		m, save := w.mover(2 * time.Second)
		adding := 0
		m.Check = func(context.Context) error {
			if adding++; adding == 3 {
				return errors.New("the new machines do not serve")
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		go w.clientsUntil(ctx)
		s, err := m.Run(ctx, move.State{}, save)
		time.Sleep(time.Minute)
		cancel()
		synctest.Wait()
		require.NoError(t, err)
		require.Equal(t, move.BackDone, s.Phase)
		require.Equal(t, "the new machines do not serve", s.Reason)
		require.Empty(t, w.harm[:min(3, len(w.harm))])
		time.Sleep(time.Second)
	})
}
