package mysql

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// maxLanes is how many tables are copied at the same time.
const maxLanes = 4

// lane is what one table at a time is copied over.
type lane struct {
	c         *copying
	from, to  *session // in the snapshot; on the target
	reporting *sync.Mutex
}

// lane gives the i-th one. A backup has no target, and what is restored no source.
func (c *copying) lane(i int) lane {
	l := lane{c: c, reporting: &sync.Mutex{}}
	if i < len(c.snaps) {
		l.from = c.snaps[i]
	}
	if i < len(c.writers) {
		l.to = c.writers[i]
	}
	return l
}

// copied counts rows and tells of them, one lane at a time.
func (l lane) copied(t *table, rows int64) {
	l.reporting.Lock()
	defer l.reporting.Unlock()
	l.c.done += rows
	l.c.report(t.String())
}

// openLanes opens the sessions of further lanes: no more than there are tables to copy, nor than both servers have room for.
func (c *copying) openLanes(ctx context.Context, all *catalog) error {
	n := 0
	for _, t := range all.tables {
		if !t.elsewhere() && !t.sequence {
			n++
		}
	}
	for i := 1; i < min(n, maxLanes); i++ {
		from, err := c.reads.add(ctx)
		if isServer(err, errsNoRoom...) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("on the source: %w", err)
		}
		to, err := c.writer(ctx, i)
		if isServer(err, errsNoRoom...) {
			return nil
		}
		if err != nil {
			return err
		}
		c.snaps, c.writers = append(c.snaps, from), append(c.writers, to)
	}
	return nil
}

// copyTables copies the rows of all tables over as many lanes as there are snapshots, the largest first, so that none of them
// is alone in the end. The first error ends all lanes.
func (c *copying) copyTables(ctx context.Context, all *catalog) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var first error
	var once sync.Once
	copyFrom := func(l lane, queue <-chan *table) {
		for t := range queue {
			if err := l.copyTable(ctx, t); err != nil {
				once.Do(func() {
					first = fmt.Errorf("table %s: %w", t, err)
					cancel(first)
				})
				return
			}
		}
	}
	var lanes sync.WaitGroup
	queues := all.queues()
	one := c.lane(0)
	copyFrom(one, queues[0])
	if first != nil {
		return first
	}
	for i := range c.snaps {
		l := c.lane(i)
		l.reporting = one.reporting
		lanes.Go(func() { copyFrom(l, queues[1]) })
	}
	lanes.Wait()
	return first
}

// queues gives the tables whose rows are copied one after the other, and those that come after them, largest first. Whoever
// inserts into a sequence waits until nobody uses a table whose columns take their default from it.
func (all *catalog) queues() (queues [2]chan *table) {
	for i := range queues {
		queues[i] = make(chan *table, len(all.tables))
		defer close(queues[i])
	}
	for _, t := range slices.SortedStableFunc(slices.Values(all.tables), func(a, b *table) int { return cmp.Compare(b.size, a.size) }) {
		switch {
		case t.sequence:
			queues[0] <- t
		case !t.elsewhere():
			queues[1] <- t
		}
	}
	return queues
}

// lockName is of the lock that the session of the i-th lane holds on the target.
func lockName(i int) string {
	if i == 0 {
		return quote(marker)
	}
	return quote(marker + "-" + strconv.Itoa(i+1))
}

// takeOver makes this the only seed that fills the target: what is left of an earlier one is ended, its first session first,
// without which it opens no more.
func (c *copying) takeOver(ctx context.Context) error {
	for i := range maxLanes {
		if err := c.to.take(ctx, lockName(i)); err != nil {
			return err
		}
		if i > 0 {
			if err := c.to.exec(ctx, "DO RELEASE_LOCK("+lockName(i)+")"); err != nil {
				return err
			}
		}
	}
	c.writers = []*session{c.to}
	return nil
}

// take gets a lock, and ends whoever has it.
func (t *session) take(ctx context.Context, lock string) error {
	for {
		rows, err := t.rows(ctx, "SELECT GET_LOCK("+lock+", 0) AS got, IS_USED_LOCK("+lock+") AS other")
		if err != nil {
			return err
		}
		if rows[0]["got"] == "1" {
			return nil
		}
		if other := rows[0]["other"]; other != "" {
			if err := t.exec(ctx, "KILL CONNECTION "+other); err != nil && !isServer(err, errNoSuchThread) {
				return err
			}
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// writer opens the session of a further lane on the target. It must have its lock before it is known that no other seed has
// taken over: that one may have found the lock free.
func (c *copying) writer(ctx context.Context, i int) (*session, error) {
	t, err := c.writes.add(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := t.rows(ctx, "SELECT GET_LOCK("+lockName(i)+", 0) AS got")
	if err != nil {
		return nil, err
	}
	if rows[0]["got"] != "1" {
		return nil, errTakenOver
	}
	return t, c.mine(ctx)
}

// mine fails if another one has taken the target over.
func (c *copying) mine(ctx context.Context) error {
	rows, err := c.to.rows(ctx, "SELECT IS_USED_LOCK("+lockName(0)+") = CONNECTION_ID() AS mine")
	if err != nil {
		return err
	}
	if rows[0]["mine"] != "1" {
		return errTakenOver
	}
	return nil
}
