package mysql_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// byFilesAs is byFiles with the accounts of c.
func byFilesAs(t testing.TB, c mysql.Config, wrap func(runner) runner, nodes ...*node) *mysql.Engine {
	t.Helper()
	c.Machines = machines(t, nodes...)
	if wrap != nil {
		c.Machines.Run = wrap(c.Machines.Run)
	}
	return engine(t, c, nodes...)
}

// A backup of files has all that one over SQL has, and no passwords either; another set gets it, and the tools of MariaDB read it.
func TestBackupByFiles(t *testing.T) {
	_, source, target := seeded(t)
	exec(t, source.admin(t), "DROP TABLE app.mem, app.aria, app.myisam", "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'h', PASSWORD 'server-pass')")
	exec(t, source.admin(t), "CREATE USER "+reader+"@'%' IDENTIFIED BY '"+readerPassword+"'", "GRANT ALL PRIVILEGES ON *.* TO "+reader+"@'%'")
	bootstrap(t, target)
	c := config
	c.User, c.Password = reader, readerPassword
	var mu sync.Mutex
	var lines []string
	e := byFilesAs(t, c, func(run runner) runner {
		return func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
			mu.Lock()
			lines = append(lines, strings.Join(args, " "))
			mu.Unlock()
			return run(ctx, m, args, in, out)
		}
	}, source)
	twin := byFilesAs(t, twinConfig, nil, target)
	exec(t, target.admin(t), "SET sql_log_bin=0; CREATE USER stale@'%' IDENTIFIED BY 's'; CREATE ROLE stale_role; CREATE SCHEMA stale; CREATE TABLE stale.t (i INT); "+
		"CREATE PROCEDURE stale.p() SELECT 1; GRANT EXECUTE ON PROCEDURE stale.p TO stale@'%'; GRANT SELECT ON *.* TO PUBLIC")
	id := one(t, target.admin(t), "SELECT @@server_id")
	exec(t, source.admin(t), "FLUSH TABLES mysql.global_priv, mysql.servers") // from Aria's log to its files
	before := observe(t, e, source)
	var steps []replication.Progress
	var w bytes.Buffer
	at, err := e.Backup(t.Context(), source.Member, &w, func(p replication.Progress) {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, p)
	})
	require.NoError(t, err)
	require.Equal(t, before.Applied, at)
	require.Equal(t, before.Applied, observe(t, e, source).Applied, "the source was written to")
	for _, p := range steps {
		require.True(t, p.Unit == "bytes" && p.Done <= p.Total && p.Total > 1<<20, "%+v", p)
	}
	require.NotContains(t, strings.Join(lines, "\n"), readerPassword, "a password is on a command line")
	require.Contains(t, strings.Join(lines, "\n"), "mariadb-backup --no-defaults --backup")
	hashes := one(t, source.admin(t), "SELECT GROUP_CONCAT(JSON_VALUE(priv,'$.authentication_string')) FROM mysql.global_priv")
	require.Greater(t, strings.Count(hashes, "*"), 3)
	for hash := range strings.SplitSeq(hashes, ",") {
		require.True(t, len(hash) < 8 || !bytes.Contains(w.Bytes(), []byte(hash)), "the backup has a password's hash")
	}
	require.NotContains(t, w.String(), "server-pass")

	got, err := twin.Restore(t.Context(), target.Member, bytes.NewReader(w.Bytes()), nil, nil)
	require.NoError(t, err)
	require.Equal(t, at, got)
	require.Equal(t, checksums(t, source), checksumsAs(t, target, twinConfig))
	target.alone(t)
	db := target.db(t, twinConfig.User, twinConfig.Password, "")
	require.Equal(t, "twin,twin_repl", one(t, db, opened))
	require.Equal(t, id, one(t, db, "SELECT @@server_id"))
	require.Equal(t, string(at), one(t, db, "SELECT position FROM mysql.scalr_imported"))
	require.Equal(t, "0", one(t, db, "SELECT (SELECT COUNT(*) FROM mysql.proc WHERE db='stale') + (SELECT COUNT(*) FROM mysql.servers) + "+
		"(SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'stale%') + (SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('scalr_seeding','stale'))"))
	require.Equal(t, "SLAVESIDE_DISABLED", one(t, db, "SELECT status FROM mysql.event WHERE name='ev'"))
	require.Equal(t, "42", one(t, db, "SELECT app.pack.f()"))
	for _, query := range []string{
		"SELECT GROUP_CONCAT(user, '@', host, is_role, default_role ORDER BY 1) FROM mysql.user WHERE user NOT IN ('scalr','scalr_repl','twin','twin_repl','cloner')",
		"SELECT GROUP_CONCAT(user, host, role, admin_option ORDER BY 1) FROM mysql.roles_mapping WHERE user NOT IN ('scalr','twin','root')",
		"SELECT GROUP_CONCAT(routine_name, character_set_client, collation_connection, sql_mode, HEX(routine_definition) ORDER BY 1) FROM information_schema.routines WHERE routine_schema='app'",
		"SELECT GROUP_CONCAT(trigger_name, action_order, HEX(action_statement), definer ORDER BY 1) FROM information_schema.triggers",
		"SELECT GROUP_CONCAT(ROW_START, ROW_END, v ORDER BY 1) FROM app.versioned FOR SYSTEM_TIME ALL",
		"SELECT GROUP_CONCAT(next_not_cached_value) FROM app.seq",
	} {
		require.Equal(t, one(t, source.admin(t), query), one(t, db, query), query)
	}
	require.NoError(t, twin.Promote(t.Context(), target.Member, false))
	exec(t, db, "INSERT INTO app.log (v) VALUES ('after')")

	// The tools of MariaDB know what it is.
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, append(w.Bytes(), "{\"set\":\"x\"}\n"...), 0o600))
	out, err := osexec.CommandContext(t.Context(), "/bin/sh", "-c", `cd "$1" && mkdir d && { mbstream -x -C d <file; true; } && mariadb-backup --no-defaults --prepare --target-dir="$1/d"`, "x", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "completed OK!")
	text, err := os.ReadFile(filepath.Join(dir, "d", "scalr_backup.sql"))
	require.NoError(t, err)
	require.Contains(t, string(text), "CREATE DEFINER")
}

// scheduled is a set whose engine copies files, and waits for its events, each of them once.
func scheduled(t *testing.T, nodes []*node, c replication.Config) (s *set, await func(scalr.Kind) scalr.Event) {
	by := config
	by.Machines = machines(t, nodes...)
	s = manageWith(t, nodes, by, c)
	seen := 0
	return s, func(kind scalr.Kind) (found scalr.Event) {
		t.Helper()
		within(t, "there is the event "+string(kind), func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			for ; seen < len(s.events); seen++ {
				if s.events[seen].Kind == kind {
					found = s.events[seen]
					seen++
					return true
				}
			}
			return false
		})
		return found
	}
}

// A Manager backs its set up under load, on a schedule, and keeps two; what has been restored of the last one, and a new set that
// begins with it, have what a replica has that stopped at its position.
func TestBackupByFilesOnASchedule(t *testing.T) {
	nodes := start(t, 5)
	dir := t.TempDir()
	s, await := scheduled(t, nodes[:2], replication.Config{Backups: &replication.Backups{Dir: dir, Every: 2e9, Keep: 2}})
	e, until, drill, lone := s.engine, nodes[2], nodes[3], nodes[4]
	plain := engine(t, config, until)
	stop := s.write(2)
	defer stop()
	within(t, "writers write", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.acked) > 200 })
	primary := s.node(s.primary())
	_, err := plain.Seed(t.Context(), until.Member, primary.Member, nil)
	require.NoError(t, err)
	require.NoError(t, plain.Close(primary.Member))
	removed := await(replication.KindBackupRemoved) // two newer ones, taken under load
	require.NoFileExists(t, removed.Attrs["file"])
	taken := await(replication.KindBackupTaken)
	require.NotEqual(t, primary.Member.ID, taken.Subject, "the primary was not spared")
	stop()
	s.stop()
	within(t, "the last file is named", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.events {
			if e.Kind == replication.KindBackupTaken {
				taken = e
			}
		}
		return true
	})
	path, err := replication.LatestBackup(dir, "test/db")
	require.NoError(t, err)
	require.Equal(t, path, taken.Attrs["file"])
	info, err := replication.CheckBackup(t.Context(), path)
	require.NoError(t, err)
	require.Greater(t, info.Bytes, int64(10<<20), "it holds no files")
	require.Equal(t, taken.Attrs["position"], string(info.Position))
	t.Logf("the backup of %s is as of %s, %d bytes", info.Member, info.Position, info.Bytes)

	c := config
	c.Machines = machines(t, drill, lone)
	fresh := engine(t, c, drill, lone)
	b, err := replication.RestoreBackup(t.Context(), fresh, drill.Member, path, nil, nil)
	require.NoError(t, err)
	require.Contains(t, []replication.Order{replication.Equal, replication.Ahead}, fresh.Compare(b.Position, info.Position))
	info.Position = b.Position // its rows know best
	require.Equal(t, info, b)

	host, port, _ := strings.Cut(primary.Addr, ":")
	exec(t, until.admin(t), fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%s, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_USE_GTID=slave_pos",
		host, port, config.ReplicationUser, strings.NewReplacer(`\`, `\\`, "'", "''").Replace(config.ReplicationPassword)),
		"START SLAVE UNTIL master_gtid_pos = '"+strings.ReplaceAll(string(info.Position), "+", "")+"'")
	require.Equal(t, "0", one(t, until.admin(t), "SELECT MASTER_GTID_WAIT('"+strings.ReplaceAll(string(info.Position), "+", "")+"', 60)"))
	want := checksums(t, until)
	require.Contains(t, want, "app.t")
	require.NotEqual(t, checksums(t, primary)["app.t"], want["app.t"], "the set has not gone on")

	require.Equal(t, want, checksums(t, drill))

	// Where no commands run, nothing is touched.
	require.NoError(t, e.Close(lone.Member))
	was := one(t, until.admin(t), "SELECT CONCAT(@@gtid_slave_pos, @@gtid_binlog_state)")
	_, err = replication.RestoreBackup(t.Context(), plain, until.Member, path, nil, nil)
	require.ErrorContains(t, err, "which are restored on the machine: set Config.Machines")
	require.Equal(t, was, one(t, until.admin(t), "SELECT CONCAT(@@gtid_slave_pos, @@gtid_binlog_state)"))
	require.Equal(t, want, checksums(t, until))

	begun := &set{nodes: []*node{lone}}
	defer begun.run(t, c, replication.Config{Origin: &replication.Origin{
		Backup: func(context.Context) (string, error) { return replication.LatestBackup(dir, "test/db") },
		Scrub: func(ctx context.Context, m replication.Member) error {
			require.True(t, observe(t, fresh, lone).Empty)
			exec(t, lone.admin(t), "ALTER USER "+appUser+"@'%' IDENTIFIED BY '"+appPassword+"' ACCOUNT UNLOCK")
			return nil
		},
	}})()
	within(t, "the new set has a primary", func() bool { top, _ := begun.manager.Topology(); return top.Primary != "" })
	require.Equal(t, want, checksums(t, lone))
	exec(t, lone.app(t), "INSERT INTO app.t VALUES (-1, 'new')")
}

// backedUpFiles is a backup of a source with some rows, and a target that has other ones.
func backedUpFiles(t *testing.T) (text []byte, want map[string]string, source, target *node) {
	source, target = small(t)
	exec(t, target.admin(t), "SET sql_log_bin=0; CREATE SCHEMA old; CREATE TABLE old.t (i INT PRIMARY KEY); INSERT INTO old.t VALUES (1),(2)")
	var w bytes.Buffer
	_, err := byFiles(t, nil, source, target).Backup(t.Context(), source.Member, &w, nil)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(w.Bytes(), []byte("XBSTCK01")))
	return w.Bytes(), checksums(t, source), source, target
}

// Wherever a restore breaks off, the server runs, is empty for everybody, and has what it had or the whole copy; the next one
// makes it whole.
func TestRestoreFilesThatBreaksOff(t *testing.T) {
	text, want, source, target := backedUpFiles(t)
	e := engine(t, config, source, target)
	had := map[string]int{}
	for budget := int64(2); ; budget++ { // before, it only looks whether it can
		ctx, cancel := context.WithCancel(t.Context())
		var begun atomic.Int64
		broken := byFiles(t, func(run runner) runner {
			return func(c context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
				if begun.Add(1) == budget {
					if args[0] == "mbstream" {
						in = io.TeeReader(in, writer(func(p []byte) (int, error) { cancel(); return len(p), nil }))
					} else {
						defer cancel()
					}
				}
				return run(c, m, args, in, out)
			}
		}, target)
		_, err := broken.Restore(ctx, target.Member, bytes.NewReader(text), nil, nil)
		cancel()
		require.NoError(t, broken.Close(target.Member))
		if begun.Load() < budget {
			require.NoError(t, err)
			break
		}
		if err == nil {
			continue
		}
		within(t, "its server runs", func() bool { _, err := e.Observe(t.Context(), target.Member); return err == nil })
		st := observe(t, e, target)
		require.True(t, st.Empty && !st.Writable && st.Source == "" && !st.Imported, "after %d: %+v (%v)", budget, st, err)
		has := one(t, target.admin(t), "SELECT GROUP_CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_schema IN ('old','app')")
		if had[has]++; has == "old.t" { // its accounts can be used as before, if anybody wants it back
			exec(t, target.app(t), "DO 1")
		}
	}
	t.Log(had)
	require.Greater(t, had["old.t"], 4)
	require.Equal(t, want, checksums(t, target))
	target.alone(t)
}

// A copy that turns out not to be whole when the server has started on it is given up for what the server had.
func TestRestoreFilesGoesBack(t *testing.T) {
	text, want, source, target := backedUpFiles(t)
	for name, spoil := range map[string]string{
		"a table is broken": `"$@" && dir=${4#*=} && rm "$dir/app/t.ibd"`,
		"it does not start": `"$@" && dir=${4#*=} && rm -f "$dir/ib_logfile0" && echo spoilt >"$dir/ibdata1"`,
	} {
		t.Run(name, func(t *testing.T) {
			e := byFiles(t, func(run runner) runner {
				return func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
					if slices.Contains(args, "--prepare") {
						args = append([]string{"/bin/sh", "-c", spoil, args[0]}, args...)
					}
					return run(ctx, m, args, in, out)
				}
			}, target)
			_, err := e.Restore(t.Context(), target.Member, bytes.NewReader(text), func(context.Context, replication.Member) error {
				return errors.New("it is scrubbed")
			}, nil)
			require.Error(t, err)
			t.Log(err)
			require.NotContains(t, err.Error(), "scrubbed")
			within(t, "its server runs", func() bool { _, err := e.Observe(t.Context(), target.Member); return err == nil })
			require.True(t, observe(t, e, target).Empty)
			require.Equal(t, "2", one(t, target.admin(t), "SELECT COUNT(*) FROM old.t"))
			exec(t, target.app(t), "DO 1")
			target.alone(t)
		})
	}
	// Nobody who could log in to what it had sees the copy, from the moment in which the server has started on it.
	var early error
	tried := 0
	_, err := byFiles(t, func(run runner) runner {
		return func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
			exit, output, err := run(ctx, m, args, in, out)
			if len(args) > 2 && strings.Contains(args[2], "between()") {
				db := target.app(t)
				within(t, "the server answers", func() bool {
					early = db.PingContext(ctx)
					refused, ok := errors.AsType[*sqldriver.MySQLError](early)
					return early == nil || ok && (refused.Number == 1045 || refused.Number == 4151)
				})
				tried++
			}
			return exit, output, err
		}
	}, target).Restore(t.Context(), target.Member, bytes.NewReader(text), nil, nil)
	require.NoError(t, err)
	require.Equal(t, 1, tried)
	require.Error(t, early, "an account of what was there could log in to the copy")
	require.Equal(t, want, checksums(t, target))
	require.Equal(t, want, checksums(t, source))
}

// What cannot be restored is refused before anything is touched, or leaves what was there.
func TestRestoreFilesRefuses(t *testing.T) {
	text, _, source, target := backedUpFiles(t)
	e := byFiles(t, nil, target)
	change := func(from, to string) []byte {
		require.Equal(t, len(from), len(to))
		require.True(t, bytes.Contains(text, []byte(from)), from)
		return bytes.Replace(text, []byte(from), []byte(to), 1)
	}
	series := one(t, source.admin(t), "SELECT SUBSTRING_INDEX(@@version, '.', 2)")
	other := strings.Repeat("9", strings.IndexByte(series, '.')) + "." + strings.Repeat("9", len(series)-1-strings.IndexByte(series, '.'))
	look := func() replication.Status {
		st := observe(t, e, target)
		st.Uptime = 0
		return st
	}
	was := look()
	require.False(t, was.Empty)
	untouched := func(text []byte, e *mysql.Engine, want string) {
		t.Helper()
		_, err := e.Restore(t.Context(), target.Member, bytes.NewReader(text), nil, nil)
		require.ErrorContains(t, err, want)
		require.Equal(t, was, look())
		require.Equal(t, "2", one(t, target.admin(t), "SELECT COUNT(*) FROM old.t"))
		target.alone(t)
	}
	untouched(change(`"version":"`+series, `"version":"`+other), e, "and the backup's server "+other)
	untouched(change(`"innodb_page_size":"16384"`, `"innodb_page_size":"65536"`), e, "its innodb_page_size is 16384 and that of the backup's server is 65536")
	untouched(change(`"kind":"head"`, `"kind":"tail"`), e, `a frame "tail" is where there should be none`)
	untouched(change(`"format":1`, `"format":3`), e, "its format is 3, want 1")
	untouched(change(`"files":{`, `"piles":{`), e, `a frame "head" is where there should be none`)
	untouched(text[:100], e, "it breaks off")
	untouched(text, engine(t, config, target), "set Config.Machines")
	untouched(text, byFiles(t, func(run runner) runner {
		return func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
			return run(ctx, m, append([]string{"/usr/bin/env", "PATH=/nowhere"}, args...), in, out)
		}
	}, target), "mariadb-backup is not installed (Debian package mariadb-backup)")
	exec(t, target.admin(t), "SET GLOBAL event_scheduler = ON", "SET sql_log_bin=0; CREATE EVENT old.ev ON SCHEDULE EVERY 1 DAY DO DO 1")
	untouched(text, e, "1 events would run on what is restored as soon as it starts")
	exec(t, target.admin(t), "SET GLOBAL event_scheduler = OFF")

	// What is found out later leaves what was there as well, though nobody may use it.
	middle := bytes.LastIndex(text[:len(text)/2], []byte("XBSTCK01"))
	file := func(name string) []byte { // which a backup cannot have
		b := append([]byte("XBSTCK01"), 0, 'E', byte(len(name)), 0, 0, 0)
		return slices.Concat(text[:middle], b, []byte(name), text[middle:])
	}
	for _, c := range []struct {
		text []byte
		want string
	}{
		{text[:len(text)-1], "it breaks off"},
		{text[:len(text)/2], "it breaks off"},
		{text[:middle], "it breaks off"},
		{text[:bytes.LastIndex(text, []byte("XBSTCK01"))], "it breaks off"},
		{append(slices.Clone(text), 'x'), "something follows its end"},
		{slices.Concat(text[:middle], []byte("something else, which is long enough"), text[middle:]), "it is no stream of mbstream's"},
		{slices.Concat(text[:len(text)/2], []byte{^text[len(text)/2]}, text[len(text)/2+1:]), "mbstream on the machine of db-2"},
		{file("../../t.ibd"), `it has a file "../../t.ibd"`},
		{file("./mysql/../../t.ibd"), `it has a file "./mysql/../../t.ibd"`},
		{file("/etc/passwd"), `it has a file "/etc/passwd"`},
		{file("./mysql/global_priv.MAD"), `it has a file "./mysql/global_priv.MAD"`},
	} {
		_, err := e.Restore(t.Context(), target.Member, bytes.NewReader(c.text), nil, nil)
		require.ErrorContains(t, err, c.want)
		require.True(t, observe(t, e, target).Empty)
		require.Equal(t, "2", one(t, target.admin(t), "SELECT COUNT(*) FROM old.t"))
		target.alone(t)
	}
}

// A backup that breaks off in the middle leaves nothing that runs; the next one is SQL and says why, and the one after it is of files.
func TestBackupByFilesThatBreaksOff(t *testing.T) {
	source, _ := small(t)
	var kill atomic.Bool
	e := byFiles(t, func(run runner) runner {
		return func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
			if kill.Load() && slices.Contains(args, "--backup") {
				args = append([]string{"/bin/sh", "-c", `"$@" | head -c 3000000; echo killed >&2; exit 1`, "x"}, args...)
			}
			return run(ctx, m, args, in, out)
		}
	}, source)
	var whats map[string]bool
	back := func(ctx context.Context, w io.Writer) error {
		whats = map[string]bool{}
		_, err := e.Backup(ctx, source.Member, w, func(p replication.Progress) { whats[p.Unit+" "+p.What] = true })
		return err
	}
	db := source.admin(t)
	quiet := func() {
		within(t, "nothing of it runs", func() bool {
			return one(t, db, "SELECT COUNT(*) FROM information_schema.processlist WHERE user = '"+config.User+"' AND host LIKE 'localhost%'") == "0"
		})
		exec(t, source.app(t), "INSERT INTO app.t (i) SELECT MAX(i) + 1 FROM app.t", "ALTER TABLE app.t COMMENT = 'it can be written to'")
	}
	kill.Store(true)
	require.ErrorContains(t, back(t.Context(), io.Discard), "mariadb-backup on the machine of db-1: status 1: killed")
	quiet()
	kill.Store(false)
	var text bytes.Buffer
	require.NoError(t, back(t.Context(), &text))
	require.True(t, bytes.HasPrefix(text.Bytes(), []byte("DELIMITER")))
	for what := range whats {
		require.Contains(t, what, "rows ")
		require.Contains(t, what, "not by mariadb-backup: mariadb-backup on the machine of db-1: status 1: killed")
	}

	ctx, cancel := context.WithCancel(t.Context())
	require.ErrorIs(t, back(ctx, writer(func(p []byte) (int, error) { cancel(); return len(p), nil })), context.Canceled)
	quiet()
	full := errors.New("no space left")
	require.ErrorIs(t, back(t.Context(), writer(func(p []byte) (int, error) { return 0, full })), full)
	quiet()
	exec(t, source.app(t), "CREATE TABLE app.aria (i INT) ENGINE=Aria")
	text.Reset()
	require.NoError(t, back(t.Context(), &text))
	require.Contains(t, whats, "rows definitions (not by mariadb-backup: table app.aria is of the engine Aria, want InnoDB)")
	exec(t, source.app(t), "DROP TABLE app.aria")
	var once sync.Once
	require.ErrorContains(t, back(t.Context(), writer(func(p []byte) (int, error) {
		once.Do(func() { exec(t, source.app(t), "CREATE TABLE app.later (i INT)") })
		return len(p), nil
	})), "definitions on the source changed during the copy")
	text.Reset()
	require.NoError(t, back(t.Context(), &text))
	require.True(t, bytes.HasPrefix(text.Bytes(), []byte("XBSTCK01")))
}

// What is restored of a replica's files is as of what its rows say that it had applied, where that is more than mariadb-backup says.
func TestRestoreFilesBelievesTheRows(t *testing.T) {
	e, primary, replica := pair(t)
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	caughtUp(t, e, replica, primary)
	target := start(t, 1)[0]
	by := byFiles(t, nil, replica, target)
	var w bytes.Buffer
	at, err := by.Backup(t.Context(), replica.Member, &w, nil)
	require.NoError(t, err)
	i := strings.LastIndex(string(at), "-")
	seq, err := strconv.Atoi(string(at[i+1:]))
	require.NoError(t, err)
	less := fmt.Sprint(string(at[:i+1]), seq-1)
	require.Len(t, less, len(at))
	text := w.String()
	end := strings.LastIndex(text, string(at))
	text = text[:end] + strings.Replace(text[end:], string(at), less, 1)
	got, err := by.Restore(t.Context(), target.Member, strings.NewReader(text), nil, nil)
	require.NoError(t, err)
	require.Equal(t, at, got)
}
