package cache

import (
	"errors"
	"sync/atomic"
	"time"
)

// Stats is what an Of has counted since it is used.
type Stats struct {
	Hits       uint64        // values from the store, fresh or stale, and remembered absences
	Near       uint64        // values from Near
	Stale      uint64        // of Hits: values whose TTL had ended
	Negative   uint64        // of Hits: remembered absences
	Misses     uint64        // keys for which the store had no value, or failed
	Loads      uint64        // calls of load
	LoadErrors uint64        // of Loads: those that failed, ErrNotFound not counted
	Waits      uint64        // times that somebody else's load in another process was waited for
	LoadTime   time.Duration // in all Loads
	HitTime    time.Duration // in all Hits
}

type counts struct {
	hits, near, stale, negative, misses, loads, loadErrors, waits atomic.Uint64
	loadTime, hitTime                                             atomic.Int64
}

// Stats gives a snapshot.
func (o *Of[V]) Stats() Stats {
	c := &o.counts
	return Stats{
		Hits: c.hits.Load(), Near: c.near.Load(), Stale: c.stale.Load(), Negative: c.negative.Load(), Misses: c.misses.Load(),
		Loads: c.loads.Load(), LoadErrors: c.loadErrors.Load(), Waits: c.waits.Load(),
		LoadTime: time.Duration(c.loadTime.Load()), HitTime: time.Duration(c.hitTime.Load()),
	}
}

func (c *counts) hit(e envelope, start time.Time) {
	c.hits.Add(1)
	c.hitTime.Add(int64(time.Since(start)))
	if e.bits&bitAbsent != 0 {
		c.negative.Add(1)
	} else if !time.Now().Before(e.fresh) {
		c.stale.Add(1)
	}
}

func (c *counts) loaded(start time.Time, err error) {
	c.loads.Add(1)
	c.loadTime.Add(int64(time.Since(start)))
	if err != nil && !errors.Is(err, ErrNotFound) {
		c.loadErrors.Add(1)
	}
}
