package memcached

import (
	"context"
	"maps"
	"sync"

	"github.com/scalr-go/scalr/cache"
)

// GetMulti implements cache.Store. It asks all servers at once, each in one round trip. Values of up to 512 bytes share memory:
// one that is kept may keep 16 KB.
func (c *Client) GetMulti(ctx context.Context, keys []string) (map[string]cache.Item, error) {
	b := batch{size: len(keys)}
	for len(keys) > 0 {
		keys = b.ask(ctx, c.ring.Load(), &c.calls, keys)
	}
	b.makeRoom()
	if b.failed != nil {
		return b.found, &cache.PartialError{Failed: b.failed}
	}
	return b.found, nil
}

// batch is the result of a GetMulti so far.
type batch struct {
	size   int // how many items are expected
	mu     sync.Mutex
	found  map[string]cache.Item // see makeRoom
	failed map[string]error
	left   []string // whose server has left the set meanwhile

	ring    *ring
	standIn bool // stand-ins are asked; nobody stands in for them
}

// maxKeys is how many keys a server is asked for at once.
const maxKeys = 1000

// share gives a call for one more key to the server that gets the calls of rest: the first of those, or a further one if
// that is full.
func (cs *calls) share(rest *call, key string) *call {
	if rest == nil || len(rest.keys) == maxKeys {
		c := cs.make(multi, "")
		c.next = rest
		rest = c
	}
	rest.keys = append(rest.keys, key)
	return rest
}

// makeRoom makes the map. Where it can it is called while a server works, which then costs no time.
func (b *batch) makeRoom() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.found == nil {
		b.found = make(map[string]cache.Item, b.size)
	}
}

// ask asks the servers of r for the keys and returns those whose server has left the set meanwhile.
func (b *batch) ask(ctx context.Context, r *ring, cs *calls, keys []string) (left []string) {
	shares := make([]*call, len(r.slots))
	for _, key := range keys {
		err := cache.CheckKey(key)
		if err == nil && len(r.slots) == 0 {
			err = cache.ErrNoServers
		}
		if err != nil {
			b.fail([]string{key}, &cache.Error{Op: "GetMulti", Err: err})
			continue
		}
		i := r.index(key)
		shares[i] = cs.share(shares[i], key)
	}
	b.left, b.ring = nil, r
	var wg sync.WaitGroup
	ask := func(i int) { wg.Go(func() { b.askServer(ctx, r.slots[i].node, shares[i]) }) }
	var begun, others []int
	for i, share := range shares {
		switch {
		case share == nil:
		case len(share.keys) < len(keys) && r.slots[i].node.begin(ctx, share): // one of several
			begun = append(begun, i)
		default:
			others = append(others, i)
		}
	}
	for k, i := range others {
		if len(begun) == 0 && k == len(others)-1 {
			b.askServer(ctx, r.slots[i].node, shares[i])
		} else {
			ask(i)
		}
	}
	if len(begun) > 0 {
		b.makeRoom()
	}
	for _, i := range begun {
		if shares[i].soon() {
			b.askServer(ctx, r.slots[i].node, shares[i])
		} else {
			ask(i)
		}
	}
	wg.Wait()
	return b.left
}

// askServer makes the calls of a share, and gives them back.
func (b *batch) askServer(ctx context.Context, n *node, share *call) {
	for share != nil {
		a := share
		share, a.next = a.next, nil
		b.askOnce(ctx, n, a)
		a.free()
	}
}

func (b *batch) askOnce(ctx context.Context, n *node, a *call) {
	a.batch = b
	err := n.do(ctx, "GetMulti", a)
	if err != nil && !b.standIn && n.isDown() && ctx.Err() == nil && len(b.ring.slots) > 1 {
		b.askStandIns(ctx, n.calls, a.keys)
		return
	}
	if a.state == abandoned {
		b.fail(a.keys, err)
		return
	}
	a.makeRoom(0)
	b.mu.Lock()
	before := len(b.found)
	a.deliver(b.found)
	found := len(b.found) - before
	if err == errDeparted {
		b.left = append(b.left, a.keys...)
	}
	b.mu.Unlock()
	switch {
	case err == errDeparted:
	case err != nil:
		b.fail(a.keys, err)
	default:
		n.hits.Add(uint64(found))
		n.misses.Add(uint64(max(0, len(a.keys)-len(a.found)-len(a.hits))))
	}
}

// askStandIns asks for keys whose server is down.
func (b *batch) askStandIns(ctx context.Context, cs *calls, keys []string) {
	shares := map[*node]*call{}
	for _, key := range keys {
		n := b.ring.standIn(key)
		shares[n] = cs.share(shares[n], key)
	}
	other := batch{size: len(keys), ring: b.ring, standIn: true}
	for n, share := range shares {
		other.askServer(ctx, n, share)
	}
	b.makeRoom()
	b.mu.Lock()
	maps.Copy(b.found, other.found)
	b.left = append(b.left, other.left...)
	b.mu.Unlock()
	for key, err := range other.failed {
		b.fail([]string{key}, err)
	}
}

// fail notes the failure for the keys, except for those that were read before it.
func (b *batch) fail(keys []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.failed = map[string]error{}
	}
	for _, key := range keys {
		if _, ok := b.found[key]; !ok {
			b.failed[key] = err
		}
	}
}

// hit is a value that was found, of the call whose answer it is in. It has no pointers: what is written here many times while
// an answer is taken apart costs the garbage collector nothing.
type hit struct {
	key      int // index into keys
	flags    uint32
	cas      uint64
	room     int // index into rooms
	at, size int // where in it
}

// makeRoom makes room for what is about to be found, for values of as many bytes as those of the answer before.
func (c *call) makeRoom(size int) {
	if c.versions == nil {
		c.versions = make([]casOf, len(c.keys)) // one allocation for all
	}
	if size > 0 && len(c.rooms) == 0 {
		c.rooms = append(c.rooms, make([]byte, 0, min(len(c.keys)*size, sharedSize)))
	}
	if c.batch != nil {
		c.batch.makeRoom()
	}
}

// room gives the place for a value. That of a small one is in a room that is shared by as many as there may be.
func (c *call) room(n int) (value []byte, room, at int) {
	if n > smallValue {
		value = make([]byte, n)
		c.rooms = append(c.rooms, value)
		return value, len(c.rooms) - 1, 0
	}
	if room = c.shared; room >= len(c.rooms) || cap(c.rooms[room])-len(c.rooms[room]) < n {
		room = len(c.rooms)
		c.rooms = append(c.rooms, make([]byte, 0, min(max(1, len(c.keys)-len(c.hits))*n, sharedSize)))
		c.shared = room
	}
	at = len(c.rooms[room])
	c.rooms[room] = c.rooms[room][:at+n]
	return c.rooms[room][at : at+n : at+n], room, at
}

// deliver puts what was found into a map, after makeRoom.
func (c *call) deliver(found map[string]cache.Item) {
	for _, it := range c.found {
		found[it.Key] = it
	}
	for i, h := range c.hits {
		version := &c.versions[i]
		version.conn, version.id, version.at = c.from, h.cas, c.at
		end := h.at + h.size
		found[c.keys[h.key]] = cache.Item{
			Key: c.keys[h.key], Value: c.rooms[h.room][h.at:end:end], Flags: h.flags, Version: version,
		}
	}
}
