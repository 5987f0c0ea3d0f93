package memcached

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// kind is what a call asks for.
type kind int

const (
	get kind = iota
	lease
	multi
	set
	add
	swap
	remove
)

// call is one request to one server, and its answer.
type call struct {
	home    *calls
	kind    kind
	key     string
	keys    []string // of multi; its own, since a connection may read them when the caller has left
	next    *call    // a further one of the same GetMulti to the same server
	batch   *batch   // the result of that GetMulti
	item    cache.Item
	ttl     time.Duration // of a lease
	version any           // what swap compares

	// The answer. Err is what the server said, as an error of package cache; it is not about the connection.
	err   error
	found []cache.Item // the items, in the order of the keys
	hits  []hit        // what a multi found over a connection of our own, in the same order
	rooms [][]byte     // where the values of hits are
	from  *conn        // over which hits came
	at    int64        // when the answer was asked for, or before, in nanoseconds of Unix time
	won   bool         // the lease

	// What follows is the connection's.
	out      []byte        // the request as it is sent
	versions []casOf       // room for those of hits
	shared   int           // the one of rooms that takes small values
	opaque   uint32        // is sent with the request and comes back with the answer
	state    state         // guarded by lane.mu
	wake     chan struct{} // says that the state is done or drives
	ioErr    error         // the failure of the connection
	reused   bool          // the connection had carried calls before
	begun    *lane         // it is written there already, and its caller drives
	unwatch  func()        // of its connection, if it is begun
	since    time.Time     // when it was begun
	early    error         // what has failed since then
}

// state is where a call is on its lane.
type state int

const (
	queued state = iota
	flying       // is written, or about to be
	drives       // its caller is the one who reads and writes
	done
	abandoned // its caller has left while it was flying
)

// transport carries calls to one server.
type transport interface {
	// carry makes one call. Failures of the connection are in its ioErr.
	carry(ctx context.Context, c *call)
	// closeIdle closes what is not in use now.
	closeIdle()
	// idle counts the connections that are open and not in use.
	idle() int
}

// calls are those that were given back. They belong to one Client: a call has a channel, and in a test's bubble (see
// testing/synctest) channels of another one must not turn up.
type calls struct{ pool sync.Pool }

func (cs *calls) make(k kind, key string) *call {
	c, ok := cs.pool.Get().(*call)
	if !ok {
		c = &call{wake: make(chan struct{}, 1)}
	}
	c.home, c.kind, c.key = cs, k, key
	return c
}

// free gives a call back. Nobody may use it any more.
func (c *call) free() {
	if c.state == abandoned {
		return // the connection still has it
	}
	home, out, wake, found := c.home, c.out[:0], c.wake, c.found
	keys, hits, rooms := c.keys, c.hits[:0], c.rooms
	if cap(out) > 16<<10 {
		out = nil
	}
	clear(found)
	clear(keys)
	clear(rooms)
	*c = call{out: out, wake: wake, found: found[:0], keys: keys[:0], hits: hits, rooms: rooms[:0]}
	home.pool.Put(c)
}

// reset prepares a call for another attempt.
func (c *call) reset() {
	c.err, c.ioErr, c.won, c.reused = nil, nil, false, false
	clear(c.found)
	clear(c.rooms)
	c.found, c.hits, c.rooms, c.shared, c.from = c.found[:0], c.hits[:0], c.rooms[:0], 0, nil
}

// casOf is the version of what came over a connection of our own: CAS IDs count from 1 in each server process, and a
// connection leads to one process for as long as it lives.
type casOf struct {
	conn *conn
	id   uint64
	at   int64 // of the call
}

// encode writes the request in memcached's meta protocol, and one for several keys in the text protocol, where it is one
// command. See protocol.txt of memcached 1.6.
func (c *call) encode(opaques *atomic.Uint32) {
	b := c.out[:0]
	if c.kind == multi {
		b = append(b, "gets"...)
		for _, key := range c.keys {
			b = append(b, ' ')
			b = append(b, key...)
		}
		c.out = append(b, "\r\n"...)
		return
	}
	c.opaque = opaques.Add(1)
	switch c.kind {
	case get:
		b = append(append(b, "mg "...), c.key...)
		b = append(b, " v f c"...)
	case lease:
		b = append(append(b, "mg "...), c.key...)
		b = append(b, " v f c N"...)
		b = strconv.AppendInt(b, int64(expiration(c.ttl, time.Now())), 10)
	case remove:
		b = append(append(b, "md "...), c.key...)
	default:
		b = append(append(b, "ms "...), c.key...)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(len(c.item.Value)), 10)
		b = append(b, " F"...)
		b = strconv.AppendUint(b, uint64(c.item.Flags), 10)
		if e := expiration(c.item.TTL, time.Now()); e != 0 {
			b = append(b, " T"...)
			b = strconv.AppendInt(b, int64(e), 10)
		}
		if c.kind == add {
			b = append(b, " ME"...)
		}
		if c.kind == swap {
			b = append(b, " C"...)
			b = strconv.AppendUint(b, c.version.(*casOf).id, 10)
		}
	}
	b = append(b, " O"...)
	b = strconv.AppendUint(b, uint64(c.opaque), 10)
	b = append(b, "\r\n"...)
	if c.kind == set || c.kind == add || c.kind == swap {
		b = append(b, c.item.Value...)
		b = append(b, "\r\n"...)
	}
	c.out = b
}
