package replicationtest

import (
	"bytes"
	"context"
	"io"
	"strings"

	"github.com/scalr-go/scalr/replication"
)

func (h *harness) rewinder() replication.Rewinder {
	h.Helper()
	r, ok := h.Engine.(replication.Rewinder)
	if !ok {
		h.Skip("the engine is no Rewinder")
	}
	return r
}

// fork is an old primary with two rows, own1 and own2, that its successor lacks.
func (h *harness) fork() (old, primary Server) {
	h.Helper()
	old, primary = h.pair()
	h.write(old, "common")
	h.caughtUp(primary, old)
	_, err := h.Engine.Drain(h.ctx, primary.Member)
	h.ok(err, "Drain")
	h.write(old, "own1", "own2")
	h.ok(h.Engine.Fence(h.ctx, old.Member), "Fence")
	h.promote(primary, false)
	h.write(primary, "new")
	return old, primary
}

func rewind(h *harness) {
	rewinder := h.rewinder()
	old, primary := h.fork()
	had, theirs := h.observe(old).Applied, h.observe(primary).Applied
	var w bytes.Buffer
	at, err := rewinder.Save(h.ctx, old.Member, primary.Member, &w)
	h.ok(err, "Save")
	for key, want := range map[string]bool{"own1": true, "own2": true, "new": false, "common": false} {
		h.want(strings.Contains(w.String(), key) == want, "of the row %s, which should be saved: %t, this is: %q", key, want, w.String())
	}
	h.want(at == had && h.observe(old).Applied == had, "Save returned %q, and the server was at %q and is at %q", at, had, h.observe(old).Applied)
	h.has(old, "own1", "own2")

	h.ok(rewinder.Rewind(h.ctx, old.Member, primary.Member, at, nil), "Rewind")
	st := h.observe(old)
	h.want(!st.Empty && !st.Writable && st.Source == "", "it says %+v", st)
	order := h.Engine.Compare(st.Applied, theirs)
	h.want(order == replication.Equal || order == replication.Behind, "it is at %q, its primary at %q", st.Applied, theirs)
	h.has(old, "common")
	h.lacks(old, "own1", "own2")
	h.refuses(old, "early")
	h.want(h.observe(primary).Applied == theirs && h.observe(primary).Writable, "the source is changed: %+v", h.observe(primary))
	h.follow(old, primary)
	h.write(primary, "later")
	h.gets(old, "new", "later")
}

func rewindRefused(h *harness) {
	rewinder := h.rewinder()
	old, primary := h.fork()
	at := h.observe(old).Applied
	h.want(rewinder.Rewind(h.ctx, old.Member, primary.Member, h.observe(primary).Applied, nil) != nil,
		"it was rewound, though its transactions have not been saved")
	h.want(h.observe(old).Applied == at && !h.observe(old).Empty, "it says %+v", h.observe(old))
	h.has(old, "own1", "own2")

	_, err := rewinder.Save(h.ctx, primary.Member, old.Member, io.Discard)
	h.want(err != nil, "what a writable server has was saved")
	h.want(rewinder.Rewind(h.ctx, primary.Member, old.Member, h.observe(primary).Applied, nil) != nil, "a writable server was rewound")
	h.write(primary, "goes on")
	h.has(primary, "new")
}

func rewindBroken(h *harness) {
	rewinder := h.rewinder()
	old, primary := h.fork()
	at := h.observe(old).Applied
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	err := rewinder.Rewind(ctx, old.Member, primary.Member, at, func(replication.Progress) { cancel() })
	h.want(err != nil, "Rewind under a context that ended meanwhile returned nil")
	st := h.observe(old)
	h.want(!st.Writable && st.Source == "" && (st.Empty || st.Applied == at), "it says %+v, and was at %q", st, at)
	_, err = h.Engine.Seed(h.ctx, old.Member, primary.Member, nil)
	h.ok(err, "Seed")
	h.follow(old, primary)
	h.has(old, "common", "new")
	h.lacks(old, "own1", "own2")
}
