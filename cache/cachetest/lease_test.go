package cachetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
)

// leaser is a wrapper that is a cache.Leaser too.
type leaser struct {
	*wrapper
	lease func(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error)
}

func (l *leaser) Lease(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
	return l.lease(ctx, key, ttl)
}

func TestSuiteCatchesLeasers(t *testing.T) {
	for _, c := range []struct {
		what    string
		correct bool
		change  func(l *leaser)
	}{
		{"one that is correct", true, func(*leaser) {}},
		{"one that cannot tell", true, func(l *leaser) {
			l.lease = func(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
				if err := (cache.Item{Key: key, TTL: ttl}).Check(); err != nil {
					return cache.Item{}, false, err
				}
				item, err := l.memory.Get(ctx, key)
				return item, false, err
			}
		}},
		{"one where all win", false, func(l *leaser) {
			l.lease = func(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
				item, _, err := l.memory.Lease(ctx, key, ttl)
				return item, err == nil && len(item.Value) == 0, err
			}
		}},
		{"one where nobody wins", false, func(l *leaser) {
			l.lease = func(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
				item, _, err := l.memory.Lease(ctx, key, ttl)
				return item, false, err
			}
		}},
		{"one that stores a stub and tells of a miss", false, func(l *leaser) {
			l.lease = func(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
				item, _, err := l.memory.Lease(ctx, key, ttl)
				if err == nil && len(item.Value) == 0 {
					return cache.Item{}, false, cache.ErrMiss
				}
				return item, false, err
			}
		}},
		{"one without a version", false, func(l *leaser) {
			l.lease = func(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
				item, won, err := l.memory.Lease(ctx, key, ttl)
				item.Version = nil
				return item, won, err
			}
		}},
		{"one whose leases do not end", false, func(l *leaser) {
			l.lease = func(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
				return l.memory.Lease(ctx, key, min(ttl, 0))
			}
		}},
		{"one that takes any key", false, func(l *leaser) {
			l.lease = func(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
				item, won, err := l.memory.Lease(ctx, key, ttl)
				if errors.Is(err, cache.ErrInvalid) {
					err = nil
				}
				return item, won, err
			}
		}},
		{"one whose Delete leaves stubs", false, func(l *leaser) {
			l.delete = func(ctx context.Context, key string) error {
				if item, err := l.memory.Get(ctx, key); err == nil && len(item.Value) == 0 {
					return nil
				}
				return l.memory.Delete(ctx, key)
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, r := range rules {
				if r.name != "Lease" {
					continue
				}
				message := ruleIn(t, func(rec testing.TB) {
					r.run(rec, func(testing.TB) cache.Store {
						w := new(wrapper)
						w.get, w.write, w.delete = w.correctGet, w.correctWrite, w.memory.Delete
						l := &leaser{wrapper: w, lease: w.memory.Lease}
						c.change(l)
						return l
					})
				})
				require.Equal(t, c.correct, message == "", message)
			}
		})
	}
}

// ruleIn runs something in virtual time and gives the message of its failure.
func ruleIn(t *testing.T, run func(rec testing.TB)) (message string) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			run(rec)
		}()
		<-done
		time.Sleep(time.Hour)
		message = rec.message
	})
	return message
}

// pair is a HandOver on two stores. After change, keys that end in an even digit have the second one.
type pair struct {
	first, second cache.Memory
	changed       bool

	noPrevious, keepsVersion, forgetsOwner, deletesOnce, setsOnce bool // how it is broken
}

func (p *pair) change() { p.changed = true }

func (p *pair) at(key string) (now, before *cache.Memory) {
	if p.changed && len(key) > 0 && key[len(key)-1]%2 == 0 {
		return &p.second, &p.first
	}
	return &p.first, nil
}

func (p *pair) GetPrevious(ctx context.Context, key string) (cache.Item, error) {
	_, before := p.at(key)
	switch {
	case p.noPrevious:
		before = nil
	case p.forgetsOwner:
		before = &p.first
	}
	if before == nil {
		return cache.Item{}, cache.ErrMiss
	}
	item, err := before.Get(ctx, key)
	if !p.keepsVersion {
		item.Version = nil
	}
	return item, err
}

func (p *pair) Get(ctx context.Context, key string) (cache.Item, error) {
	now, _ := p.at(key)
	return now.Get(ctx, key)
}

func (p *pair) GetMulti(ctx context.Context, keys []string) (map[string]cache.Item, error) {
	items := map[string]cache.Item{}
	for _, key := range keys {
		if item, err := p.Get(ctx, key); err == nil {
			items[key] = item
		}
	}
	return items, nil
}

func (p *pair) Set(ctx context.Context, item cache.Item) error {
	now, before := p.at(item.Key)
	if before != nil && !p.setsOnce {
		_ = before.Delete(ctx, item.Key)
	}
	return now.Set(ctx, item)
}

func (p *pair) Add(ctx context.Context, item cache.Item) error {
	now, _ := p.at(item.Key)
	return now.Add(ctx, item)
}

func (p *pair) CompareAndSwap(ctx context.Context, item cache.Item) error {
	now, _ := p.at(item.Key)
	return now.CompareAndSwap(ctx, item)
}

func (p *pair) Delete(ctx context.Context, key string) error {
	now, before := p.at(key)
	if before != nil && !p.deletesOnce {
		_ = before.Delete(ctx, key)
	}
	return now.Delete(ctx, key)
}

func TestSuiteCatchesHandOvers(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(*pair)
		rules []string
	}{
		{"correct", func(*pair) {}, nil},
		{"nothing handed over", func(p *pair) { p.noPrevious = true }, []string{"Previous value", "No load"}},
		{"a version that means nothing", func(p *pair) { p.keepsVersion = true }, []string{"Previous value"}},
		{"the value of the owner itself", func(p *pair) { p.forgetsOwner = true }, []string{"Nothing before a change", "Previous value"}},
		{"Delete at the owner only", func(p *pair) { p.deletesOnce = true }, []string{"Removed everywhere", "No load"}},
		{"Set at the owner only", func(p *pair) { p.setsOnce = true }, []string{"Removed everywhere"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			var failed []string
			for _, r := range handOverRules {
				message := ruleIn(t, func(rec testing.TB) {
					r.run(rec, func(testing.TB) (cache.Store, func()) {
						p := new(pair)
						c.spoil(p)
						return p, p.change
					})
				})
				if message != "" {
					require.Contains(t, message, "broken rule: "+r.words)
					failed = append(failed, r.name)
				}
			}
			require.Equal(t, c.rules, failed)
		})
	}
}
