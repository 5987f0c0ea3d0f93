package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/cache"
)

// Several processes read one key through caches of their own on one store, while others write to the database and Delete.
// Calls of the store are slow, fail before they do anything or after, loads are slow and fail, callers run out of
// patience, and items vanish. Whatever happens: after a Delete that was acknowledged, no Get that begins later returns an
// older value, and no older value is in the store in the end.
func TestNoStaleValueUnderChance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		processes := rapid.IntRange(1, 4).Draw(t, "processes")
		readers := rapid.IntRange(1, 6).Draw(t, "readers in each process")
		writers := rapid.IntRange(1, 3).Draw(t, "writers")
		faults := rapid.IntRange(0, 30).Draw(t, "faults in 100 calls")
		leases := rapid.Bool().Draw(t, "leases")
		slowness := time.Duration(rapid.IntRange(1, 50).Draw(t, "ms of a call"))*time.Millisecond + 1
		ttl := time.Duration(rapid.SampledFrom([]int{1, 60}).Draw(t, "TTL")) * time.Second
		stale := time.Duration(rapid.IntRange(0, 3).Draw(t, "stale")) * time.Second
		var tags func(string) []string
		if rapid.Bool().Draw(t, "tags") {
			tags = func(string) []string { return []string{"table"} }
		}
		rapid.SyncTest(t, func(t *rapid.T) {
			w := &world{t: t, faults: faults, slowness: slowness}
			var wg sync.WaitGroup
			random := func() *chance { seed++; return &chance{rng: rand.New(rand.NewPCG(seed, 0))} }
			for range processes {
				var store cache.Store = &unreliable{&w.store, w, random()}
				if leases {
					store = leaser{store.(*unreliable)}
				}
				of := &cache.Of[int]{Store: store, Prefix: "p:", TTL: ttl, Ahead: ttl / 2, Stale: stale, LoadTimeout: time.Second, Tags: tags}
				for range readers {
					c := random()
					wg.Go(func() { w.read(of, c) })
				}
			}
			for range writers {
				of := &cache.Of[int]{Store: &unreliable{&w.store, w, random()}, Prefix: "p:", Tags: tags}
				c := random()
				wg.Go(func() { w.write(of, c) })
			}
			c := random()
			wg.Go(func() { // eviction
				for range 5 {
					time.Sleep(c.upTo(2 * time.Second))
					_ = w.store.Delete(context.Background(), "p:k")
				}
			})
			wg.Wait()
			w.check(-1, "in the end", w.floor, func() (int, error) {
				of := cache.Of[int]{Store: &w.store, Prefix: "p:", Tags: tags}
				return of.Get(context.Background(), "k", w.load(random()))
			})
		})
	})
}

// world is a database of one row, and the store.
type world struct {
	t        *rapid.T
	store    cache.Memory
	faults   int
	slowness time.Duration

	mu    sync.Mutex
	row   int // counts the writes
	floor int // the row as of the latest Delete that was acknowledged
}

var errFault = errors.New("fault")

func (w *world) load(c *chance) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		time.Sleep(c.upTo(w.slowness))
		w.mu.Lock()
		row := w.row
		w.mu.Unlock()
		time.Sleep(c.upTo(4 * w.slowness)) // what was read is on its way
		if c.hits(w.faults) {
			return 0, fmt.Errorf("load: %w", errFault)
		}
		return row, nil
	}
}

func (w *world) read(of *cache.Of[int], c *chance) {
	for i := range 8 {
		time.Sleep(c.upTo(300 * time.Millisecond))
		ctx, cancel := context.WithTimeout(context.Background(), c.upTo(2*time.Second))
		w.mu.Lock()
		floor := w.floor
		w.mu.Unlock()
		w.check(i, "a reader's Get", floor, func() (int, error) { return of.Get(ctx, "k", w.load(c)) })
		cancel()
	}
}

func (w *world) check(i int, what string, floor int, get func() (int, error)) {
	row, err := get()
	if err == nil && row < floor {
		w.t.Errorf("%s (round %d) returned the row as of write %d, a Delete after write %d had been acknowledged", what, i, row, floor)
	}
	if err != nil && !errors.Is(err, errFault) && !errors.Is(err, context.DeadlineExceeded) {
		w.t.Errorf("%s (round %d) returned the error %v", what, i, err)
	}
}

func (w *world) write(of *cache.Of[int], c *chance) {
	for i := range 6 {
		time.Sleep(c.upTo(500 * time.Millisecond))
		w.mu.Lock()
		w.row++
		row := w.row
		w.mu.Unlock()
		time.Sleep(c.upTo(w.slowness))
		void := func() error { return of.Delete(context.Background(), "k") }
		if of.Tags != nil && i%2 == 0 {
			void = func() error { return of.Invalidate(context.Background(), "table") }
		}
		if void() == nil {
			w.mu.Lock()
			w.floor = max(w.floor, row)
			w.mu.Unlock()
		}
	}
}

// unreliable is a store behind a bad network.
type unreliable struct {
	cache.Store
	w *world
	c *chance
}

func (u *unreliable) call(f func() error) error {
	time.Sleep(u.c.upTo(u.w.slowness))
	if u.c.hits(u.w.faults) {
		return errFault
	}
	err := f()
	time.Sleep(u.c.upTo(u.w.slowness))
	if u.c.hits(u.w.faults) {
		return errFault // the reply is lost
	}
	return err
}

func (u *unreliable) Get(ctx context.Context, key string) (item cache.Item, err error) {
	err = u.call(func() error { item, err = u.Store.Get(ctx, key); return err })
	if err != nil {
		return cache.Item{}, err
	}
	return item, nil
}

func (u *unreliable) GetMulti(ctx context.Context, keys []string) (items map[string]cache.Item, err error) {
	err = u.call(func() error { items, err = u.Store.GetMulti(ctx, keys); return err })
	if err != nil {
		failed := map[string]error{}
		for _, key := range keys {
			failed[key] = err
		}
		return nil, &cache.PartialError{Failed: failed}
	}
	return items, nil
}

// leaser is an unreliable store with leases.
type leaser struct{ *unreliable }

func (l leaser) Lease(ctx context.Context, key string, ttl time.Duration) (item cache.Item, won bool, err error) {
	err = l.call(func() error { item, won, err = l.Store.(cache.Leaser).Lease(ctx, key, ttl); return err })
	return item, won, err
}

func (u *unreliable) Add(ctx context.Context, item cache.Item) error {
	return u.call(func() error { return u.Store.Add(ctx, item) })
}

func (u *unreliable) CompareAndSwap(ctx context.Context, item cache.Item) error {
	return u.call(func() error { return u.Store.CompareAndSwap(ctx, item) })
}

func (u *unreliable) Delete(ctx context.Context, key string) error {
	return u.call(func() error { return u.Store.Delete(ctx, key) })
}

// chance is a source of chance that several goroutines share.
type chance struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (c *chance) upTo(d time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.rng.Int64N(int64(d)))
}

func (c *chance) hits(percent int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(100) < percent
}
