package replicationtest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/scalr-go/scalr/replication"
)

func diverged(h *harness) {
	a, b := h.pair()
	h.write(a, "x")
	h.gets(b, "x")
	c := h.Start()
	h.promote(c, false)
	h.write(c, "own")
	h.ok(h.Engine.Fence(h.ctx, c.Member), "Fence")
	before := h.observe(c)
	err := h.Engine.Follow(h.ctx, c.Member, a.Member)
	h.want(errors.Is(err, replication.ErrDiverged), "Follow: %v", err)
	h.same(before, h.observe(c))
	h.has(c, "own")
	h.lacks(c, "x")
}

func oldPrimary(h *harness) {
	a, b := h.pair()
	h.write(a, "x")
	h.ok(h.Engine.Fence(h.ctx, a.Member), "Fence")
	h.caughtUp(b, a)
	_, err := h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain")
	h.promote(b, false)
	h.write(b, "y")
	h.follow(a, b)
	h.has(a, "x", "y")
	h.refuses(a, "z")
}

func surplus(h *harness) {
	a, b := h.pair()
	h.write(a, "x")
	h.gets(b, "x")
	b.Kill()
	h.write(a, "surplus")
	a.Kill()
	b.Restart()
	_, err := h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain")
	h.promote(b, false)
	h.write(b, "y")
	a.Restart()
	p, q := h.observe(a).Received, h.observe(b).Received
	h.want(h.Engine.Compare(p, q) == replication.Diverged, "the old primary has %q, the new one %q: not Diverged", p, q)
	n, exact := h.Engine.Count(p, q)
	h.want(n > 0 && (!exact || n == 1), "Count says that the old primary has %d transactions too many, exact: %t; want 1", n, exact)
	all, _ := h.Engine.Count(p, "")
	h.want(all > n, "Count says that %d of %d transactions of the old primary are its own, and some are not", n, all)
	err = h.Engine.Follow(h.ctx, a.Member, b.Member)
	if errors.Is(err, replication.ErrDiverged) {
		h.has(a, "surplus")
		_, err = h.Engine.Seed(h.ctx, a.Member, b.Member, nil)
		h.ok(err, "Seed")
		err = h.Engine.Follow(h.ctx, a.Member, b.Member)
	}
	h.ok(err, "Follow")
	h.caughtUp(a, b)
	h.has(a, "x", "y")
	h.lacks(a, "surplus")
}

// application writes rows to the server, one after the other, until the function is called. That gives the keys that were
// acknowledged, and why it ended before, if it did.
func (h *harness) application(s Server) (stop func() (keys []string, err error)) {
	session := h.open(s)
	var wg sync.WaitGroup
	ended := make(chan struct{})
	var keys []string
	var failed error
	wg.Go(func() {
		for i := 0; failed == nil; i++ {
			key := fmt.Sprintf("d%04d", i)
			if failed = session.Write(h.ctx, key, key); failed == nil {
				keys = append(keys, key)
			}
			select {
			case <-ended:
				return
			default:
			}
		}
	})
	return func() ([]string, error) {
		close(ended)
		wg.Wait()
		return keys, failed
	}
}

func seed(h *harness) {
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	keys := h.rows(a, "r", 50)
	stop := h.application(a)
	start := h.observe(a).Applied
	p, err := h.Engine.Seed(h.ctx, c.Member, a.Member, nil)
	end := h.observe(a)
	during, failed := stop()
	h.ok(err, "Seed")
	h.ok(failed, "a write to the source during the seed")
	h.want(end.Writable && end.Source == "", "the source says %+v", end)
	for _, q := range []struct {
		order replication.Order
		what  string
		bound replication.Position
	}{{replication.Ahead, "when it began", start}, {replication.Behind, "when it had ended", end.Applied}} {
		o := h.Engine.Compare(p, q.bound)
		h.want(o == q.order || o == replication.Equal, "the seed's position is %q and the source's %s %q", p, q.what, q.bound)
	}
	st := h.observe(c)
	h.want(h.Engine.Compare(st.Applied, p) == replication.Equal, "Seed returned %q and the server says %+v", p, st)
	h.want(!st.Empty && !st.Writable && st.Source == "", "the seeded server says %+v", st)
	h.has(c, keys...)
	h.follow(c, a)
	h.has(c, during...)
	h.write(a, "x")
	h.gets(c, "x")
	h.has(a, keys...)
}

func seedReplica(h *harness) {
	a, b := h.pair()
	c := h.Start()
	keys := h.rows(a, "r", 20)
	h.caughtUp(b, a)
	_, err := h.Engine.Seed(h.ctx, c.Member, b.Member, nil)
	h.ok(err, "Seed")
	h.has(c, keys...)
	h.want(h.observe(c).Server != h.observe(b).Server, "the copy says that it is the server that it was copied from")
	h.write(a, "x")
	h.gets(b, "x")
	h.follow(c, a)
	h.has(c, "x")
	h.caughtUp(b, a)
}

func seedOver(h *harness) {
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	h.write(a, "x")
	h.promote(c, false)
	h.write(c, "own")
	h.ok(h.Engine.Fence(h.ctx, c.Member), "Fence")
	_, err := h.Engine.Seed(h.ctx, c.Member, a.Member, nil)
	h.ok(err, "Seed")
	h.follow(c, a)
	h.has(c, "x")
	h.lacks(c, "own")
	n, _ := h.Engine.Count(h.observe(c).Applied, h.observe(a).Applied)
	h.want(n == 0, "the copy's position names %d transactions that the source lacks", n)
}

func seedBroken(h *harness) {
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	h.rows(a, "r", 50)
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	_, err := h.Engine.Seed(ctx, c.Member, a.Member, func(replication.Progress) { cancel() })
	if err != nil {
		st := h.observe(c)
		h.want(st.Empty && !st.Writable && st.Source == "", "after the seed broke off (%v) it says %+v", err, st)
	}
	_, err = h.Engine.Seed(h.ctx, c.Member, a.Member, nil)
	h.ok(err, "Seed, the second time")
	h.follow(c, a)
	h.has(c, "r000", "r049")
}

func closes(h *harness) {
	a := h.Start()
	h.promote(a, false)
	h.ok(h.Engine.Close(a.Member), "Close")
	h.ok(h.Engine.Close(a.Member), "Close, the second time")
	h.want(h.observe(a).Writable, "Close has changed the server")
	h.write(a, "x")
}
