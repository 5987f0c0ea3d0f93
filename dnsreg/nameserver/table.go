package nameserver

import (
	"math/bits"
	"slices"
)

// node is one name of a zone. It is never changed once a reader can see it.
type node struct {
	name string // in wire format and lower case
	hash uint64
	kids int     // how many names there are one label below; a node without sets exists because of them (RFC 4592, 2.2.2)
	sets []rrset // sorted by type
	one  [1]rrset
}

// hold makes the sets the node's own. Most names have one: that stands in the node, where a query has it at hand.
func (n *node) hold(sets []rrset) {
	if n.sets = sets; len(sets) == 1 {
		n.one[0] = sets[0]
		n.sets = n.one[:]
	}
}

func (n *node) get(typ uint16) *rrset {
	for i := range n.sets {
		if n.sets[i].typ == typ {
			return &n.sets[i]
		}
	}
	return nil
}

// table is a persistent hash table of nodes by name: a hash array mapped trie (Phil Bagwell, "Ideal Hash Trees", 2001).
// A change copies the path to what it changes, O(log n), and all earlier versions stay as they are.
//
// Each level takes 6 bits of the hash: what a query costs is the memory that it waits for, level by level. Below the last
// one, names with the same hash stand in one list.
type table struct {
	bits  uint64
	slots []slot
	edit  *edit
}

type slot struct {
	node *node
	sub  *table // if node is nil
}

// edit marks the tables that one transaction has made, which it may change in place, since nobody else has seen them.
type edit struct{ _ byte }

const (
	levelBits = 6
	levelMask = 1<<levelBits - 1
	lastShift = 60
)

func (t *table) find(hash uint64, name []byte) *node {
	for shift := 0; t != nil; shift += levelBits {
		if shift > lastShift {
			for _, s := range t.slots {
				if s.node.name == string(name) {
					return s.node
				}
			}
			return nil
		}
		bit := uint64(1) << (hash >> shift & levelMask)
		if t.bits&bit == 0 {
			return nil
		}
		s := t.slots[bits.OnesCount64(t.bits&(bit-1))]
		if s.node != nil {
			if s.node.hash == hash && s.node.name == string(name) {
				return s.node
			}
			return nil
		}
		t = s.sub
	}
	return nil
}

// own gives a table that the transaction may change: t itself or a copy.
func (t *table) own(e *edit) *table {
	switch {
	case t == nil:
		return &table{edit: e}
	case t.edit == e:
		return t
	}
	return &table{edit: e, bits: t.bits, slots: slices.Clone(t.slots)}
}

// put gives a table that holds n, in place of a node of the same name if there is one.
func (t *table) put(e *edit, shift int, n *node) *table {
	t = t.own(e)
	if shift > lastShift {
		i := slices.IndexFunc(t.slots, func(s slot) bool { return s.node.name == n.name })
		if i < 0 {
			t.slots = append(t.slots, slot{node: n})
		} else {
			t.slots[i].node = n
		}
		return t
	}
	bit := uint64(1) << (n.hash >> shift & levelMask)
	i := bits.OnesCount64(t.bits & (bit - 1))
	switch s := &t.slots; {
	case t.bits&bit == 0:
		t.bits |= bit
		*s = slices.Insert(*s, i, slot{node: n})
	case (*s)[i].node == nil:
		(*s)[i].sub = (*s)[i].sub.put(e, shift+levelBits, n)
	case (*s)[i].node.name == n.name:
		(*s)[i].node = n
	default:
		var sub *table
		sub = sub.put(e, shift+levelBits, (*s)[i].node)
		(*s)[i] = slot{sub: sub.put(e, shift+levelBits, n)}
	}
	return t
}

// remove gives a table without the node of this name, which is there.
func (t *table) remove(e *edit, shift int, n *node) *table {
	t = t.own(e)
	if shift > lastShift {
		t.slots = slices.DeleteFunc(t.slots, func(s slot) bool { return s.node.name == n.name })
		return t
	}
	bit := uint64(1) << (n.hash >> shift & levelMask)
	i := bits.OnesCount64(t.bits & (bit - 1))
	if t.slots[i].node != nil {
		t.bits &^= bit
		t.slots = slices.Delete(t.slots, i, i+1)
		return t
	}
	sub := t.slots[i].sub.remove(e, shift+levelBits, n)
	if len(sub.slots) == 1 && sub.slots[0].node != nil {
		t.slots[i] = slot{node: sub.slots[0].node} // a lone node moves up, so that a table's shape depends on its names only
	} else {
		t.slots[i].sub = sub
	}
	return t
}

// each calls yield with all nodes, in no order, until it returns false.
func (t *table) each(yield func(*node) bool) bool {
	for _, s := range t.slots {
		if s.node != nil && !yield(s.node) || s.node == nil && !s.sub.each(yield) {
			return false
		}
	}
	return true
}
