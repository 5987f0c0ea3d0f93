package mysql_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
	"github.com/scalr-go/scalr/replication/mysql"
)

// twinConfig is the accounts of another set.
var twinConfig = mysql.Config{User: "twin", Password: "twin-pass", ReplicationUser: "twin_repl", ReplicationPassword: "twin-repl-pass"}

// reader is an account on the source with the privileges that Import's doc names.
const reader, readerPassword = "cloner", "cloner-pass"

// apart gives a source with everything, and the engines of two sets: one whose account on the source can only read, and
// one with credentials that the source does not know, for a target that does not know the source's.
func apart(t *testing.T) (origin, e *mysql.Engine, source, target *node) {
	t.Helper()
	_, source, target = seeded(t)
	exec(t, source.admin(t), "CREATE USER "+reader+"@'%' IDENTIFIED BY '"+readerPassword+"'",
		"GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, BINLOG MONITOR, BINLOG ADMIN, REPLICA MONITOR ON *.* TO "+reader+"@'%'")
	c := config
	c.User, c.Password = reader, readerPassword
	bootstrap(t, target)
	return engine(t, c, source), engine(t, twinConfig, target), source, target
}

// bootstrap makes a server one of the twin's.
func bootstrap(t *testing.T, n *node) {
	t.Helper()
	for s := range strings.SplitSeq(strings.TrimRight(mysql.BootstrapSQL(twinConfig), ";\n"), ";\n") {
		exec(t, n.admin(t), "SET sql_log_bin = 0; "+s)
	}
}

func TestImportCopiesEverythingButPasswords(t *testing.T) {
	origin, e, source, target := apart(t)
	exec(t, target.admin(t), "SET sql_log_bin=0; CREATE ROLE stale_role; CREATE SCHEMA stale; GRANT SELECT ON *.* TO PUBLIC")
	before := observe(t, origin, source)
	var during []string
	at, err := e.Import(t.Context(), target.Member, origin, source.Member, func(ctx context.Context, m replication.Member) error {
		db := target.db(t, twinConfig.User, twinConfig.Password, "")
		during = append(during, one(t, db, opened))
		exec(t, db, "CREATE TABLE app.scrubbed (i INT)", "INSERT INTO app.scrubbed VALUES (1)", "DROP TABLE app.scrubbed")
		return nil
	}, nil)
	require.NoError(t, err)
	require.Equal(t, before.Applied, at)
	require.Equal(t, before.Applied, observe(t, origin, source).Applied, "the source was written to")
	require.Equal(t, []string{"twin,twin_repl"}, during)
	require.Equal(t, checksums(t, source), checksumsAs(t, target, twinConfig))
	db := target.db(t, twinConfig.User, twinConfig.Password, "")
	require.Equal(t, "twin,twin_repl", one(t, db, opened))
	hashes := "SELECT GROUP_CONCAT(JSON_VALUE(priv,'$.authentication_string') ORDER BY 1) FROM mysql.global_priv WHERE user <> 'root'"
	for hash := range strings.SplitSeq(one(t, source.admin(t), hashes), ",") {
		require.True(t, hash == "" || !strings.Contains(one(t, db, hashes), hash), "a password has been copied")
	}
	require.Equal(t, "0", one(t, db, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('scalr_seeding','stale')"))
	require.Equal(t, string(at), one(t, db, "SELECT position FROM mysql.scalr_imported"))
	require.Equal(t, "SLAVESIDE_DISABLED", one(t, db, "SELECT status FROM mysql.event WHERE name='ev'"))
	require.Equal(t, "42", one(t, db, "SELECT app.pack.f()"))
	for _, query := range []string{
		"SELECT GROUP_CONCAT(routine_name, character_set_client, collation_connection, sql_mode, HEX(routine_definition) ORDER BY 1) FROM information_schema.routines WHERE routine_schema='app'",
		"SELECT GROUP_CONCAT(trigger_name, action_order, HEX(action_statement), definer ORDER BY 1) FROM information_schema.triggers",
		"SELECT GROUP_CONCAT(user, host, JSON_VALUE(priv,'$.access') ORDER BY 1) FROM mysql.global_priv WHERE user NOT IN ('root','cloner','scalr','scalr_repl','twin','twin_repl')",
		"SELECT GROUP_CONCAT(user, host, role, admin_option ORDER BY 1) FROM mysql.roles_mapping WHERE user NOT IN ('root','scalr','twin')",
		"SELECT GROUP_CONCAT(ROW_START, ROW_END, v ORDER BY 1) FROM app.versioned FOR SYSTEM_TIME ALL",
	} {
		require.Equal(t, one(t, source.admin(t), query), one(t, db, query), query)
	}
	st := observe(t, e, target)
	require.True(t, st.Imported && !st.Empty && !st.Writable, "%+v", st)
	require.Equal(t, "0-"+st.Server+"-1", string(st.Applied))

	// Neither knows an account of the other's.
	for _, c := range []struct {
		n              *node
		user, password string
	}{{target, config.User, config.Password}, {target, appUser, appPassword}, {target, reader, readerPassword}, {target, "roled", "r"},
		{source, twinConfig.User, twinConfig.Password}, {source, twinConfig.ReplicationUser, twinConfig.ReplicationPassword}} {
		err := c.n.db(t, c.user, c.password, "").PingContext(t.Context())
		var refused *sqldriver.MySQLError
		require.ErrorAs(t, err, &refused, "%s on %s", c.user, c.n.Addr)
		require.Contains(t, []uint16{1045, 1698, 4151}, refused.Number, "%v", refused) // 4151: the account is locked
	}
	// And the origin's account on the source can change nothing there.
	for _, s := range []string{"INSERT INTO app.nothing VALUES (1)", "CREATE SCHEMA x", "DROP TABLE app.nothing", "SET GLOBAL read_only = 1", "STOP SLAVE"} {
		_, err := source.db(t, reader, readerPassword, "").ExecContext(t.Context(), s)
		require.ErrorContains(t, err, "denied", s)
	}

	exec(t, db, "ALTER USER roled@'%' IDENTIFIED BY 'another' ACCOUNT UNLOCK")
	exec(t, target.db(t, "roled", "another", ""), "SELECT * FROM app.nothing")

	// A replica of the twin's cannot begin at the beginning, since that is in no log: it has to be seeded.
	third := start(t, 1)[0]
	third.Member.ID = "db-3"
	bootstrap(t, third)
	require.NoError(t, e.Promote(t.Context(), target.Member, false))
	defer e.Close(third.Member)
	exec(t, db, "INSERT INTO app.nothing VALUES (7)")
	require.ErrorIs(t, e.Follow(t.Context(), third.Member, target.Member), replication.ErrDiverged)
	_, err = e.Seed(t.Context(), third.Member, target.Member, nil)
	require.NoError(t, err)
	require.NoError(t, e.Follow(t.Context(), third.Member, target.Member))
	exec(t, db, "INSERT INTO app.nothing VALUES (8)")
	caughtUp(t, e, third, target)
	require.Equal(t, checksumsAs(t, target, twinConfig), checksumsAs(t, third, twinConfig))
	require.Equal(t, "0", one(t, third.db(t, twinConfig.User, twinConfig.Password, ""), "SELECT COUNT(*) FROM information_schema.tables WHERE table_name='scalr_imported'"))
}

// Wherever it breaks off, the target is empty for everybody or has all of it, scrubbed; and the next import makes it whole.
func TestImportThatBreaksOff(t *testing.T) {
	origin, e, source, target := apart(t)
	want := checksums(t, source)
	scrubs := 0
	scrub := func(context.Context, replication.Member) error { scrubs++; return nil }
	const plenty = 1 << 30
	try := func(budget int64) (used int64, err error) {
		c := twinConfig
		var left atomic.Int64
		left.Store(budget)
		c.DialContext = limited(&left)
		broken := engine(t, c, target)
		scrubs = 0
		_, err = broken.Import(t.Context(), target.Member, origin, source.Member, scrub, nil)
		require.NoError(t, broken.Close(target.Member))
		return budget - left.Load(), err
	}
	_, err := try(plenty)
	require.NoError(t, err)
	all, err := try(plenty) // over what is there, as all that follow
	require.NoError(t, err)
	var budgets []int64
	for b := int64(1); b < all-9; b += 1 + b/2 {
		budgets = append(budgets, b)
	}
	for b := all - 9; b < all; b++ { // the end, and the scrub with it, statement by statement
		budgets = append(budgets, b)
	}
	broke, scrubbed := 0, 0
	for _, budget := range budgets {
		_, err := try(budget)
		if err == nil {
			continue // how often it waits is not always the same
		}
		broke++
		scrubbed += scrubs
		st := observe(t, e, target)
		if budget < 20 && st.Imported {
			continue // the first one is still there
		}
		require.True(t, st.Empty && !st.Imported && !st.Writable && st.Source == "" && st.Applied == "", "after %d statements: %+v (%v)", budget, st, err)
		if scrubs > 0 {
			require.ErrorIs(t, e.Promote(t.Context(), target.Member, false), replication.ErrUnsafe)
		}
		if broke%5 == 0 {
			require.NoError(t, target.Kill(t.Context()))
			require.NoError(t, target.Start(t.Context()))
			require.True(t, observe(t, e, target).Empty)
		}
	}
	require.Greater(t, broke, 12)
	require.Greater(t, scrubbed, 1)
	t.Logf("broke off %d times, %d of them after the scrub", broke, scrubbed)
	_, err = try(plenty)
	require.NoError(t, err)
	require.Equal(t, want, checksumsAs(t, target, twinConfig))
	require.True(t, observe(t, e, target).Imported)
	require.Equal(t, 1, scrubs)

	// A seed makes it one like any other.
	require.NoError(t, e.Promote(t.Context(), target.Member, false))
	third := start(t, 1)[0]
	third.Member.ID = "db-3"
	bootstrap(t, third)
	defer e.Close(third.Member)
	_, err = e.Seed(t.Context(), third.Member, target.Member, nil)
	require.NoError(t, err)
	require.NoError(t, e.Fence(t.Context(), target.Member))
	_, err = e.Seed(t.Context(), target.Member, third.Member, nil)
	require.NoError(t, err)
	require.False(t, observe(t, e, target).Imported)
}

func TestImportRefuses(t *testing.T) {
	nodes := start(t, 2)
	a, b := nodes[0], nodes[1]
	origin := engine(t, config, nodes...)
	bootstrap(t, b)
	e := engine(t, twinConfig, b)
	require.NoError(t, origin.Promote(t.Context(), a.Member, false))
	exec(t, a.app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT)")
	refused := func(m *node, other replication.Engine, source *node, text string, kind error) {
		t.Helper()
		_, err := e.Import(t.Context(), m.Member, other, source.Member, nil, nil)
		require.ErrorContains(t, err, text)
		if kind != nil {
			require.ErrorIs(t, err, kind)
		}
		require.Equal(t, "0", one(t, m.admin(t), "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='scalr_seeding'"))
	}
	refused(b, memdb.New(memdb.Options{}), a, "the origin's engine is *memdb.Cluster, want *mysql.Engine", nil)
	refused(b, origin, b, "it cannot be its own source", nil)
	same := start(t, 1, "server_id = "+one(t, a.admin(t), "SELECT @@server_id"))[0]
	bootstrap(t, same)
	defer e.Close(same.Member)
	refused(same, origin, a, "have the same server_id", nil)
	refused(b, engine(t, twinConfig, a), a, "wrong password, or no such account", replication.ErrAccess)
	for _, user := range []string{twinConfig.User, twinConfig.ReplicationUser} {
		exec(t, a.admin(t), "SET sql_log_bin = 0; CREATE USER "+user+"@'%' IDENTIFIED BY 'another'")
	}
	for user, password := range map[string]string{twinConfig.User: twinConfig.Password, twinConfig.ReplicationUser: twinConfig.ReplicationPassword} {
		exec(t, a.admin(t), "SET sql_log_bin = 0; SET PASSWORD FOR "+user+"@'%' = PASSWORD('"+password+"')")
		refused(b, origin, a, `the account "`+user+`" of this set is let in, with its password, by the source`, nil)
		exec(t, a.admin(t), "SET sql_log_bin = 0; ALTER USER "+user+"@'%' ACCOUNT LOCK")
	}
	require.NoError(t, e.Promote(t.Context(), b.Member, false))
	refused(b, origin, a, "it takes writes: fence it first", replication.ErrUnsafe)
}

// A source that hangs ends the import without a deadline of the caller's, and leaves the origin's own connections alone.
func TestImportNoticesAHungSource(t *testing.T) {
	_, e, source, target := apart(t)
	quick := config
	quick.Timeout = time.Second
	origin := engine(t, quick, source)
	_, err := e.Import(t.Context(), target.Member, origin, source.Member, nil, during("app.types", func() {
		require.NoError(t, source.Hang(t.Context()))
	}))
	require.ErrorIs(t, err, replication.ErrHung)
	require.ErrorContains(t, err, source.Addr)
	require.NoError(t, source.Resume(t.Context()))
	require.True(t, observe(t, e, target).Empty)
	_, err = e.Import(t.Context(), target.Member, engine(t, config, source), source.Member, nil, nil)
	require.NoError(t, err)
}
