package cachetest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// changedItem is a wrapper that changes what is stored.
func changedItem(change func(*cache.Item)) func(*wrapper) {
	return func(w *wrapper) {
		w.write = func(ctx context.Context, op string, item cache.Item) error {
			change(&item)
			return w.correctWrite(ctx, op, item)
		}
	}
}

// changedResult is a wrapper that changes what Get returns.
func changedResult(change func(*cache.Item, *error)) func(*wrapper) {
	return func(w *wrapper) {
		w.get = func(ctx context.Context, key string) (cache.Item, error) {
			item, err := w.memory.Get(ctx, key)
			change(&item, &err)
			return item, err
		}
	}
}

// instead is a wrapper whose method op does something else.
func instead(op string, do func(w *wrapper, ctx context.Context, item cache.Item) error) func(*wrapper) {
	return func(w *wrapper) {
		w.write = func(ctx context.Context, name string, item cache.Item) error {
			if name == op {
				return do(w, ctx, item)
			}
			return w.correctWrite(ctx, name, item)
		}
	}
}

// changedError is a wrapper that changes what the writes return.
func changedError(change func(op string, err error) error) func(*wrapper) {
	return func(w *wrapper) {
		w.write = func(ctx context.Context, op string, item cache.Item) error {
			return change(op, w.correctWrite(ctx, op, item))
		}
	}
}

// repairedKey is a wrapper that rewrites keys.
func repairedKey(repair func(string) string) func(*wrapper) {
	return func(w *wrapper) {
		w.get = func(ctx context.Context, key string) (cache.Item, error) {
			item, err := w.memory.Get(ctx, repair(key))
			if err == nil {
				item.Key = key
			}
			return item, err
		}
		w.write = func(ctx context.Context, op string, item cache.Item) error {
			item.Key = repair(item.Key)
			return w.correctWrite(ctx, op, item)
		}
		w.delete = func(ctx context.Context, key string) error { return w.memory.Delete(ctx, repair(key)) }
	}
}

var brokenStores = []struct {
	what   string
	rule   string
	change func(*wrapper)
}{
	{"a value that ends at a line's end", "Set and Get", changedItem(func(i *cache.Item) { i.Value, _, _ = bytes.Cut(i.Value, []byte("\r\n")) })},
	{"an empty value that is none", "Set and Get", changedResult(func(i *cache.Item, err *error) {
		if len(i.Value) == 0 {
			*i, *err = cache.Item{}, cache.ErrMiss
		}
	})},
	{"a value that is cut", "Set and Get", changedItem(func(i *cache.Item) { i.Value = i.Value[:min(len(i.Value), 1<<16)] })},
	{"no flags", "Set and Get", changedItem(func(i *cache.Item) { i.Flags = 0 })},
	{"flags of 16 bits", "Set and Get", changedItem(func(i *cache.Item) { i.Flags &= 0xffff })},
	{"Get without a version", "Set and Get", changedResult(func(i *cache.Item, _ *error) { i.Version = nil })},
	{"Set that does not replace", "Set and Get", instead("Set", func(w *wrapper, ctx context.Context, item cache.Item) error {
		_ = w.memory.Add(ctx, item)
		return nil
	})},
	{"a miss without an error", "Miss", changedResult(func(_ *cache.Item, err *error) { *err = nil })},
	{"a miss with an item", "Miss", changedResult(func(i *cache.Item, _ *error) { i.Key = "absent" })},
	{"GetMulti that fails for a miss", "GetMulti", func(w *wrapper) {
		w.getMulti = func(ctx context.Context, keys []string) (map[string]cache.Item, error) {
			items, err := w.eachKey(ctx, keys)
			if err == nil && len(items) < len(keys) {
				err = cache.ErrMiss
			}
			return items, err
		}
	}},
	{"GetMulti that reads a hundred at most", "GetMulti", func(w *wrapper) {
		w.getMulti = func(ctx context.Context, keys []string) (map[string]cache.Item, error) {
			return w.eachKey(ctx, keys[:min(100, len(keys))])
		}
	}},
	{"GetMulti that answers under another key", "GetMulti", func(w *wrapper) {
		w.getMulti = func(ctx context.Context, keys []string) (map[string]cache.Item, error) {
			items, err := w.eachKey(ctx, keys)
			items["key-001"], items["key-002"] = items["key-002"], items["key-001"]
			return items, err
		}
	}},
	{"GetMulti without versions", "GetMulti", func(w *wrapper) {
		w.getMulti = func(ctx context.Context, keys []string) (map[string]cache.Item, error) {
			items, err := w.eachKey(ctx, keys)
			for key, item := range items {
				item.Version = 0
				items[key] = item
			}
			return items, err
		}
	}},
	{"keys that are repaired", "Keys", repairedKey(func(key string) string {
		if cache.CheckKey(key) != nil {
			return "repaired"
		}
		return key
	})},
	{"keys without case", "Keys", repairedKey(strings.ToLower)},
	{"keys of 249 bytes", "Keys", repairedKey(func(key string) string {
		if len(key) == 250 {
			return key[:249]
		}
		return key
	})},
	{"a key that spoils GetMulti", "Invalid key among others", func(w *wrapper) {
		w.getMulti = func(ctx context.Context, keys []string) (map[string]cache.Item, error) {
			for _, key := range keys {
				if err := cache.CheckKey(key); err != nil {
					return nil, &cache.PartialError{Failed: map[string]error{"": err, "not valid": err}}
				}
			}
			return w.eachKey(ctx, keys)
		}
	}},
	{"GetMulti that leaves out an invalid key in silence", "Invalid key among others", func(w *wrapper) {
		w.getMulti = func(ctx context.Context, keys []string) (map[string]cache.Item, error) {
			items, _ := w.eachKey(ctx, keys)
			return items, nil
		}
	}},
	{"a huge value without its error", "Values", changedError(func(_ string, err error) error {
		if errors.Is(err, cache.ErrTooLarge) {
			return errors.New("SERVER_ERROR object too large for cache")
		}
		return err
	})},
	{"a huge value that removes the old one", "Values", func(w *wrapper) {
		w.write = func(ctx context.Context, op string, item cache.Item) error {
			if len(item.Value) > cache.MaxValue {
				_ = w.memory.Delete(ctx, item.Key)
			}
			return w.correctWrite(ctx, op, item)
		}
	}},
	{"a negative TTL that is taken for none", "Values", changedItem(func(i *cache.Item) { i.TTL = max(i.TTL, 0) })},
	{"Add that replaces", "Add", instead("Add", func(w *wrapper, ctx context.Context, item cache.Item) error {
		return w.memory.Set(ctx, item)
	})},
	{"Add that is silent", "Add", changedError(func(op string, err error) error {
		if op == "Add" && err == cache.ErrNotStored {
			return nil
		}
		return err
	})},
	{"Add that stores nothing", "Add", instead("Add", func(w *wrapper, ctx context.Context, item cache.Item) error {
		if _, err := w.memory.Get(ctx, item.Key); err == nil {
			return cache.ErrNotStored
		}
		return nil
	})},
	{"CompareAndSwap that does not compare", "CompareAndSwap", instead("CompareAndSwap", func(w *wrapper, ctx context.Context, item cache.Item) error {
		return w.memory.Set(ctx, item)
	})},
	{"CompareAndSwap that compares values", "CompareAndSwap", func(w *wrapper) {
		change := func(i *cache.Item, err *error) {
			if *err == nil {
				i.Version = string(i.Value)
			}
		}
		changedResult(change)(w)
		instead("CompareAndSwap", func(w *wrapper, ctx context.Context, item cache.Item) error {
			now, err := w.memory.Get(ctx, item.Key)
			if err == nil && string(now.Value) != item.Version {
				err = cache.ErrNotStored
			}
			if err != nil {
				return err
			}
			return w.memory.Set(ctx, item)
		})(w)
	}},
	{"CompareAndSwap that stores where nothing is", "CompareAndSwap", instead("CompareAndSwap", func(w *wrapper, ctx context.Context, item cache.Item) error {
		err := w.memory.CompareAndSwap(ctx, item)
		if err == cache.ErrMiss {
			return w.memory.Set(ctx, item)
		}
		return err
	})},
	{"CompareAndSwap that does not tell gone from replaced", "CompareAndSwap", changedError(func(_ string, err error) error {
		if err == cache.ErrMiss {
			return cache.ErrNotStored
		}
		return err
	})},
	{"CompareAndSwap that takes no version for any", "CompareAndSwap", instead("CompareAndSwap", func(w *wrapper, ctx context.Context, item cache.Item) error {
		if item.Version == nil {
			return w.memory.Set(ctx, item)
		}
		return w.memory.CompareAndSwap(ctx, item)
	})},
	{"Delete that fails for a miss", "Delete", func(w *wrapper) {
		w.delete = func(ctx context.Context, key string) error {
			if _, err := w.memory.Get(ctx, key); err != nil {
				return err
			}
			return w.memory.Delete(ctx, key)
		}
	}},
	{"Delete that does nothing", "Delete", func(w *wrapper) { w.delete = func(context.Context, string) error { return nil } }},
	{"Delete that removes what begins alike", "Delete", func(w *wrapper) {
		w.delete = func(ctx context.Context, key string) error {
			return errors.Join(w.memory.Delete(ctx, key), w.memory.Delete(ctx, "other"))
		}
	}},
	{"no TTL", "TTL", changedItem(func(i *cache.Item) { i.TTL = 0 })},
	{"a TTL cut to whole seconds, and so none", "TTL", changedItem(func(i *cache.Item) { i.TTL = i.TTL.Truncate(time.Second) })},
	{"a TTL above 30 days that is a date in 1970", "TTL", changedItem(func(i *cache.Item) {
		if i.TTL > 30*24*time.Hour {
			i.TTL = 1
		}
	})},
	{"Get with a TTL that is no longer true", "TTL", changedResult(func(i *cache.Item, _ *error) { i.TTL = time.Hour })},
	{"a TTL that overflows", "TTL", changedItem(func(i *cache.Item) {
		if i.TTL > 0 {
			i.TTL = max(1, time.Duration(int32(i.TTL/time.Second))*time.Second)
		}
	})},
	{"a TTL that stays with the key", "TTL", func(w *wrapper) {
		ttls := map[string]time.Duration{}
		changedItem(func(i *cache.Item) {
			if i.TTL == 0 {
				i.TTL = ttls[i.Key]
			}
			ttls[i.Key] = i.TTL
		})(w)
	}},
	{"values that are the caller's memory", "Copies", func(w *wrapper) {
		w.shared = map[string][]byte{}
		w.write = func(ctx context.Context, op string, item cache.Item) error {
			w.shared[item.Key] = item.Value
			return w.correctWrite(ctx, op, item)
		}
		changedResult(func(i *cache.Item, _ *error) { i.Value = w.shared[i.Key] })(w)
	}},
	{"calls that do not look at their context", "Context", func(w *wrapper) {
		w.get = func(ctx context.Context, key string) (cache.Item, error) {
			return w.memory.Get(context.WithoutCancel(ctx), key)
		}
	}},
	{"writes that are made in spite of their context", "Context", func(w *wrapper) {
		w.write = func(ctx context.Context, op string, item cache.Item) error {
			err := w.correctWrite(context.WithoutCancel(ctx), op, item)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}},
	{"contexts without their cause", "Context", changedResult(func(_ *cache.Item, err *error) {
		if *err != nil {
			*err = context.Canceled
		}
	})},
	{"CompareAndSwap that looks and then stores", "Concurrency", instead("CompareAndSwap", func(w *wrapper, ctx context.Context, item cache.Item) error {
		now, err := w.memory.Get(ctx, item.Key)
		if err == nil && now.Version != item.Version {
			err = cache.ErrNotStored
		}
		if err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
		return w.memory.Set(ctx, item)
	})},
	{"Add that looks and then stores", "Concurrency", instead("Add", func(w *wrapper, ctx context.Context, item cache.Item) error {
		if _, err := w.memory.Get(ctx, item.Key); err == nil {
			return cache.ErrNotStored
		}
		time.Sleep(time.Millisecond)
		return w.memory.Set(ctx, item)
	})},
	{"Add that replaces, a little later", "One load", func(w *wrapper) {
		changedResult(func(*cache.Item, *error) { time.Sleep(time.Millisecond) })(w) // all miss before the first adds
		instead("Add", func(w *wrapper, ctx context.Context, item cache.Item) error {
			if w.memory.Add(ctx, item) == cache.ErrNotStored {
				time.Sleep(10 * time.Millisecond)
			}
			return w.memory.Set(ctx, item)
		})(w)
	}},
	{"CompareAndSwap that stores after a Delete", "Delete voids a lease", instead("CompareAndSwap", func(w *wrapper, ctx context.Context, item cache.Item) error {
		return w.memory.Set(ctx, item)
	})},
	{"Delete that leaves leases alone", "Delete voids a lease", func(w *wrapper) {
		w.delete = func(ctx context.Context, key string) error {
			if item, err := w.memory.Get(ctx, key); err == nil && len(item.Value) == 32 {
				return nil
			}
			return w.memory.Delete(ctx, key)
		}
	}},
}
