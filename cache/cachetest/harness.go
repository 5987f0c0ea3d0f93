package cachetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// harness is what a rule's check works with.
type harness struct {
	testing.TB
	cache.Store
	ctx  context.Context // ends when patience does
	rule string
}

// broken ends the rule as broken.
func (h *harness) broken(format string, args ...any) {
	h.Helper()
	h.Fatalf("broken rule: "+h.rule+"\n"+format, args...)
}

// until waits for a condition.
func (h *harness) until(what string, cond func() bool) {
	h.Helper()
	for !cond() {
		if h.ctx.Err() != nil {
			h.broken("waited in vain until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// want fails the rule unless err is the wanted error.
func (h *harness) want(what string, err, want error) {
	h.Helper()
	if !errors.Is(err, want) {
		h.broken("%s returned the error %v, want %v", what, err, want)
	}
}

// set stores a value without more.
func (h *harness) set(key, value string) {
	h.Helper()
	if err := h.Set(h.ctx, cache.Item{Key: key, Value: []byte(value)}); err != nil {
		h.broken("Set(%s): %v", key, err)
	}
}

// get reads an item that must be there.
func (h *harness) get(key string) cache.Item {
	h.Helper()
	item, err := h.Get(h.ctx, key)
	if err != nil {
		h.broken("Get(%s): %v", key, err)
	}
	return item
}

// holds fails the rule unless the value is there.
func (h *harness) holds(key, value, when string) {
	h.Helper()
	if item, err := h.Get(h.ctx, key); err != nil || string(item.Value) != value {
		h.broken("%s, Get(%s) returned %s and %v; want %s", when, key, show(item.Value), err, show([]byte(value)))
	}
}

// lacks fails the rule unless there is nothing.
func (h *harness) lacks(key, when string) {
	h.Helper()
	if item, err := h.Get(h.ctx, key); !errors.Is(err, cache.ErrMiss) {
		h.broken("%s, Get(%s) returned %s and %v; want ErrMiss", when, key, show(item.Value), err)
	}
}

// writes are the three ways to store an item.
func (h *harness) writes() map[string]func(context.Context, cache.Item) error {
	return map[string]func(context.Context, cache.Item) error{"Set": h.Set, "Add": h.Add, "CompareAndSwap": h.CompareAndSwap}
}

func show(value []byte) string {
	if len(value) > 40 {
		return fmt.Sprintf("%q… (%d bytes)", value[:40], len(value))
	}
	return fmt.Sprintf("%q", value)
}
