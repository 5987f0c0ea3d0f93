package cachetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/scalr-go/scalr/cache"
)

func setAndGet(h *harness) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, value := range [][]byte{
		[]byte("plain"), nil, {}, []byte("\r\n"), []byte("END\r\nVALUE x 0 1\r\n"), all, bytes.Repeat([]byte("x"), 1_000_000), []byte("again"),
	} {
		// Under one key in turn, so that each is stored over the one before.
		want := cache.Item{Key: "k", Value: value, Flags: uint32(i) * 0x2468_ace1}
		if err := h.Set(h.ctx, want); err != nil {
			h.broken("Set of %s: %v", show(value), err)
		}
		got, err := h.Get(h.ctx, "k")
		if err != nil || got.Key != "k" || !bytes.Equal(got.Value, value) || got.Flags != want.Flags {
			h.broken("Get returned key %q, %s, flags %#x and %v; want key \"k\", %s, flags %#x",
				got.Key, show(got.Value), got.Flags, err, show(value), want.Flags)
		}
		if got.Version == nil || got.TTL != 0 {
			h.broken("Get returned version %v and TTL %v, want a version and no TTL", got.Version, got.TTL)
		}
	}
}

func miss(h *harness) {
	item, err := h.Get(h.ctx, "absent")
	h.want("Get of what is not there", err, cache.ErrMiss)
	if item.Key != "" || item.Value != nil || item.Version != nil {
		h.broken("with ErrMiss, Get returned the item %q = %s", item.Key, show(item.Value))
	}
}

func getMulti(h *harness) {
	var ask []string
	want := map[string]string{}
	for i := range 200 {
		key := fmt.Sprintf("key-%03d", i)
		ask = append(ask, key)
		if i%3 > 0 {
			want[key] = fmt.Sprintf("value %d", i)
			h.set(key, want[key])
		}
	}
	ask = append(ask, ask[1], ask[2], ask[3]) // keys may repeat
	got, err := h.GetMulti(h.ctx, ask)
	if err != nil {
		h.broken("GetMulti: %v", err)
	}
	values := map[string]string{}
	for key, item := range got {
		if key != item.Key || item.Version == nil {
			h.broken("GetMulti returned under %q an item with key %q and version %v", key, item.Key, item.Version)
		}
		values[key] = string(item.Value)
	}
	if !maps.Equal(values, want) {
		h.broken("GetMulti returned %d items, want %d: %v", len(values), len(want), values)
	}
	swapped := got["key-001"]
	swapped.Value = []byte("swapped")
	if err := h.CompareAndSwap(h.ctx, swapped); err != nil {
		h.broken("CompareAndSwap with a version from GetMulti: %v", err)
	}
	h.holds("key-001", "swapped", "after CompareAndSwap with a version from GetMulti")
	if got, err := h.GetMulti(h.ctx, nil); err != nil || len(got) != 0 {
		h.broken("GetMulti of no keys returned %v and %v", got, err)
	}
}

var badKeys = []string{"", " ", "a b", "a\tb", "a\r\nflush_all\r\n", "a\x00", "\x7f", strings.Repeat("k", 251), strings.Repeat("k", 5000)}

func keys(h *harness) {
	for _, key := range badKeys {
		_, err := h.Get(h.ctx, key)
		h.want(fmt.Sprintf("Get(%.20q)", key), err, cache.ErrInvalid)
		h.want(fmt.Sprintf("Delete(%.20q)", key), h.Delete(h.ctx, key), cache.ErrInvalid)
		for name, write := range h.writes() {
			h.want(fmt.Sprintf("%s(%.20q)", name, key), write(h.ctx, cache.Item{Key: key, Value: []byte("v")}), cache.ErrInvalid)
		}
	}
	good := []string{"k", "K", "k:1/2?x=y&z#~", "\u00e9\u4e16", "\xff\xfe", strings.Repeat("k", 250), strings.Repeat("k", 249) + "j"}
	for i, key := range good {
		h.set(key, fmt.Sprint(i))
	}
	for i, key := range good {
		h.holds(key, fmt.Sprint(i), "after each key was stored with a value of its own")
	}
}

func invalidAmongOthers(h *harness) {
	h.set("a", "1")
	h.set("b", "2")
	got, err := h.GetMulti(h.ctx, []string{"a", "not valid", "absent", "", "b"})
	if len(got) != 2 || string(got["a"].Value) != "1" || string(got["b"].Value) != "2" {
		h.broken("GetMulti of a, b, an absent key and two invalid ones returned %d items, want a and b", len(got))
	}
	partial := new(cache.PartialError)
	if !errors.As(err, &partial) {
		h.broken("GetMulti with invalid keys returned the error %v, want a *cache.PartialError", err)
	}
	if named := slices.Sorted(maps.Keys(partial.Failed)); !slices.Equal(named, []string{"", "not valid"}) {
		h.broken("GetMulti named the keys %q, want the invalid ones", named)
	}
	h.want("GetMulti with invalid keys", err, cache.ErrInvalid)
}

func values(h *harness) {
	h.set("there", "old")
	version := h.get("there").Version
	for name, write := range h.writes() {
		key := map[bool]string{true: "there", false: "new"}[name == "CompareAndSwap"]
		err := write(h.ctx, cache.Item{Key: key, Value: make([]byte, cache.MaxValue+1), Version: version})
		h.want(name+" of a value of MaxValue+1 bytes", err, cache.ErrTooLarge)
		err = write(h.ctx, cache.Item{Key: key, Value: []byte("v"), TTL: -1, Version: version})
		h.want(name+" with a TTL below zero", err, cache.ErrInvalid)
	}
	h.lacks("new", "after writes that were refused")
	h.holds("there", "old", "after writes that were refused")
}

func add(h *harness) {
	item := cache.Item{Key: "k", Value: []byte("first"), Flags: 7}
	if err := h.Add(h.ctx, item); err != nil {
		h.broken("Add where nothing is: %v", err)
	}
	if got := h.get("k"); string(got.Value) != "first" || got.Flags != 7 {
		h.broken("after Add, Get returned %s, flags %d", show(got.Value), got.Flags)
	}
	h.want("Add where something is", h.Add(h.ctx, cache.Item{Key: "k", Value: []byte("second")}), cache.ErrNotStored)
	h.holds("k", "first", "after an Add that was not stored")
	if err := h.Delete(h.ctx, "k"); err != nil {
		h.broken("Delete: %v", err)
	}
	if err := h.Add(h.ctx, cache.Item{Key: "k", Value: []byte("third")}); err != nil {
		h.broken("Add after Delete: %v", err)
	}
	h.holds("k", "third", "after Delete and Add")
}

func compareAndSwap(h *harness) {
	swap := func(version any, value string) error {
		return h.CompareAndSwap(h.ctx, cache.Item{Key: "k", Value: []byte(value), Version: version})
	}
	h.set("k", "one")
	v1 := h.get("k").Version
	if err := h.CompareAndSwap(h.ctx, cache.Item{Key: "k", Value: []byte("two"), Flags: 9, Version: v1}); err != nil {
		h.broken("CompareAndSwap over what was read: %v", err)
	}
	if got := h.get("k"); string(got.Value) != "two" || got.Flags != 9 {
		h.broken("after CompareAndSwap, Get returned %s, flags %d", show(got.Value), got.Flags)
	}
	h.want("a second CompareAndSwap with one version", swap(v1, "bad"), cache.ErrNotStored)

	v2 := h.get("k").Version
	h.set("k", "two") // the same value is another version
	h.want("CompareAndSwap after a Set", swap(v2, "bad"), cache.ErrNotStored)
	h.holds("k", "two", "after swaps that were not stored")

	v3 := h.get("k").Version
	if err := h.Delete(h.ctx, "k"); err != nil {
		h.broken("Delete: %v", err)
	}
	h.want("CompareAndSwap after a Delete", swap(v3, "bad"), cache.ErrMiss)
	h.lacks("k", "after a swap of what is gone")
	if err := h.Add(h.ctx, cache.Item{Key: "k", Value: []byte("two")}); err != nil {
		h.broken("Add: %v", err)
	}
	h.want("CompareAndSwap after a Delete and an Add", swap(v3, "bad"), cache.ErrNotStored)

	// A version that no Get has set matches nothing.
	for _, version := range []any{nil, 0, uint64(1), "x", []byte("x")} {
		if err := swap(version, "bad"); err == nil {
			h.broken("CompareAndSwap with the version %#v succeeded", version)
		}
	}
	h.set("other", "x")
	if err := swap(h.get("other").Version, "bad"); err == nil {
		h.broken("CompareAndSwap with the version of another key succeeded")
	}
	h.holds("k", "two", "after swaps that were not stored")
}

func remove(h *harness) {
	h.set("k", "v")
	h.set("other", "stays")
	for range 2 {
		if err := h.Delete(h.ctx, "k"); err != nil {
			h.broken("Delete: %v", err)
		}
		h.lacks("k", "after Delete")
	}
	h.holds("other", "stays", "after Delete of k")
}

func copies(h *harness) {
	value := []byte("value")
	if err := h.Set(h.ctx, cache.Item{Key: "k", Value: value}); err != nil {
		h.broken("Set: %v", err)
	}
	value[0] = 'X'
	h.holds("k", "value", "after the caller changed the slice that it had stored")
	h.get("k").Value[0] = 'X'
	h.holds("k", "value", "after the caller changed the slice that Get had returned")
	found, err := h.GetMulti(h.ctx, []string{"k"})
	if err != nil {
		h.broken("GetMulti: %v", err)
	}
	found["k"].Value[0] = 'X'
	h.holds("k", "value", "after the caller changed the slice that GetMulti had returned")
}

func contexts(h *harness) {
	h.set("k", "v")
	version := h.get("k").Version
	cause := errors.New("the caller has had enough")
	ctx, cancel := context.WithCancelCause(h.ctx)
	cancel(cause)
	_, err := h.Get(ctx, "k")
	h.want("Get", err, cause)
	got, err := h.GetMulti(ctx, []string{"k", "absent"})
	h.want("GetMulti", err, cause)
	if len(got) > 0 {
		h.broken("GetMulti returned items in spite of its context")
	}
	h.want("Delete", h.Delete(ctx, "k"), cause)
	h.want("Set", h.Set(ctx, cache.Item{Key: "k", Value: []byte("bad")}), cause)
	h.want("Add", h.Add(ctx, cache.Item{Key: "new", Value: []byte("bad")}), cause)
	h.want("CompareAndSwap", h.CompareAndSwap(ctx, cache.Item{Key: "k", Value: []byte("bad"), Version: version}), cause)
	h.lacks("new", "after an Add whose context had ended")
	h.holds("k", "v", "after calls whose context had ended")
}
