package replicationtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/scalr-go/scalr/replication"
)

func (h *harness) backuper() replication.Backuper {
	h.Helper()
	b, ok := h.Engine.(replication.Backuper)
	if !ok {
		h.Skip("the engine is no Backuper")
	}
	if h.Scrub == nil {
		h.Fatal("the engine is a Backuper, and the fixture has no Scrub to try that with")
	}
	return b
}

// backedUp gives a backup of a server with rows.
func (h *harness) backedUp(b replication.Backuper, s Server) (data []byte, at replication.Position) {
	h.Helper()
	var w bytes.Buffer
	at, err := b.Backup(h.ctx, s.Member, &w, nil)
	h.ok(err, "Backup")
	return w.Bytes(), at
}

func backup(h *harness) {
	backuper := h.backuper()
	a, b := h.pair()
	c, d := h.Start(), h.Start()
	keys := h.rows(a, "r", 50)
	h.write(a, "secret")
	h.caughtUp(b, a)
	session := h.open(a)
	was := h.observe(b)
	data, at := h.backedUp(backuper, b)
	st := h.observe(b)
	h.want(at == was.Applied && st.Applied == at && st.Source == a.Addr, "Backup returned %q, and the server said %+v before and says %+v", at, was, st)
	h.ok(session.Write(h.ctx, "after", "1"), "writing over a session that was open before the backup")
	h.gets(b, "after")

	p, err := backuper.Restore(h.ctx, c.Member, bytes.NewReader(data), h.Scrub, nil)
	h.ok(err, "Restore")
	h.want(p == at, "Restore returned %q and Backup %q", p, at)
	st = h.observe(c)
	h.want(st.Imported && !st.Empty && !st.Writable && st.Source == "", "the server says %+v", st)
	h.has(c, keys...)
	h.lacks(c, "after")
	h.want(h.value(c, "secret") == "scrubbed", "the copy was not scrubbed: %q", h.value(c, "secret"))
	h.want(h.value(a, "secret") == "secret" && h.value(b, "secret") == "secret", "the source was scrubbed")
	h.refuses(c, "early")
	h.apart(c, a)

	h.promote(c, false)
	h.write(c, "new")
	_, err = h.Engine.Seed(h.ctx, d.Member, c.Member, nil)
	h.ok(err, "Seed of a replica of the copy")
	h.follow(d, c)
	h.has(d, append(keys, "new")...)
	h.lacks(a, "new")
	h.apart(d, b)

	h.want(func() bool {
		_, err := backuper.Restore(h.ctx, c.Member, bytes.NewReader(data), h.Scrub, nil)
		return err != nil
	}(),
		"a server was filled that takes writes")
	h.has(c, "new")
}

func backupConsistent(h *harness) {
	backuper := h.backuper()
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	h.rows(a, "r", 50)
	stop := h.application(a)
	start := h.observe(a).Applied
	data, at := h.backedUp(backuper, a)
	end := h.observe(a)
	during, failed := stop()
	h.ok(failed, "a write to the server during the backup")
	h.want(end.Writable && end.Source == "", "the server says %+v", end)
	early, late := h.Engine.Compare(at, start), h.Engine.Compare(at, end.Applied)
	h.want((early == replication.Ahead || early == replication.Equal) && (late == replication.Behind || late == replication.Equal),
		"the backup's position is %q, the server's %q when it began and %q when it had ended", at, start, end.Applied)
	_, err := backuper.Restore(h.ctx, c.Member, bytes.NewReader(data), h.Scrub, nil)
	h.ok(err, "Restore")
	h.has(c, "r000", "r049")
	var last string
	gap := ""
	reader := h.open(c)
	for _, key := range during {
		_, found, err := reader.Read(h.ctx, key)
		h.ok(err, "reading from "+c.ID)
		switch {
		case found && gap != "":
			h.broken("the copy has the row %s and lacks %s, which was written before", key, gap)
		case !found && gap == "":
			gap = key
		case found:
			last = key
		}
	}
	n, exact := h.Engine.Count(at, start)
	var had uint64
	for i, key := range during {
		if key == last {
			had = uint64(i + 1)
		}
	}
	h.want(!exact || n <= had+1, "the backup's position has %d transactions more than there were when it began, and the copy has %d rows of them", n, had)
}

func backupBroken(h *harness) {
	backuper := h.backuper()
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	h.rows(a, "r", 50)
	h.write(a, "secret")
	full := errors.New("no space left")
	data, at := h.backedUp(backuper, a)
	again, _ := h.backedUp(backuper, a)
	last := len(data) - 1
	if len(again) != len(data) { // of files, which may be a little shorter the next time
		last = len(data) * 99 / 100
	}
	for _, room := range []int{0, 1, len(data) / 2, last} {
		_, err := backuper.Backup(h.ctx, a.Member, &limited{room, full}, nil)
		h.want(errors.Is(err, full), "Backup to a writer that took %d of %d bytes: %v", room, len(data), err)
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	_, err := backuper.Backup(ctx, a.Member, io.Discard, func(replication.Progress) { cancel() })
	h.want(err != nil, "Backup under a context that ended meanwhile returned nil")
	st := h.observe(a)
	h.want(st.Writable && !st.Empty && st.Applied == at, "the server says %+v", st)
	c.Kill()
	_, err = backuper.Backup(h.ctx, c.Member, io.Discard, nil)
	h.want(errors.Is(err, replication.ErrUnreachable), "Backup of a server that does not run: %v", err)
}

// limited takes so many bytes.
type limited struct {
	room int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.room)
	l.room -= n
	if n < len(p) {
		return n, l.err
	}
	return n, nil
}

func restoreHidden(h *harness) {
	backuper := h.backuper()
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	h.rows(a, "r", 50)
	h.write(a, "secret")
	data, _ := h.backedUp(backuper, a)
	looked, scrubbed := 0, 0
	_, err := backuper.Restore(h.ctx, c.Member, bytes.NewReader(data), func(ctx context.Context, m replication.Member) error {
		h.want(m.Addr == c.Addr, "the scrub hook was given %+v", m)
		h.hidden(c, "when it is about to be scrubbed")
		scrubbed++
		return h.Scrub(ctx, m)
	}, func(p replication.Progress) {
		if p.Done > 0 && looked == 0 {
			looked++
			h.hidden(c, "in the middle of the copy")
		}
	})
	h.ok(err, "Restore")
	h.want(looked > 0, "no progress was reported")
	h.want(scrubbed == 1, "the copy was scrubbed %d times", scrubbed)
	h.lacks(c, "early")
	h.want(h.value(c, "secret") == "scrubbed", "the copy was not scrubbed")
}

func restoreBroken(h *harness) {
	backuper := h.backuper()
	a, c := h.Start(), h.Start()
	h.promote(a, false)
	h.rows(a, "r", 50)
	h.write(a, "secret")
	data, _ := h.backedUp(backuper, a)
	unread := errors.New("input/output error")
	for _, n := range []int{0, 1, len(data) / 4, len(data) / 2, len(data) * 3 / 4, len(data) - 2} {
		_, err := backuper.Restore(h.ctx, c.Member, bytes.NewReader(data[:n]), h.Scrub, nil)
		h.want(err != nil, "Restore of %d of %d bytes returned nil", n, len(data))
		h.blank(c, fmt.Sprintf("after a restore of %d of %d bytes", n, len(data)))
		_, err = backuper.Restore(h.ctx, c.Member, io.MultiReader(bytes.NewReader(data[:n]), failingReader{unread}), h.Scrub, nil)
		h.want(errors.Is(err, unread), "Restore from a reader that fails returned %v", err)
	}
	_, err := backuper.Restore(h.ctx, c.Member, io.MultiReader(bytes.NewReader(data), failingReader{unread}), h.Scrub, nil)
	h.want(errors.Is(err, unread), "Restore from a reader that fails at the end returned %v", err)
	h.blank(c, "after a restore from a reader that fails at the end")

	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	_, err = backuper.Restore(ctx, c.Member, bytes.NewReader(data), h.Scrub, func(p replication.Progress) {
		if p.Done > 0 {
			cancel()
		}
	})
	h.want(err != nil, "Restore under a context that ended meanwhile returned nil")
	h.hidden(c, "after the restore broke off")
	refused := errors.New("not fit to be seen")
	_, err = backuper.Restore(h.ctx, c.Member, bytes.NewReader(data), func(context.Context, replication.Member) error { return refused }, nil)
	h.want(errors.Is(err, refused), "Restore whose scrub hook failed returned %v", err)
	h.hidden(c, "after the scrub hook failed")
	c.Kill()
	c.Restart()
	h.hidden(c, "after that and a restart")

	_, err = backuper.Restore(h.ctx, c.Member, bytes.NewReader(data), h.Scrub, nil)
	h.ok(err, "Restore of all of it")
	h.promote(c, false)
	h.has(c, "r000", "r049")
	h.want(h.value(c, "secret") == "scrubbed", "the copy was not scrubbed")
}

// blank breaks the rule unless the server is empty: as it was, or with a part of a copy.
func (h *harness) blank(s Server, when string) {
	h.Helper()
	st := h.observe(s)
	h.want(st.Empty && !st.Imported && !st.Writable && st.Source == "", "%s it says %+v", when, st)
}

// failingReader is a reader that fails.
type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }
