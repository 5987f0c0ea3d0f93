package cache

import (
	"errors"
	"sync/atomic"
	"time"
)

// Stats is what an Of has counted since it is used.
type Stats struct {
	Hits       uint64        // values from the store, fresh or stale, and remembered absences and errors
	Near       uint64        // values from Near
	Stale      uint64        // of Hits: values whose TTL had ended
	Negative   uint64        // of Hits: remembered absences and errors
	Misses     uint64        // keys for which the store had no value, or failed
	Loads      uint64        // calls of load
	LoadErrors uint64        // of Loads: those that failed, ErrNotFound not counted
	Waits      uint64        // times that somebody else's load in another process was waited for
	LoadTime   time.Duration // in all Loads
	HitTime    time.Duration // in all Hits
	HitTimes   Latencies     // how long each of Hits took, from the call on
	LoadTimes  Latencies     // how long each of Loads took
}

type counts struct {
	hits, near, stale, negative, misses, loads, loadErrors, waits atomic.Uint64
	hitTimes, loadTimes                                           Histogram
}

// Stats gives a snapshot.
func (o *Of[V]) Stats() Stats {
	c := &o.counts
	hits, loads := c.hitTimes.Latencies(), c.loadTimes.Latencies()
	return Stats{
		Hits: c.hits.Load(), Near: c.near.Load(), Stale: c.stale.Load(), Negative: c.negative.Load(), Misses: c.misses.Load(),
		Loads: c.loads.Load(), LoadErrors: c.loadErrors.Load(), Waits: c.waits.Load(),
		LoadTime: loads.Sum, HitTime: hits.Sum, HitTimes: hits, LoadTimes: loads,
	}
}

func (c *counts) hit(e envelope, start time.Time) {
	c.hits.Add(1)
	c.hitTimes.Add(time.Since(start))
	if e.bits&(bitAbsent|bitFailed) != 0 {
		c.negative.Add(1)
	} else if !time.Now().Before(e.fresh) {
		c.stale.Add(1)
	}
}

func (c *counts) loaded(start time.Time, err error) {
	c.loads.Add(1)
	c.loadTimes.Add(time.Since(start))
	if err != nil && !errors.Is(err, ErrNotFound) {
		c.loadErrors.Add(1)
	}
}
