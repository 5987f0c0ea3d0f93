package replicationtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/replication"
)

var rules = []rule{
	{"Fresh", "a new server is empty, takes no writes and follows nobody, and each has an identity of its own", fresh},
	{"Refused", "a killed server is ErrRefused, which is ErrUnreachable", refusedRule},
	{"Hung", "a hung server is ErrHung when the context ends, and every method returns by then", hung},
	{"Cancelled", "no method works under a context that has ended", cancelled},
	{"Denied", "credentials that the server does not accept are ErrAccess, and change nothing", denied},
	{"Promote", "a promoted server takes writes and follows nobody, and promoting it again changes nothing", promote},
	{"Restart", "a server that starts again takes no writes, keeps its data, and says whom it followed", restart},
	{"Follow", "a replica gets what its primary has and what it will have, and takes no writes itself", follow},
	{"Silence", "a replica of a primary that hangs says before long that it receives nothing, and goes on when the primary does", silence},
	{"FollowFresh", "an empty server may be followed before it is promoted", followFresh},
	{"Refollow", "a replica that follows another primary keeps all it has and goes on", refollow},
	{"Chain", "a replica of a replica gets what the primary has, and goes on when that one is promoted", chain},
	{"Delay", "a replica that is to apply with a delay does so from then on, also after a drain or a seed, and keeps it where none is told", delay},
	{"Fence", "a fenced server takes no writes, and the sessions of applications are gone for good", fence},
	{"FenceWaiting", "fencing ends a write that waits for a replica, without acknowledging it", fenceWaiting},
	{"Drain", "a drained replica has applied all it had received, receives no more, and still says whom it followed", drain},
	{"DrainStopped", "draining drops nothing, whether or not the replica has been drained or restarted before", drainStopped},
	{"SemiSync", "under semi-sync a write is acknowledged only when a replica has it", semiSync},
	{"SemiSyncLoss", "under semi-sync what was acknowledged survives the primary, once the replica is drained and promoted", semiSyncLoss},
	{"Positions", "positions are ordered as the data is, and counted", positions},
	{"Diverged", "a server with data of its own is ErrDiverged, and is left as it was", diverged},
	{"OldPrimary", "a fenced primary that has nothing of its own follows its successor", oldPrimary},
	{"Surplus", "a killed primary with transactions of its own is ErrDiverged or loses just these, and a seed makes it equal", surplus},
	{"Seed", "a seed gives the source's data at the position it returns, and only reads the source", seed},
	{"SeedReplica", "a replica may be the source of a seed, and goes on as before", seedReplica},
	{"SeedOver", "a seed replaces what the server had", seedOver},
	{"SeedBroken", "a seed that breaks off leaves an empty server that can be seeded again", seedBroken},
	{"Import", "an import gives the data of a server in another set, scrubbed, with nothing else in common, and only reads the source", imports},
	{"ImportHidden", "until a copy is complete and scrubbed its server is empty, takes no writes and cannot be promoted", importHidden},
	{"ImportBroken", "an import that breaks off leaves an empty server, also when that starts again, and can be made again", importBroken},
	{"Adopt", "a copy of another set's disk, adopted, is the set's data, scrubbed, with nothing else in common", adopts},
	{"AdoptBroken", "until a copy of another set's disk is adopted its server is empty and foreign, also where that breaks off, and can be adopted again", adoptBroken},
	{"Backup", "a backup gives the data of a server to a new set, scrubbed, with nothing else in common, and the server goes on as before", backup},
	{"BackupConsistent", "a backup is of one moment, its position is of the same, and nobody is kept from writing", backupConsistent},
	{"BackupBroken", "a backup that breaks off says why and changes nothing", backupBroken},
	{"RestoreHidden", "until a backup is restored and scrubbed its server is empty, takes no writes and cannot be promoted", restoreHidden},
	{"RestoreBroken", "a restore that breaks off, or whose backup does, leaves an empty server, and can be made again", restoreBroken},
	{"Rewind", "what a server has and its primary lacks is saved whole, and a rewind takes just that back", rewind},
	{"RewindRefused", "nothing is saved or taken back while a server takes writes, and only what has been saved is taken back", rewindRefused},
	{"RewindBroken", "a rewind that breaks off leaves the server as it was, or empty, and it can be seeded", rewindBroken},
	{"Claim", "a server that is claimed with a token is changed with a lower one no more, also when it starts again, and takes it to nobody", claim},
	{"Record", "a server keeps the text that it was given last, also when it starts again or is promoted, as no transaction and for itself", record},
	{"Close", "after Close the engine connects anew", closes},
}

func fresh(h *harness) {
	a, b := h.Start(), h.Start()
	names := map[string]string{}
	for _, s := range []Server{a, b} {
		st := h.observe(s)
		h.want(st.Empty, "%s says it has data: %+v", s.ID, st)
		h.want(!st.Writable, "%s takes writes", s.ID)
		h.want(st.Source == "" && !st.Receives, "%s follows %q", s.ID, st.Source)
		h.want(st.Server != "", "%s has no identity", s.ID)
		h.want(names[st.Server] == "", "%s and %s are both %q", s.ID, names[st.Server], st.Server)
		names[st.Server] = s.ID
	}
}

func refusedRule(h *harness) {
	a := h.Start()
	h.observe(a)
	a.Kill()
	_, err := h.Engine.Observe(h.ctx, a.Member)
	h.want(errors.Is(err, replication.ErrRefused), "Observe of the killed server: %v", err)
	h.want(errors.Is(err, replication.ErrUnreachable), "%v is not ErrUnreachable", err)
	h.want(!errors.Is(err, replication.ErrHung), "%v is ErrHung too", err)
	a.Restart()
	h.observe(a)
}

// methods calls every method that can change a server.
func (h *harness) methods(ctx context.Context, e replication.Engine, m, other replication.Member) map[string]error {
	errs := map[string]error{
		"Fence":       e.Fence(ctx, m),
		"Promote":     e.Promote(ctx, m, false),
		"SetSemiSync": e.SetSemiSync(ctx, m, true),
		"Follow":      e.Follow(ctx, m, other),
	}
	_, errs["Drain"] = e.Drain(ctx, m)
	_, errs["Seed"] = e.Seed(ctx, m, other, nil)
	return errs
}

func hung(h *harness) {
	a, b := h.Start(), h.Start()
	h.observe(a)
	a.Hang()
	defer a.Resume()
	looks := func() {
		ctx, cancel := h.short()
		defer cancel()
		_, err := h.Engine.Observe(ctx, a.Member)
		h.want(errors.Is(err, replication.ErrHung), "Observe of the hung server: %v", err)
		h.want(!errors.Is(err, replication.ErrRefused), "%v is ErrRefused too", err)
	}
	looks()
	ctx, cancel := h.short()
	defer cancel()
	done := make(chan map[string]error, 1)
	go func() { done <- h.methods(ctx, h.Engine, a.Member, b.Member) }()
	select {
	case errs := <-done:
		for name, err := range errs {
			h.want(err != nil, "%s of the hung server returned nil", name)
		}
	case <-time.After(h.Within):
		h.broken("the methods have not returned long after the context's end")
	}
	looks()
	a.Resume()
	h.until("the server that was woken answers", func() (bool, string) {
		_, err := h.Engine.Observe(h.ctx, a.Member)
		return err == nil, fmt.Sprint(err)
	})
}

func cancelled(h *harness) {
	a, b := h.Start(), h.Start()
	before := h.observe(a)
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	_, err := h.Engine.Observe(ctx, a.Member)
	h.want(err != nil, "Observe returned nil")
	for name, err := range h.methods(ctx, h.Engine, a.Member, b.Member) {
		h.want(err != nil, "%s returned nil", name)
	}
	h.same(before, h.observe(a))
}

// same breaks the rule if what a server is has changed.
func (h *harness) same(before, after replication.Status) {
	h.Helper()
	h.want(before.Empty == after.Empty && before.Writable == after.Writable && before.Source == after.Source &&
		h.Engine.Compare(before.Received, after.Received) == replication.Equal, "it was %+v and is now %+v", before, after)
}

func denied(h *harness) {
	if h.Fixture.Denied == nil {
		h.Skip("the fixture has no engine with wrong credentials")
	}
	a, b := h.Start(), h.Start()
	before := h.observe(a)
	_, err := h.Fixture.Denied.Observe(h.ctx, a.Member)
	h.want(errors.Is(err, replication.ErrAccess), "Observe: %v", err)
	for name, err := range h.methods(h.ctx, h.Fixture.Denied, a.Member, b.Member) {
		h.want(errors.Is(err, replication.ErrAccess), "%s: %v", name, err)
	}
	h.same(before, h.observe(a))
}

func promote(h *harness) {
	a := h.Start()
	h.refuses(a, "early")
	h.promote(a, false)
	h.write(a, "x")
	st := h.observe(a)
	h.want(st.Writable && !st.Empty && st.Source == "", "it says %+v", st)
	h.promote(a, false)
	h.write(a, "y")
	h.has(a, "x", "y")
}

func restart(h *harness) {
	a, b := h.pair()
	h.write(a, "x")
	h.gets(b, "x")
	begin := time.Now()
	for _, s := range []Server{a, b} {
		s.Kill()
		s.Restart()
	}
	st := h.observe(a)
	h.want(!st.Writable && st.Source == "", "the primary that started again says %+v", st)
	h.refuses(a, "late")
	h.has(a, "x")
	h.has(b, "x")
	h.want(h.observe(b).Source == a.Addr, "the replica that started again says %+v", h.observe(b))
	up := h.observe(b).Uptime
	h.want(up <= time.Since(begin), "it says that it is up for %v, and it has been started since %v", up, time.Since(begin))
	h.promote(a, false)
	h.write(a, "y")
	h.follow(b, a) // it may have waited to be told
	h.gets(b, "y")
}

func follow(h *harness) {
	a, b := h.Start(), h.Start()
	h.promote(a, false)
	h.write(a, "before")
	h.follow(b, a)
	h.has(b, "before")
	h.write(a, "after")
	h.gets(b, "after")
	h.refuses(b, "wrong")
	h.follow(b, a) // again
	h.has(b, "before", "after")
	h.write(a, "last")
	h.gets(b, "last")
	st := h.observe(b)
	h.want(!st.Writable && !st.Empty, "the replica says %+v", st)
	a.Kill()
	h.until("the replica says that it receives nothing from a killed primary", func() (bool, string) {
		st := h.observe(b)
		return !st.Receives && st.Source == a.Addr, fmt.Sprintf("%+v", st)
	})
}

func silence(h *harness) {
	a, b := h.pair()
	a.Hang()
	defer a.Resume()
	h.until("the replica says that it receives nothing", func() (bool, string) {
		st := h.observe(b)
		return !st.Receives && st.Source == a.Addr, fmt.Sprintf("%+v", st)
	})
	a.Resume()
	h.write(a, "x")
	h.gets(b, "x")
}

func followFresh(h *harness) {
	a, b := h.Start(), h.Start()
	h.ok(h.Engine.Follow(h.ctx, b.Member, a.Member), "Follow")
	st := h.observe(a)
	h.want(!st.Writable && st.Source == "", "the one that is followed says %+v", st)
	h.promote(a, false)
	h.write(a, "x")
	h.gets(b, "x")
}

func refollow(h *harness) {
	a, b := h.pair()
	c := h.Start()
	h.follow(c, a)
	h.write(a, "x", "y")
	h.gets(b, "y")
	h.gets(c, "y")
	a.Kill()
	_, err := h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain")
	h.promote(b, false)
	h.follow(c, b)
	h.write(b, "z")
	h.gets(c, "z")
	h.has(c, "x", "y")
}

func chain(h *harness) {
	a, b := h.pair()
	c := h.Start()
	h.follow(c, a)
	h.write(a, "x")
	h.gets(b, "x")
	h.gets(c, "x")
	_, err := h.Engine.Drain(h.ctx, c.Member)
	h.ok(err, "Drain")
	h.follow(c, b)
	h.write(a, "y")
	h.gets(c, "y")
	h.want(h.Engine.Follow(h.ctx, b.Member, c.Member) != nil, "two servers may follow each other")
	h.has(b, "x", "y")
	h.write(a, "z")
	h.gets(c, "z")
	a.Kill()
	_, err = h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain")
	h.promote(b, true)
	h.write(b, "last") // acknowledged by the only replica
	h.gets(c, "last")
	h.has(c, "x", "y", "z")
}

func fence(h *harness) {
	a := h.Start()
	h.promote(a, false)
	session := h.open(a)
	h.ok(session.Write(h.ctx, "x", "1"), "a write before the fence")
	h.ok(h.Engine.Fence(h.ctx, a.Member), "Fence")
	h.want(!h.observe(a).Writable, "it says %+v", h.observe(a))
	h.want(session.Write(h.ctx, "y", "1") != nil, "a session from before the fence wrote")
	h.refuses(a, "z")
	h.ok(h.Engine.Fence(h.ctx, a.Member), "Fence, the second time")
	h.promote(a, false)
	h.want(session.Write(h.ctx, "y", "1") != nil, "a session from before the fence wrote when the server was promoted again")
	h.has(a, "x")
	h.lacks(a, "y", "z")
	h.write(a, "w")
}

func fenceWaiting(h *harness) {
	a := h.Start()
	h.promote(a, true)
	result := make(chan error, 1)
	go func() { result <- h.try(h.ctx, a, "x") }()
	ctx, cancel := h.short()
	defer cancel()
	select {
	case err := <-result:
		h.broken("the write returned before the fence: %v", err)
	case <-ctx.Done():
	}
	h.ok(h.Engine.Fence(h.ctx, a.Member), "Fence")
	select {
	case err := <-result:
		h.want(err != nil, "the write was acknowledged")
	case <-time.After(h.Within):
		h.broken("the write still waits")
	}
}

// rows writes n rows as fast as one session can.
func (h *harness) rows(s Server, prefix string, n int) (keys []string) {
	h.Helper()
	session := h.open(s)
	for i := range n {
		key := fmt.Sprintf("%s%03d", prefix, i)
		h.ok(session.Write(h.ctx, key, key), "writing to "+s.ID)
		keys = append(keys, key)
	}
	return keys
}

func drain(h *harness) {
	a, b := h.pair()
	h.rows(a, "r", 50)
	seen := h.observe(b)
	p, err := h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain")
	atLeast := func(p, q replication.Position, what string) {
		h.Helper()
		o := h.Engine.Compare(p, q)
		h.want(o == replication.Equal || o == replication.Ahead, "%s: %q lacks some of %q", what, p, q)
	}
	atLeast(p, seen.Received, "what it had received before the drain is missing")
	st := h.observe(b)
	h.want(!st.Receives && st.Source == a.Addr && !st.Writable, "it says %+v", st)
	h.want(h.Engine.Compare(st.Applied, p) == replication.Equal, "Drain returned %q and it has applied %q", p, st.Applied)
	h.want(h.Engine.Compare(st.Received, p) == replication.Equal, "Drain returned %q and it has received %q", p, st.Received)
	h.write(a, "late")
	again, err := h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain, the second time")
	h.want(h.Engine.Compare(p, again) == replication.Equal, "Drain returned %q, then %q", p, again)
	h.lacks(b, "late")
	h.follow(b, a)
	h.has(b, "late", "r049")
}

func drainStopped(h *harness) {
	a, b := h.pair()
	h.promote(a, true)
	keys := h.rows(a, "r", 50)
	a.Kill()
	for range 2 {
		_, err := h.Engine.Drain(h.ctx, b.Member)
		h.ok(err, "Drain")
		h.has(b, keys...)
	}
	b.Kill()
	b.Restart()
	_, err := h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain after a restart")
	h.promote(b, false)
	h.has(b, keys...)
}

func semiSync(h *harness) {
	a, b := h.Start(), h.Start()
	h.promote(a, true)
	waits := func(key string) {
		h.Helper()
		ctx, cancel := h.short()
		defer cancel()
		h.want(h.try(ctx, a, key) != nil, "the write of %s was acknowledged and no replica follows", key)
	}
	waits("alone")
	h.ok(h.Engine.Follow(h.ctx, b.Member, a.Member), "Follow")
	h.write(a, "x")
	h.until("the primary knows of its replica", func() (bool, string) {
		st := h.observe(a)
		return st.SemiSync && st.Waiters == 1, fmt.Sprintf("%+v", st)
	})
	h.want(h.observe(b).Acked != h.AckedUnknown, "the replica has acknowledged and does not say so: %+v", h.observe(b))
	b.Kill()
	h.until("a write waits when the replica is dead", func() (bool, string) {
		ctx, cancel := h.short()
		defer cancel()
		err := h.try(ctx, a, "y")
		return err != nil, fmt.Sprint(err)
	})
	h.ok(h.Engine.SetSemiSync(h.ctx, a.Member, false), "SetSemiSync")
	h.write(a, "z")
	h.want(!h.observe(a).SemiSync, "it says %+v", h.observe(a))
	h.ok(h.Engine.SetSemiSync(h.ctx, a.Member, true), "SetSemiSync")
	waits("again")
	h.promote(a, false) // again, without
	h.write(a, "w")
}

func semiSyncLoss(h *harness) {
	a, b := h.pair()
	h.ok(h.Engine.SetSemiSync(h.ctx, a.Member, true), "SetSemiSync")
	keys := h.rows(a, "r", 100)
	a.Kill()
	_, err := h.Engine.Drain(h.ctx, b.Member)
	h.ok(err, "Drain")
	h.promote(b, false)
	h.has(b, keys...)
	h.write(b, "x")
}

func positions(h *harness) {
	a, b := h.pair()
	c := h.Start()
	e := h.Engine
	var p []replication.Position
	const each = 3
	for i := range 4 {
		h.rows(a, fmt.Sprintf("p%d-", i), each)
		p = append(p, h.observe(a).Applied)
	}
	for i := range p {
		for j := range p {
			want, more := replication.Equal, 0
			switch {
			case i < j:
				want = replication.Behind
			case i > j:
				want, more = replication.Ahead, (i-j)*each
			}
			h.want(e.Compare(p[i], p[j]) == want, "Compare(%q, %q) is %d, want %d", p[i], p[j], e.Compare(p[i], p[j]), want)
			n, exact := e.Count(p[i], p[j])
			h.want(n <= uint64(more) && (n > 0) == (more > 0) && (!exact || n == uint64(more)),
				"Count(%q, %q) is %d, exact: %t; want %d", p[i], p[j], n, exact, more)
		}
		h.want(e.Compare(p[i], "") == replication.Ahead && e.Compare("", p[i]) == replication.Behind,
			"%q is not ahead of a server without data", p[i])
	}
	h.caughtUp(b, a)
	h.promote(c, false)
	h.rows(c, "c", 2)
	x, y := h.observe(a).Applied, h.observe(c).Applied
	h.want(e.Compare(x, y) == replication.Diverged && e.Compare(y, x) == replication.Diverged,
		"%q and %q have nothing in common and are not Diverged", x, y)
	n, _ := e.Count(y, x)
	h.want(n > 0, "Count(%q, %q) is 0", y, x)
}
