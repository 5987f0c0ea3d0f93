package cachetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
)

// Each wrapper is caught by the rule that it breaks, and a correct store is not.
func TestSuiteCatches(t *testing.T) {
	for _, c := range brokenStores {
		t.Run(c.what, func(t *testing.T) {
			for _, r := range rules {
				if r.name == c.rule {
					require.True(t, fails(t, r, c.change), "the rule %q did not catch it", r.name)
					require.False(t, fails(t, r, func(*wrapper) {}), "the rule %q fails a correct implementation", r.name)
					return
				}
			}
			t.Fatalf("there is no rule %q", c.rule)
		})
	}
}

// fails runs one rule in virtual time, where patience costs nothing, and reports whether it failed.
func fails(t *testing.T, r rule, change func(*wrapper)) (failed bool) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.run(rec, func(testing.TB) cache.Store {
				w := new(wrapper)
				w.get, w.write, w.delete = w.correctGet, w.correctWrite, w.memory.Delete
				w.getMulti = func(ctx context.Context, keys []string) (map[string]cache.Item, error) {
					return w.eachKey(ctx, keys)
				}
				change(w)
				return w
			})
		}()
		<-done
		time.Sleep(time.Hour) // what the wrapper left running ends
		if failed = rec.message != ""; failed {
			require.Contains(t, rec.message, "broken rule: "+r.words)
		}
	})
	return failed
}

// recorder is a testing.TB whose failure is noted and does not fail the test.
type recorder struct {
	testing.TB
	message string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// wrapper is a Store around a correct one, whose parts are replaced.
type wrapper struct {
	memory   cache.Memory
	get      func(ctx context.Context, key string) (cache.Item, error)
	getMulti func(ctx context.Context, keys []string) (map[string]cache.Item, error)
	write    func(ctx context.Context, op string, item cache.Item) error
	delete   func(ctx context.Context, key string) error
	shared   map[string][]byte
}

func (w *wrapper) correctGet(ctx context.Context, key string) (cache.Item, error) {
	return w.memory.Get(ctx, key)
}

func (w *wrapper) eachKey(ctx context.Context, keys []string) (map[string]cache.Item, error) {
	items, failed := map[string]cache.Item{}, map[string]error{}
	for _, key := range keys {
		switch item, err := w.get(ctx, key); {
		case err == nil:
			items[key] = item
		case !errors.Is(err, cache.ErrMiss):
			failed[key] = err
		}
	}
	if len(failed) > 0 {
		return items, &cache.PartialError{Failed: failed}
	}
	return items, nil
}

func (w *wrapper) correctWrite(ctx context.Context, op string, item cache.Item) error {
	switch op {
	case "Set":
		return w.memory.Set(ctx, item)
	case "Add":
		return w.memory.Add(ctx, item)
	default:
		return w.memory.CompareAndSwap(ctx, item)
	}
}

func (w *wrapper) Get(ctx context.Context, key string) (cache.Item, error) { return w.get(ctx, key) }
func (w *wrapper) GetMulti(ctx context.Context, keys []string) (map[string]cache.Item, error) {
	return w.getMulti(ctx, keys)
}
func (w *wrapper) Set(ctx context.Context, i cache.Item) error { return w.write(ctx, "Set", i) }
func (w *wrapper) Add(ctx context.Context, i cache.Item) error { return w.write(ctx, "Add", i) }
func (w *wrapper) CompareAndSwap(ctx context.Context, i cache.Item) error {
	return w.write(ctx, "CompareAndSwap", i)
}
func (w *wrapper) Delete(ctx context.Context, key string) error { return w.delete(ctx, key) }
