package replicationtest

import (
	"fmt"
	"time"

	"github.com/scalr-go/scalr/replication"
)

func delay(h *harness) {
	a, b := h.pair()
	c := h.Start()
	h.follow(c, a)
	follow := func(d time.Duration, source Server) {
		h.Helper()
		m := b.Member
		m.Delay = d
		h.ok(h.Engine.Follow(h.ctx, m, source.Member), "Follow with a delay")
	}
	// receives waits until b has received what the source has, and breaks the rule if it has applied it.
	receives := func(source Server, key string) {
		h.Helper()
		h.until(b.ID+" has received what "+source.ID+" has", func() (bool, string) {
			st, has := h.observe(b), h.observe(source).Applied
			return st.Source == source.Addr && h.Engine.Compare(st.Received, has) == replication.Equal, fmt.Sprintf("it says %+v, its source has %s", st, has)
		})
		st := h.observe(b)
		h.want(st.Delay == time.Hour, "its Delay is %v, want 1h", st.Delay)
		h.lacks(b, key)
	}
	before := h.observe(b)
	m := b.Member
	m.Delay = -time.Second
	h.want(h.Engine.Follow(h.ctx, m, a.Member) != nil, "Follow with a Delay of -1s works")
	h.same(before, h.observe(b))

	h.write(a, "first")
	follow(time.Hour, a) // it follows without one
	h.write(a, "x")
	receives(a, "x")
	follow(time.Hour, a)
	receives(a, "x")

	h.gets(c, "x")
	h.ok(h.Engine.Fence(h.ctx, a.Member), "Fence")
	_, err := h.Engine.Drain(h.ctx, c.Member)
	h.ok(err, "Drain")
	h.promote(c, false)
	h.write(c, "y")
	follow(0, c) // which keeps it
	receives(c, "y")
	h.lacks(b, "x")

	_, err = h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain of a replica with a delay")
	h.has(b, "x")
	follow(time.Hour, c)
	h.write(c, "z")
	receives(c, "z")

	_, err = h.Engine.Seed(h.ctx, b.Member, c.Member, nil)
	h.ok(err, "Seed")
	follow(time.Hour, c)
	h.has(b, "z")
	h.write(c, "after the seed")
	receives(c, "after the seed")
}
