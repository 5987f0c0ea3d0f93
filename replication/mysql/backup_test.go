package mysql_test

import (
	"bytes"
	"context"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/replication"
)

// What has been restored is equal in everything but passwords, which the backup does not have; and the client mariadb restores
// the rows and definitions by itself.
func TestBackupHoldsEverythingButPasswords(t *testing.T) {
	testenv.Need(t, "mariadb")
	origin, e, source, target := apart(t)
	exec(t, target.admin(t), "SET sql_log_bin=0; CREATE ROLE stale_role; CREATE SCHEMA stale; GRANT SELECT ON *.* TO PUBLIC")
	before := observe(t, origin, source)
	var text bytes.Buffer
	var steps []replication.Progress
	at, err := origin.Backup(t.Context(), source.Member, &text, func(p replication.Progress) { steps = append(steps, p) })
	require.NoError(t, err)
	require.Equal(t, before.Applied, at)
	require.Equal(t, before.Applied, observe(t, origin, source).Applied, "the source was written to")
	last := steps[len(steps)-1]
	require.True(t, last.Unit == "rows" && last.Done > 30 && last.Done <= last.Total, "%+v", last)
	const hashes = "SELECT GROUP_CONCAT(JSON_VALUE(priv,'$.authentication_string') ORDER BY 1) FROM mysql.global_priv WHERE user <> 'root'"
	for hash := range strings.SplitSeq(one(t, source.admin(t), hashes), ",") {
		require.True(t, hash == "" || !strings.Contains(text.String(), hash), "the backup has a password's hash")
	}
	require.NotContains(t, text.String(), "IDENTIFIED")

	got, err := e.Restore(t.Context(), target.Member, bytes.NewReader(text.Bytes()), nil, nil)
	require.NoError(t, err)
	require.Equal(t, at, got)
	require.Equal(t, checksums(t, source), checksumsAs(t, target, twinConfig))
	db := target.db(t, twinConfig.User, twinConfig.Password, "")
	require.Equal(t, "twin,twin_repl", one(t, db, "SELECT GROUP_CONCAT(user ORDER BY user) FROM mysql.global_priv WHERE "+
		"user NOT IN ('root','mariadb.sys','mysql','PUBLIC') AND JSON_VALUE(priv,'$.account_locked') IS NULL AND JSON_VALUE(priv,'$.is_role') IS NULL"))
	require.Equal(t, "0", one(t, db, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('scalr_seeding','stale')"))
	definitions := []string{
		"SELECT GROUP_CONCAT(user, '@', host, is_role, default_role ORDER BY 1) FROM mysql.user WHERE user NOT IN ('scalr','scalr_repl','twin','twin_repl','cloner')",
		"SELECT GROUP_CONCAT(user, host, role, admin_option ORDER BY 1) FROM mysql.roles_mapping WHERE user NOT IN ('scalr','twin','root')",
		"SELECT GROUP_CONCAT(table_name, privileges, grantee ORDER BY 1) FROM (SELECT table_name, GROUP_CONCAT(privilege_type ORDER BY 1) AS privileges, grantee " +
			"FROM information_schema.table_privileges GROUP BY table_name, grantee) t",
	}
	objects := []string{
		"SELECT GROUP_CONCAT(routine_name, character_set_client, collation_connection, sql_mode, HEX(routine_definition) ORDER BY 1) FROM information_schema.routines WHERE routine_schema='app'",
		"SELECT GROUP_CONCAT(trigger_name, action_order, HEX(action_statement), definer ORDER BY 1) FROM information_schema.triggers",
		"SELECT COUNT(*) FROM app.versioned FOR SYSTEM_TIME ALL",
		"SELECT GROUP_CONCAT(ROW_START, ROW_END, v ORDER BY 1) FROM app.versioned FOR SYSTEM_TIME ALL",
		"SELECT GROUP_CONCAT(next_not_cached_value) FROM app.seq",
	}
	for _, query := range append(definitions, objects...) {
		require.Equal(t, one(t, source.admin(t), query), one(t, db, query), query)
	}

	plain := start(t, 1)[0]
	exec(t, plain.admin(t), "SET GLOBAL read_only = OFF")
	host, port, _ := strings.Cut(plain.Addr, ":")
	client := osexec.CommandContext(t.Context(), "mariadb", "--no-defaults", "--binary-mode", "--comments", "--max-allowed-packet=1G", "--force",
		"-h", host, "-P", port, "-u", config.User)
	client.Env = []string{"MYSQL_PWD=" + config.Password}
	client.Stdin = bytes.NewReader(text.Bytes())
	out, _ := client.CombinedOutput()
	require.Equal(t, 1, strings.Count(string(out), "ERROR"), "%s", out) // the view that uses a later one
	require.Contains(t, string(out), "'app.z_view' doesn't exist")
	require.Equal(t, checksums(t, source), checksums(t, plain))
	for _, query := range objects {
		require.Equal(t, one(t, source.admin(t), query), one(t, plain.admin(t), query), query)
	}
}

// A backup that is not what it was is refused, or leaves the member empty, and never makes it something else than the source.
func TestRestoreRefuses(t *testing.T) {
	nodes := start(t, 2)
	source, target := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), source.Member, false))
	exec(t, source.admin(t), "CREATE SCHEMA app", "CREATE TABLE app.a (i INT PRIMARY KEY, v VARCHAR(20))", "INSERT INTO app.a VALUES (1,'one'),(2,'two')",
		"CREATE VIEW app.v AS SELECT i FROM app.a")
	var w bytes.Buffer
	_, err := e.Backup(t.Context(), source.Member, &w, nil)
	require.NoError(t, err)
	text := w.String()
	for _, c := range []struct{ from, to, want string }{
		{"DELIMITER", "DELIMITED", `it is no backup of this engine, or a part of one: it begins with "DELIMITED //scalr//\n"`},
		{`"format":1`, `"format":2`, "its format is 2, want 1"},
		{`"kind":"head"`, `"kind":"tail"`, `a frame "tail" is where there should be none`},
		{`"kind":"end"}`, `"kind":"end"`, "where a statement is to be announced"},
		{`"kind":"end"}`, `"kind":"end"}` + "\n-- more", "something follows its end"},
		{"'two'", "'too'", "table app.a: the copy has the checksum"},
		{",(2,'two')", ",(1,'two')", "table app.a: inserting"},
		{",(2,'two')", "          ", "table app.a: the copy has 1 rows, the source 2"},
		{`"kind":"sum","rows":2`, `"kind":"sum","rows":3`, "it holds 2 rows, and says that it has 3"},
		{`"kind":"sum"`, `"kind":"end"`, `a frame "end" is where there should be none`},
	} {
		require.Contains(t, text, c.from)
		_, err := e.Restore(t.Context(), target.Member, strings.NewReader(strings.Replace(text, c.from, c.to, 1)), nil, nil)
		require.ErrorContains(t, err, c.want)
		st := observe(t, e, target)
		require.True(t, st.Empty && !st.Imported, "%s: %+v", c.to, st)
	}
	_, err = e.Restore(t.Context(), source.Member, strings.NewReader(text), nil, nil)
	require.ErrorIs(t, err, replication.ErrUnsafe)
	_, err = e.Restore(t.Context(), target.Member, strings.NewReader(text), nil, nil)
	require.NoError(t, err)
	require.Equal(t, checksums(t, source), checksums(t, target))
}

// A definition that changes in the middle of a backup is noticed, and so is a table without transactions that is written to.
func TestBackupNoticesWhatItCannotCopy(t *testing.T) {
	nodes := start(t, 1)
	source := nodes[0]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), source.Member, false))
	db := source.admin(t)
	exec(t, db, "CREATE SCHEMA app", "CREATE TABLE app.a (i INT PRIMARY KEY)", "INSERT INTO app.a VALUES (1)",
		"CREATE TABLE app.m (i INT) ENGINE=MyISAM", "INSERT INTO app.m VALUES (1)")
	for text, statement := range map[string]string{
		"definitions on the source changed during the copy": "CREATE TABLE app.later (i INT)",
		"table app.m: it has been written to during":        "INSERT INTO app.m VALUES (2)",
	} {
		_, err := e.Backup(t.Context(), source.Member, &bytes.Buffer{}, during("app.a", func() { exec(t, db, statement) }))
		require.ErrorContains(t, err, text)
		exec(t, db, "DROP TABLE IF EXISTS app.later")
	}
	quick := config
	quick.Timeout = time.Second
	_, err := engine(t, quick, source).Backup(t.Context(), source.Member, &bytes.Buffer{}, during("app.a", func() {
		require.NoError(t, source.Hang(t.Context()))
	}))
	require.ErrorIs(t, err, replication.ErrHung)
	require.NoError(t, source.Resume(t.Context()))
}

// A set is backed up by its Manager from a replica, all of its servers are lost, and a new set gets the newest backup: the drill
// of a backup is the same, on servers that are there for nothing else.
func TestBackupOfASetThatIsLost(t *testing.T) {
	dir := t.TempDir()
	nodes := start(t, 2)
	e := engine(t, config, nodes...)
	events := make(chan scalr.Event, 1000)
	manage := func(c replication.Config, nodes ...*node) (stop func(), m *replication.Manager) {
		c.Engine, c.Name = e, "shop/db"
		c.Events = func(e scalr.Event) { events <- e }
		m, err := replication.New(c)
		require.NoError(t, err)
		var members []replication.Member
		for _, n := range nodes {
			members = append(members, n.Member)
		}
		m.SetMembers(members, len(members))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); m.Run(ctx) }()
		return func() { cancel(); <-done }, m
	}
	await := func(kind scalr.Kind) scalr.Event {
		deadline := time.After(time.Minute)
		for {
			select {
			case e := <-events:
				if e.Kind == kind {
					return e
				}
			case <-deadline:
				t.Fatalf("waited in vain for the event %s", kind)
			}
		}
	}
	stop, m := manage(replication.Config{Backups: &replication.Backups{Dir: dir, Every: time.Second, Keep: 2}}, nodes...)
	within(t, "there is a primary", func() bool { top, _ := m.Topology(); return top.Primary != "" })
	top, _ := m.Topology()
	primary := nodes[0]
	if top.Primary == nodes[1].Member.ID {
		primary = nodes[1]
	}
	exec(t, primary.app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1),(2),(3)")
	want, at := checksums(t, primary), observe(t, e, primary).Applied
	await(replication.KindBackupTaken)
	var taken scalr.Event
	within(t, "a backup has all of it", func() bool {
		taken = await(replication.KindBackupTaken)
		return e.Compare(replication.Position(taken.Attrs["position"]), at) == replication.Equal
	})
	require.NotEqual(t, primary.Member.ID, taken.Subject, "the primary was not spared")
	require.Equal(t, dir, filepath.Dir(taken.Attrs["file"]))
	await(replication.KindBackupRemoved)
	stop()
	for _, n := range nodes {
		require.NoError(t, n.Kill(t.Context()))
		require.NoError(t, e.Close(n.Member))
	}

	fresh := start(t, 1)[0]
	defer e.Close(fresh.Member)
	stop, m = manage(replication.Config{Origin: &replication.Origin{
		Backup: func(context.Context) (string, error) { return replication.LatestBackup(dir, "shop/db") },
		Scrub: func(ctx context.Context, m replication.Member) error {
			db, err := connect(config.User, config.Password, m.Addr)
			if err != nil {
				return err
			}
			defer db.Close()
			_, err = db.ExecContext(ctx, "ALTER USER "+appUser+"@'%' IDENTIFIED BY '"+appPassword+"' ACCOUNT UNLOCK")
			return err
		},
	}}, fresh)
	restored := await(replication.KindImported)
	require.Equal(t, string(at), restored.Attrs["position"])
	within(t, "the new set has a primary", func() bool { top, _ := m.Topology(); return top.Primary != "" })
	require.Equal(t, want, checksums(t, fresh))
	exec(t, fresh.app(t), "INSERT INTO app.t VALUES (4)")
	stop()
}
