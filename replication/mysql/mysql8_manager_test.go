package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
)

// A Manager makes a set of fakes of MySQL, keeps every acknowledged row when the primary is killed under load, takes the
// old primary back, also where it has to be cloned, and switches over as planned.
func TestMySQL8Manager(t *testing.T) {
	for _, policy := range []replication.Policy{replication.Availability, replication.Durability} {
		t.Run(policy.String(), func(t *testing.T) { testManager8(t, policy) })
	}
}

func testManager8(t *testing.T, policy replication.Policy) {
	e, fakes, members := set8(t, "8.0.36", 3)
	var mu sync.Mutex
	var events []scalr.Event
	m, err := replication.New(replication.Config{Name: "test/db", Engine: e, Policy: policy, Interval: 50 * time.Millisecond,
		Events: func(e scalr.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}})
	require.NoError(t, err)
	m.SetMembers(members, len(members))
	fakes[0].with(func() { fakes[0].w.restart = time.Second }) // long enough for the Manager to see that it is down
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		if t.Failed() {
			for _, e := range events {
				t.Log(e)
			}
		}
	})
	whole := func(but string) (primary string) {
		t.Helper()
		within(t, "the set has a primary that is not "+but+" and its replicas serve", func() bool {
			top, _ := m.Topology()
			replicas := 0
			for _, x := range top.Members {
				if x.Role == replication.RoleReplica && x.Serves {
					replicas++
				}
			}
			primary = top.Primary
			return primary != "" && primary != but && replicas == 2
		})
		return primary
	}
	fake := func(id string) *fake8 {
		for i, x := range members {
			if x.ID == id {
				return fakes[i]
			}
		}
		return nil
	}
	first := whole("")

	// Applications write to whoever is the primary, and remember what was acknowledged.
	acked := map[string]bool{}
	write, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	for i := range 3 {
		writers.Go(func() {
			for n := 0; write.Err() == nil; n++ {
				top, _ := m.Topology()
				key := fmt.Sprintf("w%d-%d", i, n)
				if p, ok := top.Member(top.Primary); ok {
					short, cancel := context.WithTimeout(write, 2*time.Second)
					if put8(short, p.Member, key) == nil {
						mu.Lock()
						acked[key] = true
						mu.Unlock()
					}
					cancel()
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
	more := func() {
		t.Helper()
		n := count()
		within(t, "writes go on", func() bool { return count() > n+20 })
	}
	more()
	fake(first).Kill()
	within(t, "another one is the primary", func() bool {
		top, _ := m.Topology()
		return top.Primary != "" && top.Primary != first
	})
	more()
	fake(first).Restart()
	second := whole(first)
	more()
	stop()
	writers.Wait()

	// Whatever an asynchronous primary had acknowledged and sent to nobody is gone; nothing else is.
	lost := 0
	fake(second).with(func() {
		for key := range acked {
			if _, ok := fake(second).data[key]; !ok {
				lost++
			}
		}
	})
	if policy == replication.Durability {
		require.Zero(t, lost, "of %d acknowledged rows", len(acked))
	}
	for i, x := range members {
		within(t, x.ID+" has what the primary has", func() bool {
			p, err1 := e.Observe(t.Context(), m8(members, second))
			st, err2 := e.Observe(t.Context(), x)
			return errors.Join(err1, err2) == nil && st.Applied == p.Applied
		})
		fakes[i].with(func() { require.Equal(t, fake(second).data, fakes[i].data, x.ID) })
	}
	require.NoError(t, m.Switchover(t.Context(), first))
	require.Equal(t, first, whole(second))
	require.NoError(t, put8(t.Context(), m8(members, first), "last"))
	for _, f := range fakes {
		f.has(t, "last")
	}
}

// m8 finds a member.
func m8(members []replication.Member, id string) replication.Member {
	for _, m := range members {
		if m.ID == id {
			return m
		}
	}
	return replication.Member{}
}
