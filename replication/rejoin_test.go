package replication_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// saved gives the files of a directory with what is in them.
func saved(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	files := map[string]string{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), path)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		files[path] = string(text)
	}
	return files
}

// An old primary with transactions of its own climbs the ladder only as far as it must, and what is taken from it is saved
// before: following, rewinding, seeding.
func TestRejoinLadder(t *testing.T) {
	fault := errors.New("a table was dropped")
	for _, c := range []struct {
		name  string
		fails func(w *world) error // what happens when it is to be rewound
		steps []replication.StepKind
	}{
		{"Rewound", nil, []replication.StepKind{"follow", "save", "rewind", "follow"}},
		{"NotRewindable", func(*world) error { return fault }, []replication.StepKind{"follow", "save", "rewind", "seed", "follow"}},
		{"BrokenOff", func(w *world) error { // it is Empty when it comes back
			time.AfterFunc(100*time.Millisecond, func() { w.db.Crash(addr(1)) })
			time.AfterFunc(200*time.Millisecond, func() { w.db.Start(addr(1)) })
			return nil
		}, []replication.StepKind{"follow", "save", "rewind", "seed", "follow"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			bubble(t, 3, replication.Config{Salvage: dir}, func(t *testing.T, w *world) {
				w.hook = func(_ context.Context, call memdb.Call) error {
					if call.Op == "Rewind" && !call.Done && c.fails != nil {
						return c.fails(w)
					}
					return nil
				}
				w.start()
				w.whole()
				w.write("db-1", "x")
				time.Sleep(100 * time.Millisecond)
				surplus(w)
				w.primary("db-1")
				top := w.settled()
				files := saved(t, dir)
				require.Len(t, files, 1)
				for path, text := range files {
					require.Equal(t, "surplus=1\n", text)
					require.Equal(t, path, top.Verdict.Saved)
					require.Contains(t, top.Verdict.String(), path)
					require.Equal(t, path, w.seen(replication.KindSaved)[0].Attrs["file"])
				}
				var steps []replication.StepKind
				for _, e := range w.seen(replication.KindStep) {
					if e.Subject == "db-1" && e.Time.After(top.Verdict.Began) {
						kind, _, _ := strings.Cut(e.Message, " ")
						steps = append(steps, replication.StepKind(kind))
					}
				}
				require.Equal(t, c.steps, steps)
				require.NotContains(t, w.rows("db-1"), "surplus")
			})
		})
	}
}

// As long as they cannot be saved, nothing is taken from the member.
func TestRejoinWaitsForSaving(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	bubble(t, 3, replication.Config{Salvage: dir}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		time.Sleep(100 * time.Millisecond)
		surplus(w)
		w.primary("db-1")
		w.until("it says why it is not taken back", time.Minute, func(t replication.Topology) bool {
			x, _ := t.Member("db-1")
			return x.Error != "" && x.Role == replication.RoleJoining
		})
		time.Sleep(time.Minute)
		top, _ := w.manager().Topology()
		x, _ := top.Member("db-1")
		require.Contains(t, x.Error, "save failed: open "+dir)
		require.Contains(t, w.manager().Plan().String(), "save db-1 -> "+top.Primary)
		require.Contains(t, w.rows("db-1"), "surplus")
		require.NoError(t, os.Mkdir(dir, 0o700))
		w.settled()
		require.Len(t, saved(t, dir), 1)
	})
}

func TestSalvageNeedsARewinder(t *testing.T) {
	_, err := replication.New(replication.Config{Engine: struct{ replication.Engine }{memdb.New(memdb.Options{})}, Salvage: "/var/lib/x"})
	require.ErrorContains(t, err, `Config.Salvage is "/var/lib/x", but the Engine (struct`)
}

// vague is an engine that knows of what a replica has received and not applied only how far it goes: the position ends in "+",
// and is taken to hold whatever is not beyond its end. A server that is seeded anew stays who it was. MariaDB's are so.
type vague struct{ *memdb.Cluster }

func (e vague) Observe(ctx context.Context, m replication.Member) (replication.Status, error) {
	st, err := e.Cluster.Observe(ctx, m)
	if err == nil {
		st.Server = m.ID
	}
	if st.Source != "" && st.Received != st.Applied {
		st.Received += "+"
	}
	return st, err
}

func (e vague) Count(a, b replication.Position) (uint64, bool) {
	if o := e.Compare(a, b); o == replication.Equal || o == replication.Behind {
		return 0, true
	}
	return e.Cluster.Count(known(a), known(b))
}

func (e vague) Compare(a, b replication.Position) replication.Order {
	n, _ := e.Cluster.Count(known(a), "")
	m, _ := e.Cluster.Count(known(b), "")
	switch o := e.Cluster.Compare(known(a), known(b)); {
	case o == replication.Diverged && a != known(a) && n >= m:
		return replication.Ahead
	case o == replication.Diverged && b != known(b) && m >= n:
		return replication.Behind
	default:
		return o
	}
}

func known(p replication.Position) replication.Position {
	return replication.Position(strings.TrimSuffix(string(p), "+"))
}

// A member that has been seeded anew is a replica like any other: what it had of its own is not looked for in what it gets now.
func TestSurplusIsForgottenWithTheData(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.config.Engine = vague{w.db}
		w.hook = func(_ context.Context, call memdb.Call) error {
			if call.Op == "Observe" && !call.Done && call.Addr == addr(1) {
				time.Sleep(20 * time.Millisecond) // and shows what the primary has written since its own look
			}
			return nil
		}
		w.start()
		w.whole()
		w.write("db-1", "x")
		time.Sleep(time.Second)
		w.db.Cut(addr(1), addr(2))
		w.db.Cut(addr(1), addr(3))
		w.write("db-1", "own")
		w.db.Crash(addr(1))
		top := w.primary("db-1")
		w.db.Heal(addr(1), addr(2))
		w.db.Heal(addr(1), addr(3))
		w.db.Start(addr(1))
		w.whole()
		require.Len(t, w.seen(replication.KindSurplus), 1)
		w.db.Delay(addr(1), 5*time.Millisecond)
		for i := range 2000 {
			w.write(top.Primary, fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
		for _, e := range w.seen(replication.KindMember) {
			require.NotEqual(t, string(replication.RoleQuarantined), e.Attrs["role"], e)
		}
	})
}
