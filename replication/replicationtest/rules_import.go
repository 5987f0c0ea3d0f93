package replicationtest

import (
	"context"
	"errors"

	"github.com/scalr-go/scalr/replication"
)

// importer is the engine if it can import, and the means to try it are there.
func (h *harness) importer() replication.Importer {
	h.Helper()
	i, ok := h.Engine.(replication.Importer)
	if !ok {
		h.Skip("the engine is no Importer")
	}
	if h.Scrub == nil {
		h.Fatal("the engine is an Importer, and the fixture has no Scrub to try that with")
	}
	return i
}

// value reads a row that must be there.
func (h *harness) value(s Server, key string) string {
	h.Helper()
	session := h.open(s)
	value, found, err := session.Read(h.ctx, key)
	h.ok(err, "reading from "+s.ID)
	h.want(found, "%s lacks the row %s", s.ID, key)
	return value
}

func imports(h *harness) {
	importer := h.importer()
	a, b := h.pair()
	c, d := h.Start(), h.Start()
	keys := h.rows(a, "r", 50)
	h.write(a, "secret")
	h.caughtUp(b, a)
	at := h.observe(a).Applied
	p, err := importer.Import(h.ctx, c.Member, h.Engine, b.Member, h.Scrub, nil)
	h.ok(err, "Import")
	h.want(h.Engine.Compare(p, at) == replication.Equal, "Import returned %q and the source had %q", p, at)
	st := h.observe(c)
	h.want(st.Imported && !st.Empty && !st.Writable && st.Source == "", "the server says %+v", st)
	h.has(c, keys...)
	h.want(h.value(c, "secret") == "scrubbed", "the copy was not scrubbed: %q", h.value(c, "secret"))
	h.want(h.value(a, "secret") == "secret" && h.value(b, "secret") == "secret", "the source was scrubbed")
	h.refuses(c, "early")
	h.apart(c, a)

	h.promote(c, false)
	h.write(c, "twin")
	h.want(h.observe(c).Imported, "as a primary it says %+v", h.observe(c))
	_, err = h.Engine.Seed(h.ctx, d.Member, c.Member, nil)
	h.ok(err, "Seed of a replica of the copy")
	h.want(!h.observe(d).Imported, "the replica of the copy says %+v", h.observe(d))
	h.follow(d, c)
	h.has(d, append(keys, "twin")...)
	h.write(a, "parent")
	h.caughtUp(b, a)
	h.lacks(a, "twin")
	h.lacks(d, "parent")
	h.apart(d, b)

	h.ok(h.Engine.Fence(h.ctx, c.Member), "Fence")
	_, err = h.Engine.Drain(h.ctx, d.Member)
	h.ok(err, "Drain")
	h.promote(d, false)
	h.write(d, "later")
	h.follow(c, d)
	h.has(c, "later")
	h.want(!h.observe(c).Imported, "as a replica it says %+v", h.observe(c))
}

// apart breaks the rule if a transaction of one server is one of the other's.
func (h *harness) apart(s, t Server) {
	h.Helper()
	p, q := h.observe(s).Applied, h.observe(t).Applied
	h.want(h.Engine.Compare(p, q) == replication.Diverged, "%s has %q and %s has %q: not Diverged", s.ID, p, t.ID, q)
	all, _ := h.Engine.Count(p, "")
	own, _ := h.Engine.Count(p, q)
	h.want(all == own, "%s has %q and %s has %q: %d of %d transactions are the same", s.ID, p, t.ID, q, all-own, all)
}

// hidden breaks the rule if the server shows what it holds of a copy.
func (h *harness) hidden(s Server, when string) {
	h.Helper()
	st := h.observe(s)
	h.want(st.Empty && !st.Imported && !st.Writable && st.Source == "", "%s it says %+v", when, st)
	h.want(h.Engine.Promote(h.ctx, s.Member, false) != nil, "%s it was promoted", when)
	h.want(!h.observe(s).Writable, "%s a promotion that failed made it take writes", when)
	h.want(h.try(h.ctx, s, "early") != nil, "%s it took a write", when)
}

func importHidden(h *harness) {
	importer := h.importer()
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	h.rows(a, "r", 50)
	h.write(a, "secret")
	looked, scrubbed := 0, 0
	_, err := importer.Import(h.ctx, c.Member, h.Engine, a.Member, func(ctx context.Context, m replication.Member) error {
		h.want(m.Addr == c.Addr, "the scrub hook was given %+v", m)
		h.hidden(c, "when it is about to be scrubbed")
		err := h.Scrub(ctx, m)
		h.hidden(c, "when it has just been scrubbed")
		scrubbed++
		return err
	}, func(p replication.Progress) {
		if p.Done > 0 && looked == 0 {
			looked++
			h.hidden(c, "in the middle of the copy")
		}
	})
	h.ok(err, "Import")
	h.want(looked > 0, "no progress was reported")
	h.want(scrubbed == 1, "the copy was scrubbed %d times", scrubbed)
	h.lacks(c, "early")
	h.want(h.value(c, "secret") == "scrubbed", "the copy was not scrubbed")
}

func importBroken(h *harness) {
	importer := h.importer()
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	h.rows(a, "r", 50)
	h.write(a, "secret")

	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	_, err := importer.Import(ctx, c.Member, h.Engine, a.Member, h.Scrub, func(p replication.Progress) {
		if p.Done > 0 {
			cancel()
		}
	})
	h.want(err != nil, "Import under a context that ended meanwhile returned nil")
	h.hidden(c, "after the copy broke off")

	refused := errors.New("not fit to be seen")
	_, err = importer.Import(h.ctx, c.Member, h.Engine, a.Member, func(context.Context, replication.Member) error { return refused }, nil)
	h.want(errors.Is(err, refused), "Import whose scrub hook failed returned %v", err)
	h.hidden(c, "after the scrub hook failed")
	c.Kill()
	c.Restart()
	h.hidden(c, "after that and a restart")

	_, err = importer.Import(h.ctx, c.Member, h.Engine, a.Member, h.Scrub, nil)
	h.ok(err, "Import, the third time")
	h.promote(c, false)
	h.has(c, "r000", "r049")
	h.lacks(c, "early")
	h.want(h.value(c, "secret") == "scrubbed", "the copy was not scrubbed")
}
