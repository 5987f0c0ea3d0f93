package replicationtest

import (
	"context"
	"errors"

	"github.com/scalr-go/scalr/replication"
)

// adopter is the engine if it can adopt, and the means to try it are there.
func (h *harness) adopter() replication.Adopter {
	h.Helper()
	a, ok := h.Engine.(replication.Adopter)
	if !ok {
		h.Skip("the engine is no Adopter")
	}
	if err := a.Adopts(); err != nil {
		h.Skip("the engine does not adopt: ", err)
	}
	if h.Copy == nil || h.Scrub == nil {
		h.Fatal("the engine is an Adopter, and the fixture has no Copy or no Scrub to try that with")
	}
	return a
}

func adopts(h *harness) {
	adopter := h.adopter()
	keys := []string{"r1", "r2", "r3"}
	c, at := h.Copy(append(keys, "secret")...)
	d, _ := h.Copy("other")
	p, err := adopter.Adopt(h.ctx, c.Member, h.Scrub, nil)
	h.ok(err, "Adopt")
	h.want(h.Engine.Compare(p, at) == replication.Equal, "Adopt returned %q and the copy is of %q", p, at)
	st := h.observe(c)
	h.want(st.Imported && !st.Empty && !st.Foreign && !st.Writable && st.Source == "", "the server says %+v", st)
	h.has(c, keys...)
	h.want(h.value(c, "secret") == "scrubbed", "the copy was not scrubbed: %q", h.value(c, "secret"))
	h.refuses(c, "early")
	all, _ := h.Engine.Count(st.Applied, "")
	own, _ := h.Engine.Count(st.Applied, at)
	h.want(h.Engine.Compare(st.Applied, at) == replication.Diverged && all == own, "it has %q and its data came from %q: not Diverged in all", st.Applied, at)

	h.promote(c, false)
	h.write(c, "twin")
	_, err = h.Engine.Seed(h.ctx, d.Member, c.Member, nil)
	h.ok(err, "Seed of a server that is foreign itself")
	h.want(!h.observe(d).Foreign, "the replica says %+v", h.observe(d))
	h.follow(d, c)
	h.has(d, append(keys, "twin")...)
	h.lacks(d, "other")

	for _, s := range []Server{c, d} {
		_, err = adopter.Adopt(h.ctx, s.Member, h.Scrub, nil)
		h.want(err != nil, "%s was adopted, and is not foreign", s.ID)
	}
	h.write(c, "later")
	h.gets(d, "later")
}

// foreign breaks the rule if the server shows what it holds, or does not say that it is another set's.
func (h *harness) foreign(s Server, when string) {
	h.Helper()
	h.want(h.observe(s).Foreign, "%s it says %+v", when, h.observe(s))
	h.hidden(s, when)
}

func adoptBroken(h *harness) {
	adopter := h.adopter()
	c, at := h.Copy("r1", "secret")
	h.foreign(c, "when it has started")
	refused := errors.New("not fit to be seen")
	_, err := adopter.Adopt(h.ctx, c.Member, func(context.Context, replication.Member) error { return refused }, nil)
	h.want(errors.Is(err, refused), "Adopt whose scrub hook failed returned %v", err)
	h.foreign(c, "after the scrub hook failed")
	c.Kill()
	c.Restart()
	h.foreign(c, "after that and a restart")

	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	_, err = adopter.Adopt(ctx, c.Member, func(context.Context, replication.Member) error { cancel(); return nil }, nil)
	h.want(err != nil, "Adopt under a context that ended meanwhile returned nil")
	h.foreign(c, "after it broke off")

	scrubbed := 0
	p, err := adopter.Adopt(h.ctx, c.Member, func(ctx context.Context, m replication.Member) error {
		h.want(m.Addr == c.Addr, "the scrub hook was given %+v", m)
		h.foreign(c, "when it is about to be scrubbed")
		err := h.Scrub(ctx, m)
		h.foreign(c, "when it has just been scrubbed")
		scrubbed++
		return err
	}, nil)
	h.ok(err, "Adopt, the third time")
	h.want(scrubbed == 1, "the copy was scrubbed %d times", scrubbed)
	h.want(h.Engine.Compare(p, at) == replication.Equal, "Adopt returned %q and the copy is of %q", p, at)
	c.Kill()
	c.Restart()
	st := h.observe(c)
	h.want(st.Imported && !st.Empty && !st.Foreign && !st.Writable, "after a restart it says %+v", st)
	h.promote(c, false)
	h.has(c, "r1")
	h.lacks(c, "early")
	h.want(h.value(c, "secret") == "scrubbed", "the copy was not scrubbed")
}
