package memcloud

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// thing is one thing of the cloud: what was asked for (S), and what it is (T) from when on. The future is in the line as
// well, as far as it is settled: an instance that was launched holds the moment at which it will run.
type thing[S, T any] struct {
	id    string
	token string
	spec  S
	tags  map[string]string // none of these is ever changed, so that lists can copy it without the lock
	line  []version[T]      // by time, never empty
	gone  time.Time         // from when it is listed no more; zero while that is not known
}

type version[T any] struct {
	at time.Time
	v  T
}

// at is what the thing was at a time; nil before it was and after it is gone. The pointer is good until the next change.
func (x *thing[S, T]) at(t time.Time) *T {
	if x.goneAt(t) {
		return nil
	}
	for i := len(x.line) - 1; i >= 0; i-- {
		if !x.line[i].at.After(t) {
			return &x.line[i].v
		}
	}
	return nil
}

func (x *thing[S, T]) goneAt(t time.Time) bool { return !x.gone.IsZero() && !t.Before(x.gone) }

// become makes the thing v from now on, and forgets what was to become of it. Versions that no list shows any more are
// dropped.
func (x *thing[S, T]) become(now time.Time, lag time.Duration, v T) {
	for len(x.line) > 0 && x.line[len(x.line)-1].at.After(now) {
		x.line = x.line[:len(x.line)-1]
	}
	old := 0
	for old+1 < len(x.line) && !x.line[old+1].at.After(now.Add(-lag)) {
		old++
	}
	x.line = append(slices.Delete(x.line, 0, old), version[T]{now, v})
}

// later makes the thing v from a later time on.
func (x *thing[S, T]) later(at time.Time, v T) { x.line = append(x.line, version[T]{at, v}) }

// amend changes what a thing that exists is now and what it is to be.
func (x *thing[S, T]) amend(now time.Time, lag time.Duration, change func(*T)) {
	present := *x.at(now)
	i := len(x.line)
	for i > 0 && x.line[i-1].at.After(now) {
		i--
	}
	future := slices.Clone(x.line[i:])
	change(&present)
	x.become(now, lag, present)
	for _, f := range future {
		change(&f.v)
		x.line = append(x.line, f)
	}
}

// kind is all things of one kind that there are or were.
type kind[S, T any] struct {
	cloud   *Cloud
	op      string // the method that creates one
	prefix  string
	sets    map[tag][]*thing[S, T] // what lists may show, by tag, each sorted by ID; everything under the zero tag
	byID    map[string]*thing[S, T]
	byToken map[string]*thing[S, T]
	count   int // how many exist and count against the quota
}

type tag struct{ key, value string }

func (k *kind[S, T]) init(c *Cloud, op, prefix string) {
	k.cloud, k.op, k.prefix = c, op, prefix
	k.sets = map[tag][]*thing[S, T]{}
	k.byID, k.byToken = map[string]*thing[S, T]{}, map[string]*thing[S, T]{}
}

// add makes a thing and enters it under its token.
func (k *kind[S, T]) add(token string, spec S, tags map[string]string) *thing[S, T] {
	x := &thing[S, T]{token: token, spec: spec, tags: maps.Clone(tags)}
	for try := uint64(0); ; try++ {
		x.id = fmt.Sprintf("%s%08x", k.prefix, uint32(hash(k.cloud.opts.Seed+try, k.prefix, token)))
		if k.byID[x.id] == nil {
			break
		}
	}
	k.byID[x.id], k.byToken[token] = x, x
	k.enter(tag{}, x)
	for key, value := range x.tags {
		k.enter(tag{key, value}, x)
	}
	k.count++
	return x
}

// enter makes lists by a tag show a thing.
func (k *kind[S, T]) enter(t tag, x *thing[S, T]) {
	set := k.sets[t]
	if i, there := slices.BinarySearchFunc(set, x.id, func(y *thing[S, T], id string) int { return cmp.Compare(y.id, id) }); !there {
		k.sets[t] = slices.Insert(set, i, x)
	}
}

// retag gives a thing other tags. Lists by tags find it by these at once.
func (k *kind[S, T]) retag(x *thing[S, T], tags map[string]string) {
	all := maps.Clone(x.tags)
	if all == nil {
		all = map[string]string{}
	}
	for key, value := range tags {
		if old, had := all[key]; had {
			t := tag{key, old}
			k.sets[t] = slices.DeleteFunc(k.sets[t], func(y *thing[S, T]) bool { return y == x })
		}
		all[key] = value
		k.enter(tag{key, value}, x)
	}
	x.tags = all
}

// repeat finds what a token has made. It fails if the token was used for other parameters.
func (k *kind[S, T]) repeat(token string, spec S) (*thing[S, T], error) {
	x := k.byToken[token]
	if x == nil {
		return nil, nil
	}
	if f := provider.Differs(x.spec, spec); f != "" {
		return nil, provider.Errorf(k.op, token, provider.ErrInvalid,
			"%s differs from what this token was used for before (%s)", f, x.id)
	}
	return x, nil
}

// get finds what exists now, and gives a copy of what it is.
func (k *kind[S, T]) get(now time.Time, id string) (*thing[S, T], *T) {
	if x := k.byID[id]; x != nil {
		if v := x.at(now); v != nil {
			present := *v
			return x, &present
		}
	}
	return nil, nil
}

// remove ends a thing that exists, and frees its token.
func (k *kind[S, T]) remove(now time.Time, x *thing[S, T]) {
	x.gone = now
	k.count--
	delete(k.byToken, x.token)
}

// all is everything that exists, and may hold what is gone.
func (k *kind[S, T]) all() []*thing[S, T] { return k.sets[tag{}] }

// list is what a list shows at a time: copies that still share their tags with the cloud.
func (k *kind[S, T]) list(at time.Time, tags map[string]string) []T {
	// The smallest set that has one of the tags is searched for the others.
	rarest, least := tag{}, -1
	for key, value := range tags {
		if key == "" {
			return nil
		}
		if t := (tag{key, value}); least < 0 || len(k.sets[t]) < least {
			rarest, least = t, len(k.sets[t])
		}
	}
	set := k.sets[rarest]
	list := make([]T, 0, len(set))
	gone := false
	for _, x := range set {
		if len(tags) > 1 && !provider.Matches(x.tags, tags) {
			continue
		}
		if v := x.at(at); v != nil {
			list = append(list, *v)
		} else {
			gone = gone || x.goneAt(at)
		}
	}
	if oldest := time.Now().Add(-k.cloud.opts.ListLag); gone {
		k.sets[rarest] = slices.DeleteFunc(set, func(x *thing[S, T]) bool { return x.goneAt(oldest) })
	}
	return list
}

// agenda is when which instance changes by itself, earliest first.
type agenda []entry

type entry struct {
	at    time.Time
	order int // of what happens at one time
	m     *machine
}

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return cmp.Or(a[i].at.Compare(a[j].at), cmp.Compare(a[i].order, a[j].order)) < 0
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(entry)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = entry{}
	*a = (*a)[:last]
	return e
}

var _ heap.Interface = (*agenda)(nil)

// pool hands out the addresses of a network in turn, so that one that was given back is not soon used again.
type pool struct {
	prefix netip.Prefix
	last   netip.Addr
	used   map[netip.Addr]bool
}

func (p *pool) take() (netip.Addr, bool) {
	if p.used == nil {
		p.used = map[netip.Addr]bool{}
		p.last = p.prefix.Masked().Addr()
	}
	begin := p.last
	for {
		if p.last = p.last.Next(); !p.prefix.Contains(p.last) {
			p.last = p.prefix.Masked().Addr().Next()
		}
		if !p.used[p.last] {
			p.used[p.last] = true
			return p.last, true
		}
		if p.last == begin {
			return netip.Addr{}, false
		}
	}
}

func (p *pool) free(a netip.Addr) { delete(p.used, a) }

// bucket is a token bucket.
type bucket struct {
	Throttle
	level float64
	since time.Time
}

// take takes one token; where there is none it says how long until there is one.
func (b *bucket) take(now time.Time) time.Duration {
	if b.PerSecond == 0 {
		return 0
	}
	full := float64(max(b.Burst, 1))
	if b.since.IsZero() {
		b.level = full
	} else {
		b.level = min(full, b.level+now.Sub(b.since).Seconds()*b.PerSecond)
	}
	b.since = now
	if b.level < 1 {
		return max(time.Duration((1-b.level)/b.PerSecond*float64(time.Second)), 1)
	}
	b.level--
	return 0
}

func hash(seed uint64, parts ...string) uint64 {
	h := fnv.New64a()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	h.Write(b[:])
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	// FNV's upper bits differ little between short keys (MurmurHash3's finalizer mends that).
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
