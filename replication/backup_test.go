package replication_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// backups gives the backup files of a directory, the oldest first, and what each says of itself. All must be whole, and nothing
// else may be there.
func backups(t tb, dir string) (files []string, infos []replication.Backup) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.True(t, strings.HasSuffix(e.Name(), ".backup.gz"), "%s is left over", e.Name())
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		path := filepath.Join(dir, e.Name())
		b, err := replication.CheckBackup(context.Background(), path)
		require.NoError(t, err)
		files, infos = append(files, path), append(infos, b)
	}
	return files, infos
}

// restored gives the rows of a backup.
func restored(t tb, path string) map[string]string {
	t.Helper()
	db := memdb.New(memdb.Options{})
	m := replication.Member{ID: "throw-away", Addr: "10.9.9.9:3306"}
	db.Start(m.Addr)
	_, err := replication.RestoreBackup(context.Background(), db, m, path, nil, nil)
	require.NoError(t, err)
	rows, err := db.Rows(context.Background(), m.Addr)
	require.NoError(t, err)
	return rows
}

// A set is copied on its schedule, from a replica; a Manager that starts anew goes on by the files; and what is over is removed.
func TestBackups(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "shop%2Fdb2-20000101T000000.000000000Z.backup.gz.part") // of another set
	part := filepath.Join(dir, "shop%2Fdb-19991231T235900.000000000Z.backup.gz.part")   // a Manager was killed
	for _, path := range []string{part, other} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	config := replication.Config{Interval: 5 * time.Second, Backups: &replication.Backups{Dir: dir, Every: time.Hour, Keep: 3, MaxAge: 10 * time.Hour}}
	bubble(t, 3, config, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		time.Sleep(time.Minute)
		require.Empty(t, w.seen(replication.KindBackupTaken), "there is nothing to copy yet")
		w.write("db-1", "x")
		w.until("there is a backup", time.Minute, func(t replication.Topology) bool { return !t.Backup.IsZero() })
		require.NoFileExists(t, part)
		require.FileExists(t, other)
		require.NoError(t, os.Remove(other))
		time.Sleep(30 * time.Minute)
		require.Empty(t, w.manager().Plan().Steps)
		w.stop()
		time.Sleep(20 * time.Minute)
		w.write("db-1", "y")
		w.start()
		w.whole()
		time.Sleep(5 * time.Minute)
		require.Len(t, w.seen(replication.KindBackupTaken), 1, "the Manager does not know of the last one")
		time.Sleep(10 * time.Minute)
		taken := w.seen(replication.KindBackupTaken)
		require.Len(t, taken, 2)
		files, infos := backups(t, dir)
		require.Len(t, files, 2)
		require.Equal(t, taken[1].Attrs["file"], files[1])
		require.Equal(t, string(infos[1].Position), taken[1].Attrs["position"])
		require.Equal(t, "shop/db", infos[1].Set)
		require.Equal(t, taken[1].Subject, infos[1].Member)
		require.Equal(t, map[string]string{"x": "x"}, restored(t, files[0]))
		require.Equal(t, map[string]string{"x": "x", "y": "y"}, restored(t, files[1]))
		require.Equal(t, time.Hour, infos[1].Taken.Sub(infos[0].Taken).Round(time.Second))
		top, _ := w.manager().Topology()
		require.Equal(t, infos[1].Taken, top.Backup)
		time.Sleep(4 * time.Hour)
		files, _ = backups(t, dir)
		require.Len(t, files, 3)
		removed := w.seen(replication.KindBackupRemoved)
		require.Contains(t, removed[0].Message, "it is what is left of one that broke off")
		require.Equal(t, "there are 3 newer ones, and 3 are kept", removed[1].Message)
		for _, e := range w.seen(replication.KindBackupTaken) {
			require.NotEqual(t, "db-1", e.Subject, "the primary was not spared")
		}

		// The clock was wrong, and is put right.
		ahead := time.Now().Add(time.Hour).UTC().Format("20060102T150405.000000000Z")
		require.NoError(t, os.Rename(files[2], filepath.Join(dir, "shop%2Fdb-"+ahead+".backup.gz")))
		n := len(w.seen(replication.KindBackupTaken))
		time.Sleep(30 * time.Minute)
		require.Len(t, w.seen(replication.KindBackupTaken), n+1)
	})
}

// A set of one server is copied from its primary, and so is one whose replicas are gone.
func TestBackupsOfThePrimary(t *testing.T) {
	dir := t.TempDir()
	config := replication.Config{Backups: &replication.Backups{Dir: dir, Every: time.Minute, Keep: 1}}
	bubble(t, 1, config, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		time.Sleep(10 * time.Second)
		require.Len(t, w.seen(replication.KindBackupTaken), 1)
	})
	dir = t.TempDir()
	config.Backups.Dir = dir
	bubble(t, 2, config, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.db.Crash(addr(2))
		w.write("db-1", "x")
		time.Sleep(25 * time.Second)
		require.Empty(t, w.seen(replication.KindBackupTaken))
		require.Contains(t, fmt.Sprint(w.manager().Plan().Held), "it waits for a replica that serves")
		time.Sleep(30 * time.Second)
		require.Len(t, w.seen(replication.KindBackupTaken), 1)
		w.db.Start(addr(2))
		w.until("there is another one", 3*time.Minute, func(replication.Topology) bool { return len(w.seen(replication.KindBackupTaken)) == 2 })
		require.Equal(t, "db-2", w.seen(replication.KindBackupTaken)[1].Subject)
	})
}

// What stands in the way is told, ails no member, and is tried again until it works.
func TestBackupsInTrouble(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	bubble(t, 2, replication.Config{Backups: &replication.Backups{Dir: dir, Every: time.Minute, Keep: 2}}, func(t *testing.T, w *world) {
		var fails atomic.Bool
		fails.Store(true)
		w.hook = func(_ context.Context, c memdb.Call) error {
			if c.Op == "Backup" && c.Done && fails.Load() {
				return errors.New("the disk is on fire")
			}
			return nil
		}
		held := func(want string) {
			t.Helper()
			time.Sleep(2 * time.Minute)
			top, _ := w.manager().Topology()
			require.True(t, whole(top), "%+v", top)
			require.Contains(t, fmt.Sprint(top.Held), want)
		}
		w.start()
		w.whole()
		w.write("db-1", "x")
		held("no backups are taken: open " + dir + ": no such file or directory")
		require.NoError(t, os.Mkdir(dir, 0o700))
		held("reading one from db-2 failed: the disk is on fire")
		failed := w.seen(replication.KindBackupFailed)
		require.NotEmpty(t, failed)
		require.Less(t, len(failed), 20, "it is tried too often")
		require.Equal(t, "db-2", failed[0].Subject)
		backups(t, dir) // nothing is left of them
		require.Contains(t, w.manager().Plan().String(), "backup db-2: there is no backup yet")
		fails.Store(false)
		w.until("there is a backup", 3*time.Minute, func(t replication.Topology) bool { return !t.Backup.IsZero() })
		w.settled()
	})
}

// A backup gives way when its member is needed, and is made again.
func TestBackupGivesWay(t *testing.T) {
	dir := t.TempDir()
	slower := slow
	slower.Copy = time.Minute
	for name, hurt := range map[string]func(w *world){
		"Recovery":   func(w *world) { w.db.Crash(addr(1)); w.primary("db-1") },
		"Switchover": func(w *world) { require.NoError(w.t, w.manager().Switchover(w.ctx, "")) },
		"NoRecovery": func(w *world) { // it waits for the old primary
			w.db.Hang(addr(1))
			w.until("the backup gives way", 5*time.Second, func(t replication.Topology) bool {
				x, _ := t.Member("db-2")
				return t.Primary == "" && x.Progress.Unit == ""
			})
			w.db.Resume(addr(1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2, slower, replication.Config{Policy: replication.Durability, Backups: &replication.Backups{Dir: dir, Every: time.Hour, Keep: 1}})
				w.start()
				defer w.stop()
				w.whole()
				w.write("db-1", "x")
				time.Sleep(10 * time.Second)
				top, _ := w.manager().Topology()
				x, _ := top.Member("db-2")
				require.Equal(t, "rows", x.Progress.Unit, "%+v", x)
				require.True(t, whole(top), "a member that is read is not what it was: %+v", top)
				begin := time.Now()
				hurt(w)
				require.Less(t, time.Since(begin), 3*time.Second)
				require.Empty(t, w.seen(replication.KindBackupFailed))
				files, _ := backups(t, dir)
				require.Empty(t, files)
				w.db.Start(addr(1))
				w.until("there is a backup", 10*time.Minute, func(t replication.Topology) bool { return !t.Backup.IsZero() })
			})
			files, _ := backups(t, dir)
			require.NoError(t, os.Remove(files[0]))
		})
	}
}

// Whatever happens meanwhile: each file is whole and of one moment, there are never two within the time between them, none is
// read from the primary while a replica serves, what is over goes and the newest stays; and when all is well again they go on.
func TestBackupsChaos(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, backupsChaos)
	})
}

func backupsChaos(t *rapid.T) {
	dir, err := os.MkdirTemp("/dev/shm", "scalr-backups-") // it syncs at once
	if err != nil {
		dir, err = os.MkdirTemp("", "scalr-backups-")
	}
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	home := filepath.Join(dir, "here")
	require.NoError(t, os.Mkdir(home, 0o700))
	b := &replication.Backups{Dir: home, Every: time.Duration(rapid.IntRange(20, 60).Draw(t, "every")) * time.Second, Keep: rapid.IntRange(0, 3).Draw(t, "keep")}
	if b.Keep == 0 || rapid.Bool().Draw(t, "by age") {
		b.MaxAge = time.Duration(rapid.IntRange(1, 120).Draw(t, "max age")) * time.Second
	}
	options := slow
	options.Copy = time.Duration(rapid.SampledFrom([]int{0, 200, 3000}).Draw(t, "copy")) * time.Millisecond
	n := rapid.IntRange(1, 3).Draw(t, "members")
	w := newWorld(t, n, options, replication.Config{Policy: replication.Durability, Interval: time.Second, Backups: b})
	var calls, killAt, fail, crash atomic.Int64
	w.hook = func(_ context.Context, c memdb.Call) error {
		if c.Op != "Backup" {
			return nil
		}
		top, _ := w.manager().Topology()
		for _, x := range top.Members {
			if !c.Done && x.Member.Addr != c.Addr && x.Role == replication.RoleReplica && x.Serves && w.addr(top.Primary) == c.Addr && w.calm(x.Member.ID) {
				w.mu.Lock()
				w.broken = append(w.broken, fmt.Sprintf("the primary %s was read while %s serves", top.Primary, x.Member.ID))
				w.mu.Unlock()
			}
		}
		switch i := calls.Add(1); {
		case killAt.Load() == i:
			w.kill()
		case fail.Load() == i:
			return errors.New("no space left on device")
		case crash.Load() == i:
			w.db.Crash(c.Addr)
			time.AfterFunc(2*time.Second, func() { w.db.Start(c.Addr) })
		}
		return nil
	}
	defer func() {
		if t.Failed() {
			fmt.Println(w.story())
		}
	}()
	w.start()
	w.whole()
	top, _ := w.manager().Topology()
	w.write(top.Primary, "the first")
	app := w.application(time.Second)
	for range rapid.IntRange(1, 5).Draw(t, "faults") {
		next := calls.Load() + int64(rapid.IntRange(1, 8).Draw(t, "at call"))
		switch rapid.IntRange(0, 5).Draw(t, "fault") {
		case 0:
			killAt.Store(next)
		case 1:
			fail.Store(next)
		case 2:
			crash.Store(next)
		case 3:
			m := w.members[rapid.IntRange(0, n-1).Draw(t, "member")]
			w.tell("crash %s", m.ID)
			w.db.Crash(m.Addr)
			time.Sleep(time.Duration(rapid.IntRange(1, 60).Draw(t, "down for")) * time.Second)
			w.db.Start(m.Addr)
		case 4:
			require.NoError(t, os.Rename(home, home+".away"))
			time.Sleep(time.Duration(rapid.IntRange(1, 100).Draw(t, "away for")) * time.Second)
			require.NoError(t, os.Rename(home+".away", home))
		case 5: // what a Manager leaves behind whose host loses its power
			name := "shop%2Fdb-" + time.Now().UTC().Format("20060102T150405.000000000Z") + ".backup.gz.part"
			require.NoError(t, os.WriteFile(filepath.Join(home, name), []byte("half"), 0o600))
			w.stop()
			w.start()
		}
		time.Sleep(time.Duration(rapid.IntRange(0, 30).Draw(t, "wait")) * time.Second)
	}
	killAt.Store(0)
	fail.Store(0)
	crash.Store(0)
	w.tell("the end of all faults")
	time.Sleep(3 * time.Second)
	for _, m := range w.members {
		w.db.Start(m.Addr)
	}
	w.until("the set comes together", 10*time.Minute, whole)
	before := len(w.seen(replication.KindBackupTaken))
	time.Sleep(b.Every + 2*time.Minute) // a failed one waits for a minute and a half at most
	require.Greater(t, len(w.seen(replication.KindBackupTaken)), before, "there are no more backups")
	app.stop()
	w.stop()
	require.Empty(t, w.broken)
	files, infos := backups(t, home)
	for i := range infos {
		rows := restored(t, files[i])
		require.Contains(t, rows, "the first")
		at, last := 0, -1
		for k := range app.acked { // what was acknowledged before something that the copy has, it has too
			if _, ok := rows[app.acked[k]]; ok {
				at, last = at+1, k
			}
		}
		require.Equal(t, last+1, at, "%s is not of one moment", files[i])
	}
	taken := w.seen(replication.KindBackupTaken)
	for i := range taken {
		if i > 0 {
			apart := takenAt(t, taken[i]).Sub(takenAt(t, taken[i-1]))
			require.GreaterOrEqual(t, apart, b.Every, "%s and %s", taken[i-1].Attrs["file"], taken[i].Attrs["file"])
		}
	}
	require.Equal(t, taken[len(taken)-1].Attrs["file"], files[len(files)-1], "the newest one is gone")
	if b.Keep > 0 {
		require.LessOrEqual(t, len(files), b.Keep+1, "too many are kept") // the last one may just have been taken
	}
	for i := range len(files) - 1 {
		if b.MaxAge > 0 {
			require.Less(t, time.Since(infos[i].Taken), b.MaxAge+b.Every/2+time.Second, "%s is too old", files[i])
		}
	}
	w.hook = nil
	synctest.Wait()
}

// calm reports whether a member has been what it is for a second.
func (w *world) calm(id string) bool {
	for _, e := range w.seen(replication.KindMember) {
		if e.Subject == id && time.Since(e.Time) < time.Second {
			return false
		}
	}
	return true
}

func takenAt(t tb, e scalr.Event) time.Time {
	name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(e.Attrs["file"]), "shop%2Fdb-"), ".backup.gz")
	at, err := time.Parse("20060102T150405.000000000Z", name)
	require.NoError(t, err)
	return at
}

func TestBackupsFaults(t *testing.T) {
	db := memdb.New(memdb.Options{})
	_, err := replication.New(replication.Config{Engine: db, Backups: &replication.Backups{Every: time.Millisecond, Keep: -1, MaxAge: -1}})
	for _, want := range []string{"Config.Name is empty, want a name for the files of Backups", "Config.Backups.Dir is empty, want a directory",
		"Config.Backups.Every is 1ms, want at least 1s", "Config.Backups.Keep is -1, want 0 or more", "Config.Backups.MaxAge is -1ns, want 0 or more"} {
		require.ErrorContains(t, err, want)
	}
	_, err = replication.New(replication.Config{Engine: struct{ replication.Engine }{db}, Name: "x", Backups: &replication.Backups{Dir: "/x", Every: time.Hour},
		Origin: &replication.Origin{Backup: func(context.Context) (string, error) { return "", nil }, Engine: db}})
	for _, want := range []string{"Config.Backups is set, but the Engine (struct { replication.Engine }) makes no backups",
		"Config.Backups has neither Keep nor MaxAge, want at least one", "Config.Origin.Backup is set, but the Engine (struct { replication.Engine }) restores no backups",
		"Config.Origin has a Backup and an Engine or a Source, want one or the other"} {
		require.ErrorContains(t, err, want)
	}
}

// A new set gets its first data from the newest backup of one that was lost. What stands in the way is told.
func TestOriginBackup(t *testing.T) {
	dir := t.TempDir()
	bubble(t, 2, replication.Config{Backups: &replication.Backups{Dir: dir, Every: time.Minute, Keep: 2}}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "secret")
		time.Sleep(3 * time.Minute)
	})
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		var stage atomic.Int64
		torn := filepath.Join(dir, "torn")
		require.NoError(t, os.WriteFile(torn, []byte("half"), 0o600))
		w.config.Origin = &replication.Origin{
			Backup: func(context.Context) (string, error) {
				if stage.Load() == 1 {
					return torn, nil
				}
				return replication.LatestBackup(dir, []string{"nobody", "", "shop/db"}[stage.Load()])
			},
			Scrub: func(_ context.Context, m replication.Member) error {
				w.db.Inject(m.Addr, "secret", "scrubbed")
				return nil
			},
		}
		w.start()
		for i, want := range []string{`finding a backup to restore: ` + dir + ` has no backup of the set "nobody"`, "it is no whole backup"} {
			stage.Store(int64(i))
			time.Sleep(time.Minute)
			top, _ := w.manager().Topology()
			m, _ := top.Member("db-1")
			require.Empty(t, top.Primary)
			require.Contains(t, m.Error, want)
		}
		stage.Store(2)
		w.whole()
		imported := w.seen(replication.KindImported)
		require.Len(t, imported, 1)
		latest, err := replication.LatestBackup(dir, "shop/db")
		require.NoError(t, err)
		require.Equal(t, latest, imported[0].Attrs["source"])
		require.Contains(t, imported[0].Message, "db-1 has the data of the backup of shop/db, taken 2000-01-01T00:0")
		require.Equal(t, map[string]string{"secret": "scrubbed"}, w.rows("db-3"))
		require.NoError(t, os.Remove(torn))
	})
}

// An engine that starts the server again on what it restores is not told to stop, for as long as Patience.
func TestOriginBackupStartsTheServerAgain(t *testing.T) {
	dir := t.TempDir()
	bubble(t, 1, replication.Config{Backups: &replication.Backups{Dir: dir, Every: time.Minute, Keep: 2}}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "row")
		time.Sleep(3 * time.Minute)
	})
	bubble(t, 1, replication.Config{}, func(t *testing.T, w *world) {
		var restores atomic.Int64
		w.config.Origin = &replication.Origin{Backup: func(context.Context) (string, error) { return replication.LatestBackup(dir, "shop/db") }}
		w.config.Engine = &restarting{w.config.Engine.(*memdb.Cluster), &restores}
		w.start()
		w.whole()
		require.EqualValues(t, 1, restores.Load())
		require.Contains(t, w.rows("db-1"), "row")
	})
}

// restarting is an engine that starts a server again before it restores it.
type restarting struct {
	*memdb.Cluster
	restores *atomic.Int64
}

func (e *restarting) Restore(ctx context.Context, m replication.Member, r io.Reader, scrub func(context.Context, replication.Member) error,
	progress func(replication.Progress)) (replication.Position, error) {
	e.restores.Add(1)
	e.Crash(m.Addr)
	select {
	case <-time.After(20 * time.Second):
	case <-ctx.Done():
	}
	e.Start(m.Addr)
	return e.Cluster.Restore(ctx, m, r, scrub, progress)
}
