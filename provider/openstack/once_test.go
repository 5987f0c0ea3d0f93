package openstack

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
)

// shelf is a cloud that holds things by token; what is made is listed after a lag.
type shelf struct {
	mu    sync.Mutex
	lag   time.Duration
	made  []time.Time
	ids   []int
	next  int
	fault func(n int) (effect bool, err error) // of the n-th post
	posts int
}

func (s *shelf) thing(token string) thing[int] {
	return thing[int]{op: "Make", token: token,
		find: func(ctx context.Context) ([]int, error) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			var seen []int
			for i, id := range s.ids {
				if time.Since(s.made[i]) >= s.lag {
					seen = append(seen, id)
				}
			}
			return seen, nil
		},
		post: func(ctx context.Context) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.posts++
			effect, err := true, error(nil)
			if s.fault != nil {
				effect, err = s.fault(s.posts)
			}
			if effect {
				s.next++
				s.ids, s.made = append(s.ids, s.next), append(s.made, time.Now())
			}
			return err
		},
		drop: func(_ context.Context, id int) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if i := slices.Index(s.ids, id); i >= 0 { // another process may have been first
				s.ids, s.made = slices.Delete(s.ids, i, i+1), slices.Delete(s.made, i, i+1)
			}
			return nil
		},
	}
}

func newLocks() *Cloud { return &Cloud{locks: locks{held: map[string]chan struct{}{}}} }

func TestACreationIsMadeOnce(t *testing.T) {
	for name, c := range map[string]struct {
		lag   time.Duration
		fault func(int) (bool, error)
		kind  error // of the first call
		posts int   // after the second
	}{
		"a good answer":                     {posts: 1},
		"a good answer, listed late":        {lag: 10 * time.Second, posts: 1},
		"a reply that is lost":              {fault: func(int) (bool, error) { return true, io.ErrUnexpectedEOF }, posts: 1},
		"503, and it was made":              {fault: func(int) (bool, error) { return true, said(503, "") }, posts: 1},
		"503, and it was made, listed late": {lag: 4 * time.Second, fault: func(int) (bool, error) { return true, said(503, "") }, posts: 1},
		"503, and nothing was made":         {fault: func(n int) (bool, error) { return n > 1, map[bool]error{true: nil, false: said(503, "")}[n > 1] }, kind: provider.ErrAmbiguous, posts: 2},
		"a quota":                           {fault: func(n int) (bool, error) { return n > 1, map[bool]error{true: nil, false: said(413, "")}[n > 1] }, kind: provider.ErrQuota, posts: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &shelf{lag: c.lag, fault: c.fault}
				cloud := newLocks()
				_, err := once(t.Context(), cloud, s.thing("t"))
				if c.kind == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, c.kind)
				}
				id, err := once(t.Context(), cloud, s.thing("t"))
				require.NoError(t, err)
				require.Equal(t, 1, id)
				require.Equal(t, c.posts, s.posts)
				require.Len(t, s.ids, 1)
			})
		})
	}
}

// A caller that has given up makes the cloud's own work no shorter: what it asked for is listed later.
func TestARequestThatWasGivenUpIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{lag: 3 * time.Second}
		cloud := newLocks()
		ctx, cancel := context.WithCancel(t.Context())
		s.fault = func(int) (bool, error) { cancel(); return true, context.Canceled }
		_, err := once(ctx, cloud, s.thing("t"))
		require.ErrorIs(t, err, provider.ErrAmbiguous)
		id, err := once(t.Context(), cloud, s.thing("t"))
		require.NoError(t, err)
		require.Equal(t, 1, id)
		require.Equal(t, 1, s.posts)

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.ids, s.made, s.lag = nil, nil, time.Hour
		cloud.unheard.Store("Make t", time.Now().Add(settle/4))
		_, err = once(short, cloud, s.thing("t"))
		require.Error(t, err)
		require.Equal(t, 1, s.posts, "nothing more was asked for")
	})
}

func TestOfSeveralTheOldestIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		for range 3 {
			require.NoError(t, s.thing("t").post(t.Context()))
		}
		id, err := once(t.Context(), newLocks(), s.thing("t"))
		require.NoError(t, err)
		require.Equal(t, 1, id)
		require.Equal(t, []int{1}, s.ids)
	})
}

// TestProcessesThatRaceKeepOne lets processes that share no lock make the same thing at once, with lost replies, again and again
// until each has an answer: one is left, and it is the one that whoever asks last is given.
func TestProcessesThatRaceKeepOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			lost := rapid.SliceOfN(rapid.IntRange(0, 3), 12, 12).Draw(rt, "faults")
			s := &shelf{fault: func(n int) (bool, error) {
				switch lost[n%len(lost)] {
				case 0:
					return true, io.ErrUnexpectedEOF
				case 1:
					return false, said(503, "")
				}
				return true, nil
			}}
			var wg sync.WaitGroup
			for range rapid.IntRange(1, 4).Draw(rt, "processes") {
				cloud := newLocks()
				wg.Go(func() {
					for range 20 {
						if _, err := once(rt.Context(), cloud, s.thing("t")); err == nil {
							return
						}
					}
				})
			}
			wg.Wait()
			id, err := once(rt.Context(), newLocks(), s.thing("t"))
			if err != nil {
				rt.Fatal(err)
			}
			if len(s.ids) != 1 || s.ids[0] != id {
				rt.Fatalf("%v are left, got %d", s.ids, id)
			}
		})
	})
}

func TestACreationWhoseContextEndsIsAmbiguousOnceItIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &shelf{fault: func(int) (bool, error) { cancel(); return true, context.Canceled }}
		_, err := once(ctx, newLocks(), s.thing("t"))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, provider.ErrAmbiguous)
		_, err = once(ctx, newLocks(), s.thing("t"))
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, provider.ErrAmbiguous, "nothing was sent")
		require.Equal(t, 1, s.posts)
	})
}

func TestOneCallAtATimeHasAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, s := newLocks(), &shelf{lag: time.Second}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				id, err := once(t.Context(), cloud, s.thing("t"))
				require.NoError(t, err)
				require.Equal(t, 1, id)
			})
		}
		wg.Wait()
		require.Equal(t, 1, s.posts)
		unlock, err := cloud.locks.lock(t.Context(), "x")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = cloud.locks.lock(ctx, "x")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		unlock()
		require.Empty(t, cloud.locks.held)
	})
}

func TestAMemberThatDrainsHasItsTime(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	m := member{Name: "i", Status: "ONLINE", Weight: 1}
	target, ok := m.target(now)
	require.True(t, ok)
	require.Equal(t, provider.Target{Instance: "i", State: provider.TargetHealthy}, target)
	m.Weight, m.Strings = 0, []string{memberUntil + "=1000010"}
	target, ok = m.target(now)
	require.True(t, ok)
	require.Equal(t, provider.TargetDraining, target.State)
	_, ok = m.target(now.Add(10 * time.Second))
	require.False(t, ok)
	m.Weight, m.Strings, m.Status = 1, []string{memberUntil + "=0"}, "ERROR"
	target, ok = m.target(now)
	require.True(t, ok)
	require.Equal(t, provider.TargetUnhealthy, target.State)
	m.Status = "NO_MONITOR"
	target, _ = m.target(now)
	require.Equal(t, provider.TargetInitial, target.State)
}

func TestStatesOfServers(t *testing.T) {
	for want, all := range map[provider.State][]server{
		provider.Pending:     {{Status: "BUILD"}, {Status: "BUILD", TaskState: "spawning"}},
		provider.Running:     {{Status: "ACTIVE"}, {Status: "REBOOT"}, {Status: "HARD_REBOOT"}, {Status: "VERIFY_RESIZE"}, {Status: "MIGRATING"}},
		provider.Stopped:     {{Status: "SHUTOFF"}, {Status: "ACTIVE", TaskState: "powering-off"}, {Status: "PAUSED"}, {Status: "SHELVED_OFFLOADED"}},
		provider.Terminating: {{Status: "ACTIVE", TaskState: "deleting"}, {Status: "ERROR", TaskState: "deleting"}, {Status: "SOFT_DELETED"}},
		provider.Terminated:  {{Status: "DELETED"}},
		provider.Failed:      {{Status: "ERROR"}},
	} {
		for _, s := range all {
			require.Equal(t, want, s.state(), "%+v", s)
		}
	}
	s := server{Description: "scalr tok sig"}
	token, spec := s.made()
	require.Equal(t, []string{"tok", "sig"}, []string{token, spec})
}
