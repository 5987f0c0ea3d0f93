package dnsreg_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

func memory() *dnsreg.Memory { return &dnsreg.Memory{Zones: []string{zone}} }

// meddle changes the zone before each of the first n calls of Apply.
func meddle(m *dnsreg.Memory, n int) (calls *int) {
	calls = new(int)
	var busy bool
	m.Fault = func(ctx context.Context, c dnsreg.Call) error {
		if c.Op != "Apply" || c.Done || busy {
			return nil
		}
		if *calls++; *calls <= n {
			busy = true
			defer func() { busy = false }()
			_, err := dnsreg.Sync(ctx, m, zone, fmt.Sprintf("other-%d", *calls), []dnsreg.RRset{set("www."+zone, "A", ttl, fmt.Sprintf("198.51.100.%d", *calls))})
			return err
		}
		return nil
	}
	return calls
}

func TestSyncTriesAgainAfterAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory()
		calls := meddle(m, 3)
		changes, err := dnsreg.Sync(t.Context(), m, zone, "shop", []dnsreg.RRset{set("www."+zone, "A", ttl, "192.0.2.1")})
		require.NoError(t, err)
		require.Len(t, changes, 2, "the value and its mark")
		require.Equal(t, 4, *calls)
		list, err := m.Records(t.Context(), zone)
		require.NoError(t, err)
		require.Equal(t, []string{"192.0.2.1", "198.51.100.1", "198.51.100.2", "198.51.100.3"}, list[len(list)-1].Values)
	})
}

func TestSyncGivesInToEndlessConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory()
		calls := meddle(m, 1000)
		start := time.Now()
		changes, err := dnsreg.Sync(t.Context(), m, zone, "shop", []dnsreg.RRset{set("www."+zone, "A", ttl, "192.0.2.1")})
		require.ErrorIs(t, err, dnsreg.ErrConflict)
		require.Empty(t, changes)
		require.Equal(t, 12, *calls)
		require.Less(t, time.Since(start), 3*time.Second)
	})
}

// A name that somebody else never leaves alone holds back no other.
func TestSyncIsolatesEndlessConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory()
		var want []dnsreg.RRset
		for i := range 9 {
			want = append(want, set(fmt.Sprintf("n%d.%s", i, zone), "A", ttl, "192.0.2.1"))
		}
		want = append(want, set("www."+zone, "A", ttl, "192.0.2.1"))
		meddle(m, 1000)
		made, err := dnsreg.Sync(t.Context(), m, zone, "shop", want)
		require.ErrorIs(t, err, dnsreg.ErrConflict)
		require.Len(t, made, 18)
		m.Fault = nil
		list, err := m.Records(t.Context(), zone)
		require.NoError(t, err)
		for _, w := range want[:9] {
			require.Contains(t, list, w)
		}
	})
}

func TestSyncStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory()
		meddle(m, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := dnsreg.Sync(ctx, m, zone, "shop", []dnsreg.RRset{set("www."+zone, "A", ttl, "192.0.2.1")})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestSyncKeepsAValueAndItsMarkTogether(t *testing.T) {
	var want []dnsreg.RRset
	for i := range 9 {
		want = append(want, set(fmt.Sprintf("n%d.%s", i, zone), "A", ttl, "192.0.2.1"))
	}
	want = append(want, set("n4."+zone, "TXT", ttl, "x"))
	for _, limit := range []int{0, 3, 4, 7, 1000} {
		m := memory()
		m.MaxChanges = limit
		applies := 0
		m.Fault = func(_ context.Context, c dnsreg.Call) error {
			if c.Op != "Apply" || c.Done {
				return nil
			}
			applies++
			names := make(map[string]int)
			for _, change := range c.Changes {
				names[strings.TrimPrefix(change.Name, "_scalr.")]++
			}
			for name, n := range names {
				want := 2
				if name == "n4."+zone {
					want = 3
				}
				require.Equal(t, want, n, name)
			}
			return nil
		}
		changes, err := dnsreg.Sync(t.Context(), m, zone, "shop", want)
		require.NoError(t, err)
		require.Len(t, changes, 19)
		require.Equal(t, map[int]int{0: 1, 3: 9, 4: 5, 7: 3, 1000: 1}[limit], applies, "limit %d", limit)
	}
}

// Where a name's changes are more than go into one set, its marks come first.
func TestSyncWritesMarksFirstWhereItMustSplit(t *testing.T) {
	m := memory()
	m.MaxChanges = 1
	var order []string
	m.Fault = func(_ context.Context, c dnsreg.Call) error {
		if c.Op == "Apply" && c.Done {
			order = append(order, print(c.Changes))
		}
		return nil
	}
	_, err := dnsreg.Sync(t.Context(), m, zone, "shop", []dnsreg.RRset{set("www."+zone, "A", ttl, "192.0.2.1")})
	require.NoError(t, err)
	_, err = dnsreg.Sync(t.Context(), m, zone, "shop", []dnsreg.RRset{set("www."+zone, "A", ttl, "192.0.2.2")})
	require.NoError(t, err)
	_, err = dnsreg.Sync(t.Context(), m, zone, "shop", nil)
	require.NoError(t, err)
	require.Equal(t, trim(`
		+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s
		+ www A 192.0.2.1 ttl=20s

		+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.2" ttl=20s
		- www A 192.0.2.1 ttl=20s
		+ www A 192.0.2.2 ttl=20s
		- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s

		- www A 192.0.2.2 ttl=20s
		- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.2" ttl=20s`),
		strings.Join([]string{order[0], order[1], "", order[2], order[3], order[4], "", order[5], order[6]}, "\n"))
	require.Len(t, order, 7)
}

func TestSyncIsolatesWhatTheRegistrarRefuses(t *testing.T) {
	for _, r := range []func(*dnsreg.Memory) dnsreg.Registrar{
		func(m *dnsreg.Memory) dnsreg.Registrar { return m },
		func(m *dnsreg.Memory) dnsreg.Registrar { return oneByOne{m} },
	} {
		m := memory()
		m.Fault = func(_ context.Context, c dnsreg.Call) error {
			for _, change := range c.Changes {
				if strings.HasSuffix(change.Name, "bad."+zone) {
					return fmt.Errorf("%s: %w: not here", change.Name, dnsreg.ErrInvalid)
				}
			}
			return nil
		}
		var want []dnsreg.RRset
		for i := range 20 {
			want = append(want, set(fmt.Sprintf("n%d.%s", i, zone), "A", ttl, "192.0.2.1"))
		}
		want = append(want, set("bad."+zone, "A", ttl, "192.0.2.1"), set("short."+zone, "A", 0, "192.0.2.1"))
		m.MinTTL = time.Second
		changes, err := dnsreg.Sync(t.Context(), r(m), zone, "shop", want)
		require.ErrorIs(t, err, dnsreg.ErrInvalid)
		require.ErrorContains(t, err, "bad.example.com.: invalid: not here")
		if _, ok := r(m).(oneByOne); !ok {
			refused, ok := errors.AsType[*dnsreg.RefusedError](err)
			require.True(t, ok)
			require.EqualError(t, refused, "short.example.com. A: invalid: TTL 0s is shorter than the registrar's minimum, 1s")
		}
		require.Len(t, changes, 40)
	}
}

// What somebody undoes and leaves the marks of is put right again: a value that went, the whole RRset, a longer TTL.
func TestSyncPutsRightWhatSomebodyUndid(t *testing.T) {
	want := []dnsreg.RRset{set("www."+zone, "A", ttl, "192.0.2.1", "192.0.2.2")}
	for _, other := range []*dnsreg.RRset{nil, new(set("www."+zone, "A", ttl, "192.0.2.1")), new(set("www."+zone, "A", 2*ttl, "192.0.2.1", "192.0.2.2"))} {
		m := memory()
		_, err := dnsreg.Sync(t.Context(), m, zone, "shop", want)
		require.NoError(t, err)
		require.NoError(t, m.Apply(t.Context(), zone, []dnsreg.Change{{Name: want[0].Name, Type: "A", Old: &want[0], New: other}}))
		made, err := dnsreg.Sync(t.Context(), m, zone, "shop", want)
		require.NoError(t, err)
		require.Len(t, made, 1)
		list, err := m.Records(t.Context(), zone)
		require.NoError(t, err)
		require.Contains(t, list, want[0])
	}
}

func TestSyncAfterALostReplyFindsNothingToDo(t *testing.T) {
	m := memory()
	m.Fault = func(_ context.Context, c dnsreg.Call) error {
		if c.Op == "Apply" && c.Done {
			return errDown
		}
		return nil
	}
	want := []dnsreg.RRset{set("www."+zone, "A", ttl, "192.0.2.1")}
	changes, err := dnsreg.Sync(t.Context(), m, zone, "shop", want)
	require.ErrorIs(t, err, errDown)
	require.Empty(t, changes)
	m.Fault = nil
	changes, err = dnsreg.Sync(t.Context(), m, zone, "shop", want)
	require.NoError(t, err)
	require.Empty(t, changes)
	require.EqualValues(t, 2, m.Serial(zone))
}

func TestSyncReportsARecordsFailure(t *testing.T) {
	_, err := dnsreg.Sync(t.Context(), memory(), "example.net.", "shop", nil)
	require.ErrorIs(t, err, dnsreg.ErrNoZone)
	_, err = dnsreg.Sync(t.Context(), memory(), zone, "", nil)
	require.ErrorIs(t, err, dnsreg.ErrInvalid)
}

func TestOwnersWhoRaceAllGetWhatTheyWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory()
		m.Fault = func(context.Context, dnsreg.Call) error { time.Sleep(time.Millisecond); return nil }
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				for n := range 10 {
					want := []dnsreg.RRset{set("www."+zone, "A", ttl, fmt.Sprintf("192.0.%d.%d", i, n), "192.0.2.99")}
					_, err := dnsreg.Sync(t.Context(), m, zone, fmt.Sprintf("owner-%d", i), want)
					if err != nil && !errors.Is(err, dnsreg.ErrConflict) {
						t.Error(err)
					}
				}
				_, err := dnsreg.Sync(t.Context(), m, zone, fmt.Sprintf("owner-%d", i), nil)
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		list, err := m.Records(t.Context(), zone)
		require.NoError(t, err)
		require.Len(t, list, 2, "SOA and NS")
	})
}

func TestSyncSaysWhatWasMadeHalfWay(t *testing.T) {
	m := memory()
	want := []dnsreg.RRset{set("a."+zone, "A", ttl, "192.0.2.1"), set("b."+zone, "A", ttl, "192.0.2.1")}
	changes, err := dnsreg.Sync(t.Context(), halfWay{m}, zone, "shop", want)
	require.ErrorIs(t, err, errDown)
	require.EqualError(t, err, "apply to example.com.: 3 changes made, 0 unknown, 1 not made: down")
	require.Len(t, changes, 3)
}

// halfWay claims to be atomic, and stops before the last change.
type halfWay struct{ *dnsreg.Memory }

func (h halfWay) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	last := len(changes) - 1
	if err := h.Memory.Apply(ctx, zone, changes[:last]); err != nil {
		return err
	}
	return &dnsreg.PartialError{Done: changes[:last], Failed: changes[last:], Err: errDown}
}
