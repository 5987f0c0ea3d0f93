package cache

import (
	"bytes"
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// Memory is a Store within the process. The zero value is ready to use; it must not be copied. It holds as many bytes as
// it may and evicts what was used least recently. TTLs are exact. It starts no goroutine: an item that has expired goes
// when it is asked for or when its turn to be evicted comes.
type Memory struct {
	// MaxBytes bounds keys and values, with an overhead of 64 bytes for each item. 0 means 64 MiB. It must not be changed
	// once the store is in use.
	MaxBytes int64

	mu      sync.Mutex
	items   map[string]*list.Element // of *memoryItem
	recent  list.List                // the most recently used in front
	bytes   int64
	version uint64 // of the item stored last
}

var (
	_ Store  = (*Memory)(nil)
	_ Leaser = (*Memory)(nil)
)

const (
	defaultMaxBytes    = 64 << 20
	memoryItemOverhead = 64
)

// memoryItem is immutable: storing replaces it.
type memoryItem struct {
	Item              // Version is a uint64, distinct from that of every other item of the store
	expires time.Time // zero: never
}

func (i *memoryItem) size() int64 { return int64(len(i.Key) + len(i.Value) + memoryItemOverhead) }

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key string) (Item, error) {
	if err := CheckKey(key); err != nil {
		return Item{}, &Error{Op: "Get", Err: err}
	}
	if ctx.Err() != nil {
		return Item{}, &Error{Op: "Get", Key: key, Err: context.Cause(ctx)}
	}
	m.mu.Lock()
	e := m.find(key)
	if e == nil {
		m.mu.Unlock()
		return Item{}, ErrMiss
	}
	m.recent.MoveToFront(e)
	item := e.Value.(*memoryItem).Item
	m.mu.Unlock()
	item.Value = bytes.Clone(item.Value)
	return item, nil
}

// Lease implements Leaser.
func (m *Memory) Lease(ctx context.Context, key string, ttl time.Duration) (item Item, won bool, err error) {
	if item, err = m.Get(ctx, key); err != ErrMiss {
		return item, false, err
	}
	err = m.store(ctx, "Lease", Item{Key: key, TTL: ttl}, func(e *list.Element) error {
		if e != nil { // since
			item = e.Value.(*memoryItem).Item
			item.Value = bytes.Clone(item.Value)
			return ErrNotStored
		}
		return nil
	}, func(stored Item) { item, won = stored, true })
	if err == ErrNotStored {
		err = nil
	}
	return item, won, err
}

// GetMulti implements Store.
func (m *Memory) GetMulti(ctx context.Context, keys []string) (map[string]Item, error) {
	found := make(map[string]Item, len(keys))
	failed := map[string]error{}
	for _, key := range keys {
		if _, ok := found[key]; ok {
			continue
		}
		switch item, err := m.Get(ctx, key); err {
		case nil:
			found[key] = item
		case ErrMiss:
		default:
			failed[key] = err
		}
	}
	if len(failed) > 0 {
		return found, &PartialError{failed}
	}
	return found, nil
}

// Set implements Store.
func (m *Memory) Set(ctx context.Context, item Item) error {
	return m.store(ctx, "Set", item, func(*list.Element) error { return nil })
}

// Add implements Store.
func (m *Memory) Add(ctx context.Context, item Item) error {
	return m.store(ctx, "Add", item, func(e *list.Element) error {
		if e != nil {
			return ErrNotStored
		}
		return nil
	})
}

// CompareAndSwap implements Store.
func (m *Memory) CompareAndSwap(ctx context.Context, item Item) error {
	return m.store(ctx, "CompareAndSwap", item, func(e *list.Element) error {
		if e == nil {
			return ErrMiss
		}
		if e.Value.(*memoryItem).Version != item.Version {
			return ErrNotStored
		}
		return nil
	})
}

// store stores the item if the condition on what is there now returns nil.
func (m *Memory) store(
	ctx context.Context, op string, item Item, condition func(*list.Element) error, then ...func(stored Item),
) error {
	if err := item.Check(); err != nil {
		return &Error{Op: op, Err: err}
	}
	if ctx.Err() != nil {
		return &Error{Op: op, Key: item.Key, Err: context.Cause(ctx)}
	}
	stored := &memoryItem{Item: item}
	stored.Value = bytes.Clone(item.Value)
	if item.TTL > 0 {
		stored.expires = time.Now().Add(item.TTL)
	}
	stored.TTL = 0
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.find(item.Key)
	if err := condition(e); err != nil {
		return err
	}
	most := m.MaxBytes
	if most == 0 {
		most = defaultMaxBytes
	}
	if size := stored.size(); size > most {
		return &Error{Op: op, Key: item.Key, Err: fmt.Errorf("%w: the item takes %d bytes, MaxBytes is %d", ErrTooLarge, size, most)}
	}
	m.remove(e)
	for m.bytes+stored.size() > most {
		m.remove(m.recent.Back())
	}
	m.version++
	stored.Version = m.version
	if m.items == nil {
		m.items = map[string]*list.Element{}
	}
	m.items[item.Key] = m.recent.PushFront(stored)
	m.bytes += stored.size()
	for _, f := range then {
		f(stored.Item)
	}
	return nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return &Error{Op: "Delete", Err: err}
	}
	if ctx.Err() != nil {
		return &Error{Op: "Delete", Key: key, Err: context.Cause(ctx)}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(m.items[key])
	return nil
}

// find gives the element of a key that has not expired, or nil.
func (m *Memory) find(key string) *list.Element {
	e := m.items[key]
	if e == nil {
		return nil
	}
	if i := e.Value.(*memoryItem); !i.expires.IsZero() && !time.Now().Before(i.expires) {
		m.remove(e)
		return nil
	}
	return e
}

func (m *Memory) remove(e *list.Element) {
	if e == nil {
		return
	}
	i := m.recent.Remove(e).(*memoryItem)
	delete(m.items, i.Key)
	m.bytes -= i.size()
}
