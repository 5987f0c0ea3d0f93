package memcached

import (
	"cmp"
	"slices"

	"github.com/scalr-go/scalr/cache"
)

// ring is a set of servers. It is immutable.
type ring struct {
	slots []slot // sorted by name, so that equal scores have one winner everywhere
}

type slot struct {
	hash uint64 // of the slot's name
	node *node
}

func newRing(servers []cache.Server, of func(cache.Server) *node) *ring {
	r := &ring{}
	for _, s := range servers {
		r.slots = append(r.slots, slot{mix(hash(s.Slot)), of(s)})
	}
	slices.SortFunc(r.slots, func(a, b slot) int { return cmp.Compare(a.node.server.Slot, b.node.server.Slot) })
	return r
}

// pick gives the server that has the key, or nil if there are none.
func (r *ring) pick(key string) *node {
	if i := r.index(key); i >= 0 {
		return r.slots[i].node
	}
	return nil
}

// index is pick as an index into slots, or -1.
func (r *ring) index(key string) int {
	if len(r.slots) == 1 {
		return 0
	}
	h := hash(key)
	best, top := -1, uint64(0)
	for i := range r.slots {
		if score := mix(h ^ r.slots[i].hash); best < 0 || score > top {
			best, top = i, score
		}
	}
	return best
}

// standIn gives the server that stands in for the one that has the key: its second choice, which would have the key if that one
// left. Nil if there is one server only.
func (r *ring) standIn(key string) *node {
	if len(r.slots) < 2 {
		return nil
	}
	h := hash(key)
	var first, second int
	var top, next uint64
	for i := range r.slots {
		switch score := mix(h ^ r.slots[i].hash); {
		case i == 0 || score > top:
			second, next = first, top
			first, top = i, score
		case i == 1 || score > next:
			second, next = i, score
		}
	}
	return r.slots[second].node
}

func (r *ring) has(n *node) bool {
	return slices.ContainsFunc(r.slots, func(s slot) bool { return s.node == n })
}

// hash is FNV-1a of 64 bits.
func hash(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return h
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014): each bit of the input changes half of the output.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
