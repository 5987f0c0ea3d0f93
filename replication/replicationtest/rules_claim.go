package replicationtest

import (
	"errors"

	"github.com/scalr-go/scalr/replication"
)

func claim(h *harness) {
	guard, ok := h.Engine.(replication.Guard)
	if !ok {
		h.Skip("the engine is no Guard")
	}
	a, b := h.pair()
	if err := guard.Claim(h.ctx, under(b, 5)); errors.Is(err, errors.ErrUnsupported) {
		h.Skip("the engine is no Guard of this software")
	} else {
		h.ok(err, "Claim")
	}
	h.ok(guard.Claim(h.ctx, under(b, 5)), "Claim, the second time")
	h.ok(guard.Claim(h.ctx, under(b, 7)), "Claim with a higher token")
	h.write(a, "x")
	h.gets(b, "x")
	late := func() {
		h.want(errors.Is(guard.Claim(h.ctx, under(b, 6)), replication.ErrOvertaken), "Claim with a lower token: %v", guard.Claim(h.ctx, under(b, 6)))
		before := h.observe(b)
		for name, err := range h.methods(h.ctx, h.Engine, under(b, 6), a.Member) {
			h.want(errors.Is(err, replication.ErrOvertaken), "%s with a lower token: %v", name, err)
		}
		h.same(before, h.observe(b))
	}
	late()
	b.Kill()
	b.Restart()
	h.follow(b, a) // without a token nobody is asked
	late()
	c := h.Start()
	_, err := h.Engine.Seed(h.ctx, under(c, 1), b.Member, nil)
	h.ok(err, "Seed from a server that is claimed")
	h.ok(h.Engine.Follow(h.ctx, under(c, 1), a.Member), "Follow of its copy")
	_, err = h.Engine.Drain(h.ctx, under(b, 7))
	h.ok(err, "Drain with the same token")
	h.ok(h.Engine.Promote(h.ctx, under(b, 8), false), "Promote with a higher token")
	h.write(b, "y")
	err = h.Engine.Fence(h.ctx, under(b, 7))
	h.want(errors.Is(err, replication.ErrOvertaken), "Fence with a lower token than the promotion's: %v", err)
	h.write(b, "z")
}

// under is the server as one asks for it who holds a lease with the token.
func under(s Server, token uint64) replication.Member {
	m := s.Member
	m.Token = token
	return m
}
