package mysql_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

func TestSeedCopiesEverything(t *testing.T) {
	e, source, target := seeded(t)
	// Accounts and data that the target alone has go.
	exec(t, target.admin(t), "SET sql_log_bin=0; CREATE USER stale@'%' IDENTIFIED BY 's'; CREATE ROLE stale_role; CREATE SCHEMA stale; "+
		"GRANT SELECT ON *.* TO PUBLIC")
	before := observe(t, e, source)
	var steps []replication.Progress
	at, err := e.Seed(t.Context(), target.Member, source.Member, func(p replication.Progress) { steps = append(steps, p) })
	require.NoError(t, err)
	require.Equal(t, before.Applied, at)
	require.Equal(t, before.Applied, observe(t, e, source).Applied, "the source was written to")
	require.Equal(t, checksums(t, source), checksums(t, target))
	st := observe(t, e, target)
	require.True(t, !st.Empty && !st.Writable && st.Source == "" && st.Applied == at, "%+v", st)
	require.Equal(t, "0", one(t, target.admin(t), "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('scalr_seeding','stale')"))
	require.Equal(t, one(t, source.admin(t), "SELECT @@global.max_allowed_packet"), one(t, target.admin(t), "SELECT @@global.max_allowed_packet"))
	for _, query := range []string{
		"SELECT GROUP_CONCAT(user, '@', host, is_role, default_role ORDER BY 1) FROM mysql.user",
		"SELECT GROUP_CONCAT(user, host, JSON_VALUE(priv,'$.access'), JSON_VALUE(priv,'$.authentication_string') ORDER BY 1) FROM mysql.global_priv WHERE user<>'root'",
		"SELECT GROUP_CONCAT(user, host, role, admin_option ORDER BY 1) FROM mysql.roles_mapping WHERE user NOT IN ('scalr','root')",
		"SELECT GROUP_CONCAT(routine_name, character_set_client, collation_connection, sql_mode, HEX(routine_definition) ORDER BY 1) FROM information_schema.routines WHERE routine_schema='app'",
		"SELECT GROUP_CONCAT(trigger_name, action_order, HEX(action_statement), definer ORDER BY 1) FROM information_schema.triggers",
		"SELECT COUNT(*) FROM app.versioned FOR SYSTEM_TIME ALL",
		"SELECT GROUP_CONCAT(ROW_START, ROW_END, v ORDER BY 1) FROM app.versioned FOR SYSTEM_TIME ALL",
		"SELECT GROUP_CONCAT(next_not_cached_value) FROM app.seq",
		"SELECT HEX(umlaut) FROM app.latin",
	} {
		require.Equal(t, one(t, source.admin(t), query), one(t, target.admin(t), query), query)
	}
	require.Equal(t, "SLAVESIDE_DISABLED", one(t, target.admin(t), "SELECT status FROM mysql.event WHERE name='ev'"))
	require.NotEmpty(t, steps)
	last := steps[len(steps)-1]
	require.True(t, last.Unit == "rows" && last.Done > 30 && last.Done <= last.Total, "%+v", last)

	// It goes on as a replica, and applications use it after a promotion.
	require.NoError(t, e.Follow(t.Context(), target.Member, source.Member))
	exec(t, source.db(t, `we'ird us\er`, `p'w\d ü`, ""), "INSERT INTO app.log (v) VALUES ('more')")
	exec(t, source.admin(t), "INSERT INTO app.nothing VALUES (1)", "INSERT INTO app.seqd (v) VALUES (3)",
		"ALTER USER roled@'%' IDENTIFIED BY 'r2'", "DROP VIEW app.latin", "DROP EVENT app.ev", "INSERT INTO app.types (la) VALUES ('x')")
	caughtUp(t, e, target, source)
	require.Equal(t, checksums(t, source), checksums(t, target))
	require.NoError(t, source.Kill(t.Context()))
	_, err = e.Drain(t.Context(), target.Member)
	require.NoError(t, err)
	require.NoError(t, e.Promote(t.Context(), target.Member, false))
	exec(t, target.db(t, `we'ird us\er`, `p'w\d ü`, ""), "INSERT INTO app.log (v) VALUES ('after')")
	exec(t, target.db(t, "roled", "r2", ""), "INSERT INTO app.log (v) VALUES ('by role')", "SELECT * FROM app.nothing")
	require.Equal(t, "42", one(t, target.admin(t), "SELECT app.pack.f()"))
}

// Rows larger than either server's max_allowed_packet once escaped, and many of them.
func TestSeedBigRows(t *testing.T) {
	nodes := start(t, 2)
	source, target := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), source.Member, false))
	exec(t, source.admin(t), "CREATE SCHEMA app", "CREATE TABLE app.b (i INT PRIMARY KEY AUTO_INCREMENT, b LONGBLOB)",
		"SET GLOBAL max_allowed_packet=67108864")
	db := source.admin(t)
	quotes := strings.Repeat(`\'`, 14<<20) // each character is escaped in a statement
	_, err := db.Exec("INSERT INTO app.b (b) VALUES (REPEAT('\\'', 15000000)), (REPEAT(CHAR(0), 20000000))")
	require.NoError(t, err)
	_, err = db.Exec("INSERT INTO app.b (b) VALUES ('" + quotes + "')")
	require.NoError(t, err)
	random := make([]byte, 3<<20)
	r := rand.NewChaCha8([32]byte{1})
	for range 3 {
		r.Read(random)
		_, err = db.Exec(fmt.Sprintf("INSERT INTO app.b (b) VALUES (x'%x')", random))
		require.NoError(t, err)
	}
	require.Equal(t, "16777216", one(t, target.admin(t), "SELECT @@global.max_allowed_packet"))
	_, err = e.Seed(t.Context(), target.Member, source.Member, nil)
	require.NoError(t, err)
	require.Equal(t, checksums(t, source), checksums(t, target))
}

// A commit that waits for a replica is in the source's binary log and not in its tables: the copy does not have it, and its
// position must not say so.
func TestSeedWhileACommitWaits(t *testing.T) {
	nodes := start(t, 2)
	source, target := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), source.Member, false))
	exec(t, source.app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT)")
	for _, table := range []string{"a", "b", "c"} {
		exec(t, source.app(t), "CREATE TABLE app."+table+" (i INT)", "INSERT INTO app."+table+" VALUES (1)")
	}
	require.NoError(t, e.SetSemiSync(t.Context(), source.Member, true))
	acked := make(chan error, 1)
	app, db := source.app(t), source.admin(t)
	go func() {
		_, err := app.ExecContext(context.Background(), "INSERT INTO app.t VALUES (1)")
		acked <- err
	}()
	within(t, "the commit waits", func() bool {
		return one(t, source.admin(t), "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for semi-sync ACK%'") == "1"
	})
	at, err := e.Seed(t.Context(), target.Member, source.Member, during("", func() {
		within(t, "it has as many snapshots as tables", func() bool { return snapshots(t, db, config.User) == "4" })
	}))
	require.NoError(t, err)
	require.Equal(t, "0", one(t, target.admin(t), "SELECT COUNT(*) FROM app.t"))
	require.Equal(t, replication.Behind, e.Compare(at, observe(t, e, source).Applied))
	require.NoError(t, e.Follow(t.Context(), target.Member, source.Member))
	require.NoError(t, <-acked)
	caughtUp(t, e, target, source)
	require.Equal(t, "1", one(t, target.admin(t), "SELECT COUNT(*) FROM app.t"))
}

// Wherever it breaks off, the target is empty for everybody, and the next seed makes it whole.
func TestSeedThatBreaksOff(t *testing.T) {
	e, source, target := seeded(t)
	want := checksums(t, source)
	broke := 0
	for budget := 1; ; budget += 1 + budget/4 {
		c := config
		var left atomic.Int64
		left.Store(int64(budget))
		c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != target.Addr {
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			}
			return limited(&left)(ctx, network, addr)
		}
		broken := engine(t, c, source, target)
		_, err := broken.Seed(t.Context(), target.Member, source.Member, nil)
		require.NoError(t, broken.Close(target.Member))
		require.NoError(t, broken.Close(source.Member))
		st := observe(t, e, target)
		if err == nil {
			break
		}
		broke++
		require.True(t, st.Empty && !st.Writable && st.Source == "" && st.Applied == "", "after %d statements: %+v (%v)", budget, st, err)
		if one(t, target.admin(t), "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='scalr_seeding'") == "1" {
			require.ErrorIs(t, e.Promote(t.Context(), target.Member, false), replication.ErrUnsafe)
			require.ErrorContains(t, e.Follow(t.Context(), target.Member, source.Member), "seed it again")
		}
		if broke%5 == 0 {
			require.NoError(t, target.Kill(t.Context()))
			require.NoError(t, target.Start(t.Context()))
			require.True(t, observe(t, e, target).Empty)
		}
	}
	require.Greater(t, broke, 15)
	require.Equal(t, want, checksums(t, target))
	require.NoError(t, e.Follow(t.Context(), target.Member, source.Member))
	caughtUp(t, e, target, source)
}

// A member that had data keeps all of it or is Empty: there is no time at which half of the old data looks whole.
func TestSeedOverDataThatBreaksOff(t *testing.T) {
	e, source, target := seeded(t)
	_, err := e.Seed(t.Context(), target.Member, source.Member, nil)
	require.NoError(t, err)
	want, at := checksums(t, target), observe(t, e, target).Applied
	whole, empty := 0, 0
	for budget := 1; ; budget++ {
		c := config
		var left atomic.Int64
		left.Store(int64(budget))
		c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != target.Addr {
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			}
			return limited(&left)(ctx, network, addr)
		}
		broken := engine(t, c, source, target)
		_, err := broken.Seed(t.Context(), target.Member, source.Member, nil)
		require.Error(t, err)
		require.NoError(t, broken.Close(target.Member))
		require.NoError(t, broken.Close(source.Member))
		if st := observe(t, e, target); st.Empty {
			require.Empty(t, st.Applied)
			if empty++; empty == 12 {
				break
			}
			continue
		}
		require.Zero(t, empty)
		whole++
		require.Equal(t, at, observe(t, e, target).Applied)
		require.Equal(t, want, checksums(t, target), "after %d statements", budget)
	}
	require.NotZero(t, whole)
}

func TestSeedRefuses(t *testing.T) {
	nodes := start(t, 2)
	a, b := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), a.Member, false))
	exec(t, a.app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT)")
	before := observe(t, e, a)
	refused := func(m, source *node, text string, kind error) {
		t.Helper()
		_, err := e.Seed(t.Context(), m.Member, source.Member, nil)
		require.ErrorContains(t, err, text)
		if kind != nil {
			require.ErrorIs(t, err, kind)
		}
		after := observe(t, e, a)
		after.Uptime = before.Uptime
		require.Equal(t, before, after)
		require.Equal(t, "0", one(t, m.admin(t), "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='scalr_seeding'"))
	}
	refused(a, a, "it cannot be its own source", nil)
	refused(a, b, "it takes writes: fence it first", replication.ErrUnsafe)
	twin := start(t, 1, "server_id = "+one(t, a.admin(t), "SELECT @@server_id"))[0]
	defer e.Close(twin.Member)
	refused(twin, a, "have the same server_id", nil)
	require.NoError(t, e.Follow(t.Context(), b.Member, a.Member))
	require.NoError(t, e.Fence(t.Context(), a.Member))
	before = observe(t, e, a)
	refused(a, b, "the source db-2 follows it", replication.ErrUnsafe)
}

// during runs something once, when rows of the table have been copied and not compared yet: of whichever table is the first,
// if none is named. Tables that are being copied too have rows by then or get none, and are not compared yet either.
func during(table string, do func()) func(replication.Progress) {
	done := false
	return func(p replication.Progress) {
		if (p.What == table || table == "" && p.Done > 0) && !done {
			done = true
			do()
		}
	}
}

func TestSeedNoticesWhatItCannotCopy(t *testing.T) {
	nodes := start(t, 2)
	source, target := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), source.Member, false))
	db := source.admin(t)
	exec(t, db, "CREATE SCHEMA app", "CREATE TABLE app.m (i INT) ENGINE=MyISAM", "INSERT INTO app.m VALUES (1)")
	for _, table := range []string{"a", "b", "c", "d", "z"} { // z is begun when one of the others has been compared
		exec(t, db, "CREATE TABLE app."+table+" (i INT PRIMARY KEY)", "INSERT INTO app."+table+" VALUES (1)")
	}
	fails := func(table string, do func(), text string) {
		t.Helper()
		_, err := e.Seed(t.Context(), target.Member, source.Member, during(table, do))
		require.ErrorContains(t, err, text)
		require.True(t, observe(t, e, target).Empty)
	}
	fails("app.a", func() { exec(t, db, "CREATE TABLE app.later (i INT)") }, "definitions on the source changed during the copy: seed it again: table app.later is new")
	exec(t, db, "DROP TABLE app.later")
	fails("app.a", func() { exec(t, db, "CREATE USER new@'%' IDENTIFIED BY 'n'") }, "account `new`@`%`")
	fails("comparing", func() { exec(t, db, "ALTER TABLE app.a ADD j INT") }, "table app.a has another definition")
	fails("", func() { exec(t, db, "ALTER TABLE app.z ADD j INT") }, "table app.z")
	fails("", func() { exec(t, db, "INSERT INTO app.m VALUES (2)") }, "table app.m: it has been written to during the copy, and its engine MyISAM has no transactions")
	fails("app.a", func() {
		exec(t, target.admin(t), "SET sql_log_bin=0; UPDATE app.a SET i=5")
	}, "table app.a: the copy has the checksum")
	fails("app.a", func() {
		exec(t, target.admin(t), "SET sql_log_bin=0; INSERT INTO app.a (i) VALUES (5)")
	}, "table app.a: the copy has 2 rows, the source 1")
	fails("comparing", func() {
		exec(t, target.admin(t), "SET sql_log_bin=0; ALTER TABLE app.a COMMENT 'x'")
	}, "the copy is not equal: table app.a has another definition")
	_, err := e.Seed(t.Context(), target.Member, source.Member, during("app.a", func() { // rows may come and go
		exec(t, db, "INSERT INTO app.z (i) VALUES (2)", "INSERT INTO app.a (i) VALUES (2)")
	}))
	require.NoError(t, err)
	require.Equal(t, "1", one(t, target.admin(t), "SELECT COUNT(*) FROM app.z"), "the snapshot is of one instant")
	require.NoError(t, e.Follow(t.Context(), target.Member, source.Member))
	caughtUp(t, e, target, source)
	require.Equal(t, checksums(t, source), checksums(t, target))

	exec(t, db, "SET sql_mode=''; CREATE VIEW app.v AS SELECT * FROM app.z", "DROP TABLE app.z")
	require.NoError(t, e.Fence(t.Context(), target.Member))
	_, err = e.Seed(t.Context(), target.Member, source.Member, nil)
	require.ErrorContains(t, err, "view app.v")
	require.ErrorContains(t, err, "drop or repair it on the source")
}

// A server that hangs in the middle ends the seed without a deadline of the caller's.
func TestSeedNoticesAHungServer(t *testing.T) {
	for _, which := range []string{"source", "target"} {
		t.Run(which, func(t *testing.T) {
			e, source, target := seeded(t)
			hung := map[string]*node{"source": source, "target": target}[which]
			quick := config
			quick.Timeout = time.Second
			_, err := engine(t, quick, source, target).Seed(t.Context(), target.Member, source.Member, during("app.types", func() {
				require.NoError(t, hung.Hang(t.Context()))
			}))
			require.ErrorIs(t, err, replication.ErrHung)
			require.ErrorContains(t, err, hung.Addr)
			require.NoError(t, hung.Resume(t.Context()))
			within(t, "the target is empty", func() bool { return observe(t, e, target).Empty })
			_, err = e.Seed(t.Context(), target.Member, source.Member, nil)
			require.NoError(t, err)
		})
	}
}
