package replicationtest

import (
	"errors"

	"github.com/scalr-go/scalr/replication"
)

func record(h *harness) {
	recorder, ok := h.Engine.(replication.Recorder)
	if !ok {
		h.Skip("the engine is no Recorder")
	}
	keeps := func(s Server, want string) {
		h.Helper()
		text, err := recorder.Recorded(h.ctx, s.Member)
		h.ok(err, "Recorded")
		h.want(text == want, "%s keeps %q, want %q", s.ID, text, want)
	}
	a, b := h.pair()
	h.write(a, "x")
	h.gets(b, "x")
	if err := recorder.Record(h.ctx, b.Member, "first"); errors.Is(err, errors.ErrUnsupported) {
		h.Skip("the engine is no Recorder of this software")
	} else {
		h.ok(err, "Record on a replica")
	}
	const text = "it's \"this\", \\ and\n\u00e4\u4e2d\U0001f600; --"
	h.ok(recorder.Record(h.ctx, b.Member, text), "Record, the second time")
	keeps(b, text)
	keeps(a, "")
	h.ok(recorder.Record(h.ctx, a.Member, "the primary's"), "Record on the primary")
	h.write(a, "y")
	h.gets(b, "y")
	h.caughtUp(b, a)
	keeps(b, text)
	b.Kill()
	b.Restart()
	keeps(b, text)
	h.follow(b, a)
	h.ok(h.Engine.Fence(h.ctx, a.Member), "Fence")
	h.ok(recorder.Record(h.ctx, a.Member, "fenced"), "Record on a fenced server")
	_, err := h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain")
	h.promote(b, false)
	keeps(a, "fenced")
	keeps(b, text)
	had, has := h.observe(a).Received, h.observe(b).Received
	h.want(h.Engine.Compare(had, has) == replication.Equal, "%s has %s, and its successor %s: what is kept is a transaction", a.ID, had, has)

	guard, ok := h.Engine.(replication.Guard)
	if !ok {
		return
	}
	h.ok(guard.Claim(h.ctx, under(b, 5)), "Claim")
	err = recorder.Record(h.ctx, under(b, 4), "late")
	h.want(errors.Is(err, replication.ErrOvertaken), "Record with a lower token: %v", err)
	keeps(b, text)
	h.ok(recorder.Record(h.ctx, under(b, 5), ""), "Record of nothing")
	keeps(b, "")
}
