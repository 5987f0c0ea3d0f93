package cronlock_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/cronlocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryConformance(t *testing.T) {
	cronlocktest.Run(t, func(testing.TB) cronlocktest.Store {
		m := new(cronlock.Memory)
		return cronlocktest.Store{
			Open:    func() cronlock.Locker { return m },
			Lose:    func(name string) { m.Expire(name) },
			Waiting: m.Waiting,
		}
	})
}

func TestMemoryClaimerConformance(t *testing.T) {
	cronlocktest.RunClaimer(t, func(testing.TB) cronlocktest.ClaimStore {
		m := new(cronlock.Memory)
		return cronlocktest.ClaimStore{Open: func() cronlock.Claimer { return m }, Lose: func(runner string) { m.Expire(runner) }}
	})
}

// Callers come, work, give up and lose their leases at random, in virtual time. Whatever the order: of the callers whose
// leases have not been lost at most one works, tokens rise, waiters are served first come first served, every call
// returns what the contract says, and nothing is left.
func TestMemoryUnderChance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// All is drawn in units of 16 ms, and each caller and loss has an offset of its own, so that no two things
		// happen at one instant and the expected order is never a tie.
		units := func(label string, most int) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * 16 * time.Millisecond
		}
		callers := make([]caller, rapid.IntRange(1, 12).Draw(t, "callers"))
		for i := range callers {
			callers[i] = caller{
				id:       i,
				at:       units("at", 40) + time.Duration(i)*time.Microsecond,
				patience: units("patience", 100) + time.Microsecond/2,
				work:     units("work", 20),
			}
		}
		losses := rapid.SliceOfN(rapid.IntRange(0, 60), 0, 4).Draw(t, "losses")
		rapid.SyncTest(t, func(t *rapid.T) {
			r := &record{t: t, holder: -1, lost: map[int]bool{}}
			done := make(chan struct{})
			for _, c := range callers {
				go func() { defer func() { done <- struct{}{} }(); c.run(r) }()
			}
			for i, at := range losses {
				go func() {
					time.Sleep(time.Duration(at)*16*time.Millisecond + time.Duration(500+i)*time.Microsecond)
					r.expire()
				}()
			}
			for range callers {
				<-done
			}
			time.Sleep(2 * time.Second) // the last losses
			if err := r.locker.TryHold(context.Background(), "name", func(context.Context, cronlock.Lease) error { return nil }); err != nil {
				t.Errorf("in the end the name is not free: %v", err)
			}
		})
	})
}

var errImpatient = errors.New("gave up waiting")

// caller is one call of Hold.
type caller struct {
	id                 int
	at, patience, work time.Duration
}

// record is what the callers see, and the rules that it must keep.
type record struct {
	locker cronlock.Memory
	mu     sync.Mutex
	t      *rapid.T
	queue  []int // who waits, in the order of arrival
	holder int   // who works by right, or -1
	lost   map[int]bool
	token  uint64
}

func (r *record) update(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *record) expire() {
	r.update(func() {
		if got, want := r.locker.Expire("name"), r.holder >= 0; got != want {
			r.t.Errorf("Expire returned %t, want %t", got, want)
		}
		r.lost[r.holder] = true
		r.holder = -1
	})
}

func (r *record) leave(id int) {
	r.queue = slices.DeleteFunc(r.queue, func(other int) bool { return other == id })
}

func (c caller) run(r *record) {
	time.Sleep(c.at)
	ctx, cancel := context.WithTimeoutCause(context.Background(), c.patience, errImpatient)
	defer cancel()
	r.update(func() { r.queue = append(r.queue, c.id) })
	worked := false
	err := r.locker.Hold(ctx, "name", func(ctx context.Context, lease cronlock.Lease) error {
		worked = true
		r.update(func() {
			if r.queue[0] != c.id {
				r.t.Errorf("caller %d is served, the queue is %v", c.id, r.queue)
			}
			if r.holder >= 0 {
				r.t.Errorf("caller %d works while caller %d does", c.id, r.holder)
			}
			if lease.Token <= r.token {
				r.t.Errorf("token %d after %d", lease.Token, r.token)
			}
			r.leave(c.id)
			r.holder, r.token = c.id, lease.Token
		})
		time.Sleep(c.work) // without a look at the context, as bad work does
		r.update(func() {
			if r.holder == c.id {
				r.holder = -1
			} else if ctx.Err() == nil {
				r.t.Errorf("caller %d lost its lease and was not told", c.id)
			}
		})
		return nil
	})
	r.update(func() {
		r.leave(c.id)
		switch {
		case !worked && !errors.Is(err, errImpatient):
			r.t.Errorf("caller %d did not work, and Hold returned %v", c.id, err)
		case worked && r.lost[c.id] != errors.Is(err, cronlock.ErrLost):
			r.t.Errorf("caller %d worked (lease lost: %t), and Hold returned %v", c.id, r.lost[c.id], err)
		case worked && !r.lost[c.id] && err != nil:
			r.t.Errorf("caller %d worked, and Hold returned %v", c.id, err)
		}
	})
}

func TestMemoryExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		require.False(t, m.Expire("job"), "nobody holds the name")
		go func() {
			time.Sleep(time.Minute)
			m.Expire("job")
		}()
		start := time.Now()
		err := m.Hold(t.Context(), "job", func(ctx context.Context, lease cronlock.Lease) error {
			require.Equal(t, start, lease.Held)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.Equal(t, cronlock.ErrLost, err, "ErrLost is not repeated where work has returned it")
		require.Equal(t, time.Minute, time.Since(start))
		require.Zero(t, m.Waiting("job"))
	})
}

func TestMemoryWantsWork(t *testing.T) {
	var m cronlock.Memory
	require.ErrorContains(t, m.Hold(t.Context(), "job", nil), "work is nil")
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"":                       "has 0 bytes, want 1 to 200",
		strings.Repeat("x", 201): "has 201 bytes",
		"a b":                    "byte 0x20",
		"a\x7f":                  "byte 0x7f",
		"\u00e9":                 "byte 0xc3",
		"/a":                     `segment ""`,
		"a/":                     `segment ""`,
		"a/../b":                 `segment ".."`,
		".":                      `segment "."`,
	} {
		require.ErrorContains(t, cronlock.CheckName(name), want, "%q", name)
	}
	for _, name := range []string{"a", "farm/www", "...", "a/.b", "~!@#$%^&*()", strings.Repeat("x", 200)} {
		require.NoError(t, cronlock.CheckName(name), "%q", name)
	}
}
