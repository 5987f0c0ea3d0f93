package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
)

type page struct {
	Title string
	Tags  []string
}

// counted counts the calls of a store, each of which takes a millisecond, and fails them while err is set.
type counted struct {
	cache.Memory
	calls atomic.Int32
	err   atomic.Pointer[error]
}

func (c *counted) call() error {
	c.calls.Add(1)
	time.Sleep(time.Millisecond)
	if err := c.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *counted) Get(ctx context.Context, key string) (cache.Item, error) {
	if err := c.call(); err != nil {
		return cache.Item{}, err
	}
	return c.Memory.Get(ctx, key)
}

func (c *counted) Lease(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
	if err := c.call(); err != nil {
		return cache.Item{}, false, err
	}
	return c.Memory.Lease(ctx, key, ttl)
}

func (c *counted) Set(ctx context.Context, item cache.Item) error {
	return errors.Join(c.call(), c.Memory.Set(ctx, item))
}

func (c *counted) Add(ctx context.Context, item cache.Item) error {
	if err := c.call(); err != nil {
		return err
	}
	return c.Memory.Add(ctx, item)
}

func (c *counted) CompareAndSwap(ctx context.Context, item cache.Item) error {
	if err := c.call(); err != nil {
		return err
	}
	return c.Memory.CompareAndSwap(ctx, item)
}

// loader counts loads of a value that take 50 ms each.
type loader struct{ loads, under, most atomic.Int32 }

func (l *loader) load(ctx context.Context) (page, error) {
	l.loads.Add(1)
	l.most.Store(max(l.most.Load(), l.under.Add(1)))
	defer l.under.Add(-1)
	select {
	case <-time.After(50 * time.Millisecond):
		return page{Title: "home", Tags: []string{"a", "b"}}, nil
	case <-ctx.Done():
		return page{}, context.Cause(ctx)
	}
}

func TestOfRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s counted
		var l loader
		for i, want := range []int32{2, 1, 4, 1} { // lease, swap; get. Without leases: get, add, get, swap; get
			pages := cache.Of[page]{Store: &s, Prefix: "page:"}
			if i >= 2 {
				pages.Store = struct{ cache.Store }{&s}
			}
			if i == 2 {
				require.NoError(t, pages.Delete(t.Context(), "home"))
			}
			s.calls.Store(0)
			got, err := pages.Get(t.Context(), "home", l.load)
			require.NoError(t, err)
			require.Equal(t, page{"home", []string{"a", "b"}}, got)
			require.Equal(t, want, s.calls.Load(), "round %d", i)
		}
		require.EqualValues(t, 2, l.loads.Load())
		item, err := s.Memory.Get(t.Context(), "page:home")
		require.NoError(t, err)
		require.JSONEq(t, `{"Title":"home","Tags":["a","b"]}`, string(item.Value[31:]))
	})
}

func TestOfHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s counted
		var l loader
		var wg sync.WaitGroup
		const processes, callers = 8, 8
		for range processes {
			pages := &cache.Of[page]{Store: &s}
			for range callers {
				wg.Go(func() {
					got, err := pages.Get(t.Context(), "home", l.load)
					require.NoError(t, err)
					require.Equal(t, page{"home", []string{"a", "b"}}, got, "each has a copy of its own")
					got.Tags[0] = "changed"
				})
			}
		}
		wg.Wait()
		require.EqualValues(t, 1, l.loads.Load(), "loads")
		// Each caller reads once, each process polls some times.
		require.Less(t, s.calls.Load(), int32(processes*callers+processes*12), "round trips")
	})
}

// A process that dies while it loads leaves its stub. Others wait for LoadTimeout, then one of them loads.
func TestOfDeadProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		died := errors.New("dead")
		dead := &cache.Of[page]{Store: &deadAfterAdd{Store: &m, err: died}}
		_, err := dead.Get(t.Context(), "home", func(context.Context) (page, error) { return page{}, died })
		require.ErrorIs(t, err, died)

		var l loader
		start := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			pages := &cache.Of[page]{Store: &m, LoadTimeout: 3 * time.Second}
			wg.Go(func() {
				_, err := pages.Get(t.Context(), "home", l.load)
				require.NoError(t, err)
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, l.loads.Load())
		require.GreaterOrEqual(t, time.Since(start), 3*time.Second)
		require.Less(t, time.Since(start), 4*time.Second)
	})
}

// deadAfterAdd is the store of a process that dies when it has taken the lease.
type deadAfterAdd struct {
	cache.Store
	err  error
	dead bool
}

func (d *deadAfterAdd) Get(ctx context.Context, key string) (cache.Item, error) {
	if d.dead {
		return cache.Item{}, d.err
	}
	return d.Store.Get(ctx, key)
}

func (d *deadAfterAdd) Delete(context.Context, string) error { return d.err }

func (d *deadAfterAdd) Add(ctx context.Context, item cache.Item) error {
	defer func() { d.dead = true }()
	return d.Store.Add(ctx, item)
}

func TestOfErrorsAreNotCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		a, b := &cache.Of[page]{Store: &m}, &cache.Of[page]{Store: &m}
		noDB := errors.New("no database")
		var failures atomic.Int32
		fail := func(context.Context) (page, error) {
			failures.Add(1)
			time.Sleep(50 * time.Millisecond)
			return page{}, noDB
		}
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				_, err := a.Get(t.Context(), "home", fail)
				require.Equal(t, noDB, err, "the error is load's own")
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, failures.Load(), "callers at once share a failure")

		wg.Go(func() { _, _ = a.Get(t.Context(), "other", fail) })
		wg.Go(func() {
			time.Sleep(time.Millisecond)
			start := time.Now()
			var l loader
			_, err := b.Get(t.Context(), "other", l.load)
			require.NoError(t, err)
			require.Less(t, time.Since(start), time.Second, "who waits for a load that fails loads next")
		})
		wg.Wait()
		start := time.Now()
		var l loader
		_, err := b.Get(t.Context(), "home", l.load)
		require.NoError(t, err)
		require.Equal(t, 50*time.Millisecond, time.Since(start), "another process loads at once")
	})
}

func TestOfContexts(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		pages := &cache.Of[page]{Store: &m, LoadTimeout: 5 * time.Second}
		enough := errors.New("enough")
		get := func(ctx context.Context, load func(context.Context) (page, error)) chan error {
			done := make(chan error, 1)
			go func() {
				_, err := pages.Get(ctx, "home", load)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		var loadCtx context.Context
		slow := func(ctx context.Context) (page, error) {
			loadCtx = ctx
			time.Sleep(time.Second) // deaf
			return page{}, context.Cause(ctx)
		}

		t1, cancel1 := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
		t2, cancel2 := context.WithCancelCause(t.Context())
		first := get(t1, slow)
		second := get(t2, slow)
		require.Equal(t, "value", loadCtx.Value(key{}), "load sees the values of the first caller's context")
		deadline, _ := loadCtx.Deadline()
		require.Equal(t, 5*time.Second, time.Until(deadline))

		cancel1(enough)
		synctest.Wait()
		require.ErrorIs(t, <-first, enough, "who began the load leaves at once, since another one waits")
		require.NoError(t, loadCtx.Err(), "and the load goes on")
		cancel2(enough)
		synctest.Wait()
		require.ErrorIs(t, loadCtx.Err(), context.Canceled, "when nobody waits, it is cancelled")
		require.Empty(t, second, "and the last caller waits until it has returned")
		var l loader
		fresh := get(t.Context(), l.load)
		require.ErrorIs(t, <-second, enough)
		require.NoError(t, <-fresh, "who comes then loads anew")
		require.EqualValues(t, 1, l.loads.Load())

		ended, cancel := context.WithCancelCause(t.Context())
		cancel(enough)
		require.ErrorIs(t, <-get(ended, slow), enough)
	})
}

func TestOfPanicAndGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		pages := &cache.Of[page]{Store: &m}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				defer func() { require.Equal(t, "load panics", recover()) }()
				_, _ = pages.Get(t.Context(), "home", func(context.Context) (page, error) {
					time.Sleep(time.Second)
					panic("load panics")
				})
				t.Error("Get returned")
			})
		}
		wg.Wait()
		_, err := pages.Get(t.Context(), "home", func(context.Context) (page, error) { runtime.Goexit(); return page{}, nil })
		require.ErrorContains(t, err, "ended its goroutine")
		var l loader
		start := time.Now()
		_, err = pages.Get(t.Context(), "home", l.load)
		require.NoError(t, err)
		require.Equal(t, 50*time.Millisecond, time.Since(start), "the lease was given up")
	})
}

func TestOfWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s counted
		down := error(&cache.Error{Op: "Get", Err: cache.ErrDown})
		s.err.Store(&down)
		pages := &cache.Of[page]{Store: &s}
		var l loader
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				got, err := pages.Get(t.Context(), "home", l.load)
				require.NoError(t, err)
				require.Equal(t, "home", got.Title)
			})
		}
		wg.Wait()
		require.LessOrEqual(t, l.loads.Load(), int32(2), "those who came during a load that nothing vouches for share another one")
		require.EqualValues(t, 1, l.most.Load(), "one at a time")
	})
}

func TestOfValueThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		huge := strings.Repeat("x", cache.MaxValue)
		for i := range 3 {
			texts := &cache.Of[string]{Store: &m}
			start := time.Now()
			got, err := texts.Get(t.Context(), "k", func(context.Context) (string, error) { return huge, nil })
			require.NoError(t, err)
			require.Equal(t, huge, got)
			require.Zero(t, time.Since(start), "process %d need not wait for the one before", i)
		}
		funcs := &cache.Of[func()]{Store: &m}
		_, err := funcs.Get(t.Context(), "f", func(context.Context) (func(), error) { return func() {}, nil })
		require.ErrorContains(t, err, "unsupported type")
	})
}

func TestOfReplacesWhatIsNotItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		numbers := &cache.Of[int]{Store: &m}
		texts := &cache.Of[string]{Store: &m}
		_, err := texts.Get(t.Context(), "k", func(context.Context) (string, error) { return "an older program's", nil })
		require.NoError(t, err)
		for _, foreign := range []cache.Item{{}, {Flags: 1, Value: []byte("7")}, {Flags: 0x5ca1_0001, Value: []byte("{")}, {Flags: 0x5ca1_0002, Value: []byte("{")},
			{Flags: 0x5ca1_0002, Value: append([]byte{1}, make([]byte, 40)...)}} {
			load := func(context.Context) (int, error) { return 42, nil }
			for range 2 {
				got, err := numbers.Get(t.Context(), "k", load)
				require.NoError(t, err)
				require.Equal(t, 42, got)
				load = func(context.Context) (int, error) { return 0, errors.New("loaded again") }
			}
			foreign.Key = "k"
			require.NoError(t, m.Set(t.Context(), foreign))
		}
	})
}

func TestOfTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		numbers := &cache.Of[int]{Store: &m, TTL: 100 * time.Second}
		for i := range 1000 {
			_, err := numbers.Get(t.Context(), fmt.Sprint(i), func(context.Context) (int, error) { return i, nil })
			require.NoError(t, err)
		}
		left := func() (n int) {
			for i := range 1000 {
				if _, err := m.Get(t.Context(), fmt.Sprint(i)); err == nil {
					n++
				}
			}
			return n
		}
		time.Sleep(89 * time.Second)
		require.Equal(t, 1000, left(), "after nine tenths of the TTL")
		time.Sleep(6 * time.Second)
		require.InDelta(t, 500, left(), 150, "half-way through the last tenth")
		time.Sleep(5 * time.Second)
		require.Zero(t, left(), "after the TTL")
	})
}

func TestOfBadInput(t *testing.T) {
	var m cache.Memory
	load := func(context.Context) (int, error) { panic("called") }
	for want, of := range map[string]*cache.Of[int]{
		"Of.Store is nil":                       {},
		"Of.TTL is -1s, want 0 or more":         {Store: &m, TTL: -time.Second},
		"Of.LoadTimeout is -1s, want 0 or more": {Store: &m, LoadTimeout: -time.Second},
		"Of.ErrorTTL is -1s, want 0 or more":    {Store: &m, ErrorTTL: -time.Second},
		`byte 0x20 at 1, want no space`:         {Store: &m, Prefix: "a b"},
		"has 344 bytes, want 1 to 250":          {Store: &m, Prefix: strings.Repeat("p", 300)},
		"Of.Ahead is 31s, want at most half":    {Store: &m, Ahead: 31 * time.Second},
		"Of.Compress is -1":                     {Store: &m, Compress: -1},
	} {
		_, err := of.Get(t.Context(), "k", load)
		require.ErrorIs(t, err, cache.ErrInvalid)
		require.ErrorContains(t, err, want)
		err = of.Delete(t.Context(), "k")
		require.ErrorIs(t, err, cache.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	_, err := (&cache.Of[int]{Store: &m, Prefix: "p:"}).Get(t.Context(), "", load)
	require.ErrorContains(t, err, "key is empty")
	_, err = (&cache.Of[int]{Store: &m}).Get(t.Context(), "k", nil)
	require.ErrorContains(t, err, "load is nil")
}
