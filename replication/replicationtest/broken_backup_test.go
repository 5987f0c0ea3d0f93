package replicationtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/scalr-go/scalr/replication"
)

var brokenBackups = []fault{
	{"Backup", "moves on meanwhile", func(e *engine) {
		e.backup = func(ctx context.Context, m member, w io.Writer, f func(replication.Progress)) (pos, error) {
			p, err := e.Cluster.Backup(ctx, m, w, f)
			e.Inject(m.Addr, "backup", "1")
			return p, err
		}
	}},
	{"Backup", "stops the replica", func(e *engine) {
		e.backup = func(ctx context.Context, m member, w io.Writer, f func(replication.Progress)) (pos, error) {
			_, _ = e.Cluster.Drain(ctx, m)
			return e.Cluster.Backup(ctx, m, w, f)
		}
	}},
	{"Backup", "does not restore", func(e *engine) {
		e.restore = func(_ context.Context, _ member, r io.Reader, _ scrubber, _ func(replication.Progress)) (pos, error) {
			text, err := io.ReadAll(r)
			_, at, _ := strings.Cut(string(text), `"position":"`)
			at, _, _ = strings.Cut(at, `"`)
			return pos(at), err
		}
	}},
	{"Backup", "restores over a primary", func(e *engine) {
		e.restore = func(ctx context.Context, m member, r io.Reader, s scrubber, f func(replication.Progress)) (pos, error) {
			_ = e.Cluster.Fence(ctx, m)
			return e.Cluster.Restore(ctx, m, r, s, f)
		}
	}},
	{"BackupConsistent", "fences", func(e *engine) {
		e.backup = func(ctx context.Context, m member, w io.Writer, f func(replication.Progress)) (pos, error) {
			_ = e.Cluster.Fence(ctx, m)
			defer e.Cluster.Promote(ctx, m, false)
			return e.Cluster.Backup(ctx, m, w, f)
		}
	}},
	{"BackupConsistent", "gives the position of its end", func(e *engine) {
		e.backup = func(ctx context.Context, m member, w io.Writer, f func(replication.Progress)) (pos, error) {
			_, err := e.Cluster.Backup(ctx, m, w, f)
			st, _ := e.Cluster.Observe(ctx, m)
			return st.Applied, err
		}
	}},
	{"BackupBroken", "does not mind a full disk", func(e *engine) {
		e.backup = func(ctx context.Context, m member, w io.Writer, f func(replication.Progress)) (pos, error) {
			var all bytes.Buffer
			p, err := e.Cluster.Backup(ctx, m, &all, f)
			_, _ = w.Write(all.Bytes())
			return p, err
		}
	}},
	{"BackupBroken", "goes on", func(e *engine) {
		e.backup = func(ctx context.Context, m member, w io.Writer, f func(replication.Progress)) (pos, error) {
			return e.Cluster.Backup(context.WithoutCancel(ctx), m, w, f)
		}
	}},
	{"RestoreHidden", "scrubs when all is done", func(e *engine) {
		e.restore = func(ctx context.Context, m member, r io.Reader, scrub scrubber, f func(replication.Progress)) (pos, error) {
			p, err := e.Cluster.Restore(ctx, m, r, nil, f)
			return p, errors.Join(err, scrub(ctx, m))
		}
	}},
	{"RestoreBroken", "does not mind the end", func(e *engine) {
		e.restore = func(ctx context.Context, m member, r io.Reader, scrub scrubber, f func(replication.Progress)) (pos, error) {
			text, _ := io.ReadAll(r)
			whole := text[:bytes.LastIndexByte(text, '\n')+1]
			if !bytes.Contains(whole, []byte(`"end"`)) {
				whole = append(whole, "{\"end\":true}\n"...)
			}
			return e.Cluster.Restore(ctx, m, bytes.NewReader(whole), scrub, f)
		}
	}},
	{"RestoreBroken", "does not mind a scrub that fails", func(e *engine) {
		e.restore = func(ctx context.Context, m member, r io.Reader, scrub scrubber, f func(replication.Progress)) (pos, error) {
			return e.Cluster.Restore(ctx, m, r, func(ctx context.Context, m member) error { _ = scrub(ctx, m); return nil }, f)
		}
	}},
}
