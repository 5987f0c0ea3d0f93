package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// everything is a database that has everything that a copy could get wrong.
var everything = []string{
	"CREATE SCHEMA app COLLATE utf8mb4_unicode_ci",
	"CREATE SCHEMA `we``ird näme` CHARACTER SET latin1",
	"CREATE SCHEMA empty_one COMMENT 'it''s empty'",
	"CREATE SEQUENCE app.seq START WITH 100 INCREMENT BY 7 CACHE 10",
	"SELECT NEXTVAL(app.seq), NEXTVAL(app.seq)",
	`CREATE TABLE app.types (
		id INT PRIMARY KEY AUTO_INCREMENT, ti TINYINT, sm SMALLINT, me MEDIUMINT, bi BIGINT, bu BIGINT UNSIGNED ZEROFILL,
		de DECIMAL(65,30), fl FLOAT, fd FLOAT(9,3), db DOUBLE, dd DOUBLE(20,5), b1 BIT(1), b64 BIT(64), ye YEAR,
		da DATE, ti6 TIME(6), dt DATETIME(6), ts TIMESTAMP(6) NULL, ch CHAR(10), vc VARCHAR(50), bn BINARY(8), vb VARBINARY(600),
		tt TINYTEXT, mt MEDIUMTEXT, lb LONGBLOB, js JSON, en ENUM('a','','ü'), se SET('x','y','z'), uu UUID, i6 INET6, i4 INET4,
		ge GEOMETRY, po POINT, la VARCHAR(100) CHARACTER SET latin1, u16 VARCHAR(100) CHARACTER SET utf16, u32 VARCHAR(20) CHARACTER SET utf32,
		sj VARCHAR(100) CHARACTER SET sjis, co TEXT COMPRESSED, bo BOOLEAN
	) COMMENT 'quotes '' and \\ and "'`,
	`INSERT INTO app.types (id) VALUES (NULL)`,
	`INSERT INTO app.types VALUES (0, -128, -32768, -8388608, -9223372036854775808, 18446744073709551615,
		-12345678901234567890123456789012345.123456789012345678901234567890, 16777217, 123456.789, 1.7976931348623157e308, 123456789012345.12345,
		b'1', 0x8000000000000001, 1901, '0000-00-00', '-838:59:59.999999', '0000-00-00 00:00:00', '0000-00-00 00:00:00', 'trail  ', 'trail  ',
		'a\0b', CONCAT('\0\n\r\\''"\Z', 0xFFFE), '', REPEAT('é☃😀', 1000), 0x00FF27, '{"a": "\\u00e9"}', 'ü', 'x,z',
		'123e4567-e89b-12d3-a456-426655440000', '2001:db8::1', '192.168.1.1', ST_GeomFromText('LINESTRING(0 0,1 1)', 4326), POINT(1.5, -2.5),
		'äöü€', 'ä😀', 'x😀', 'ソ表能', REPEAT('compress me ', 100), TRUE)`,
	`INSERT INTO app.types (fl, db, dd, en, se, ye, ts, dt, da) VALUES (0.1, -0.0, -0.0, '', '', 0, '1970-01-01 00:00:01', '9999-12-31 23:59:59.999999', '2024-02-30'),
		(1.17549e-38, 2.2250738585072014e-308, 1, 'nonsense', 'nonsense', 2155, '2037-10-25 01:30:00.123456', '2024-00-00', '2024-02-00'),
		(3.40282e38, 0.1, 1, 1, 7, 1970, '2024-03-31 01:30:00', '1000-01-01', '1000-01-01')`,
	"CREATE TABLE app.`tab``le ünï` (`col``umn ☃` INT, `select` VARCHAR(10))",
	"INSERT INTO app.`tab``le ünï` VALUES (1,'x'),(1,'x'),(NULL,NULL)",
	"CREATE TABLE `we``ird näme`.l (v VARCHAR(10), KEY (v)) ENGINE=InnoDB",
	"INSERT INTO `we``ird näme`.l VALUES ('é'),('ß')",
	`CREATE TABLE app.gen (a INT, inv INT INVISIBLE DEFAULT 5, v INT AS (a*2) VIRTUAL, s VARCHAR(20) AS (CONCAT('s',a)) PERSISTENT,
		UNIQUE KEY (v), KEY (s), CHECK (a < 100))`,
	"INSERT INTO app.gen (a, inv) VALUES (1, 1), (2, NULL), (NULL, 3)",
	"SET check_constraint_checks=0; INSERT INTO app.gen (a) VALUES (1000)",
	"SET foreign_key_checks=0; CREATE TABLE app.fk1 (id INT PRIMARY KEY, r INT, CONSTRAINT f1 FOREIGN KEY (r) REFERENCES fk2 (id)); " +
		"CREATE TABLE app.fk2 (id INT PRIMARY KEY, r INT, FOREIGN KEY (r) REFERENCES fk1 (id) ON DELETE CASCADE, FOREIGN KEY (id) REFERENCES fk2 (id))",
	"SET foreign_key_checks=0; INSERT INTO app.fk1 VALUES (1, 2), (3, 4711); INSERT INTO app.fk2 VALUES (2, 1)",
	"CREATE TABLE app.parts (id INT, d DATE, PRIMARY KEY (id, d)) PARTITION BY RANGE (YEAR(d)) (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE)",
	"INSERT INTO app.parts VALUES (1,'1999-01-01'),(2,'2020-01-01')",
	"CREATE TABLE app.nothing (i INT)",
	"CREATE TABLE app.seqd (i INT DEFAULT (NEXT VALUE FOR app.seq) PRIMARY KEY, v INT)",
	"INSERT INTO app.seqd (v) VALUES (1),(2)",
	"CREATE TABLE app.aria (i INT PRIMARY KEY, v TEXT, FULLTEXT (v)) ENGINE=Aria", "INSERT INTO app.aria VALUES (1, 'words in it')",
	"CREATE TABLE app.myisam (i INT PRIMARY KEY) ENGINE=MyISAM ROW_FORMAT=FIXED", "INSERT INTO app.myisam VALUES (1)",
	"CREATE TABLE app.mem (i INT PRIMARY KEY) ENGINE=MEMORY", "INSERT INTO app.mem VALUES (1)",
	"CREATE TABLE app.versioned (i INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING",
	"INSERT INTO app.versioned VALUES (1,1),(2,1)", "UPDATE app.versioned SET v=2", "DELETE FROM app.versioned WHERE i=2",
	"CREATE TABLE app.versioned2 (i INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, " +
		"PERIOD FOR SYSTEM_TIME(s, e)) WITH SYSTEM VERSIONING",
	"INSERT INTO app.versioned2 (i) VALUES (1)", "UPDATE app.versioned2 SET i=2",
	"CREATE TABLE app.log (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100))",
	"INSERT INTO app.log (v) VALUES ('before')",
	"CREATE FUNCTION app.twice(a INT) RETURNS INT DETERMINISTIC RETURN a*2",
	"SET NAMES latin1; CREATE PROCEDURE app.old_charset(p VARCHAR(10)) COMMENT 'x' SELECT '\xe4\xf6\xfc', p, \"a\"; SET NAMES utf8mb4",
	"SET sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT'; CREATE PROCEDURE app.ansi() SELECT \"id\" || 'x' FROM \"app\".\"log\"; SET sql_mode=''",
	"SET sql_mode=ORACLE; CREATE PACKAGE app.pack AS FUNCTION f RETURN INT; END",
	"SET sql_mode=ORACLE; CREATE PACKAGE BODY app.pack AS FUNCTION f RETURN INT AS BEGIN RETURN 42; END; END",
	"CREATE VIEW app.a_view_of_views AS SELECT 1 AS x", "CREATE VIEW app.z_view AS SELECT id, app.twice(id) AS t FROM app.types",
	"CREATE OR REPLACE VIEW app.a_view_of_views AS SELECT * FROM app.z_view WHERE t > 2",
	"SET NAMES latin1; CREATE VIEW app.latin AS SELECT '\xe4' AS umlaut; SET NAMES utf8mb4",
	"CREATE TRIGGER app.t2 BEFORE INSERT ON app.nothing FOR EACH ROW INSERT INTO log (v) VALUES ('second')",
	"CREATE TRIGGER app.t1 BEFORE INSERT ON app.nothing FOR EACH ROW PRECEDES t2 INSERT INTO log (v) VALUES ('first ü')",
	"CREATE TRIGGER app.on_log BEFORE INSERT ON app.log FOR EACH ROW SET NEW.v = CONCAT(NEW.v, '!')",
	"CREATE EVENT app.ev ON SCHEDULE EVERY 1 DAY ENABLE COMMENT 'ON COMPLETION PRESERVE ENABLE' DO INSERT INTO log (v) VALUES ('ON COMPLETION NOT PRESERVE ENABLE')",
	"SET time_zone='+05:30'; CREATE EVENT app.once ON SCHEDULE AT '2037-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE DO SELECT 1; SET time_zone='+00:00'",
	// Accounts that applications need after a promotion.
	"CREATE USER 'we''ird us\\\\er'@'%' IDENTIFIED BY 'p''w\\\\d ü'", "GRANT SELECT, INSERT ON app.* TO 'we''ird us\\\\er'@'%'",
	"CREATE ROLE reader", "CREATE ROLE writer", "GRANT SELECT ON app.* TO reader", "GRANT reader TO writer", "GRANT INSERT ON app.log TO writer",
	"CREATE USER roled@'%' IDENTIFIED BY 'r'", "GRANT writer TO roled@'%' WITH ADMIN OPTION", "SET DEFAULT ROLE writer FOR roled@'%'",
	"CREATE USER fine@'127.0.0.1' IDENTIFIED BY 'f' REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 7 ACCOUNT LOCK",
	"GRANT SELECT (id), UPDATE (v) ON app.log TO fine@'127.0.0.1'", "GRANT EXECUTE ON FUNCTION app.twice TO fine@'127.0.0.1'",
	"CREATE USER expired@'%' IDENTIFIED BY 'e' PASSWORD EXPIRE", "GRANT SELECT ON app.* TO PUBLIC",
	"CREATE USER ''@'10.%' IDENTIFIED BY 'anonymous'",
}

// seeded runs a source with everything, and an empty target.
func seeded(t testing.TB, more ...string) (e *mysql.Engine, source, target *node) {
	t.Helper()
	nodes := start(t, 2, more...)
	e = engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), nodes[0].Member, false))
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = config.User, config.Password, "tcp", nodes[0].Addr
	c.MultiStatements = true
	c.Params = map[string]string{"sql_mode": "''", "time_zone": "'+00:00'"}
	for _, statement := range everything { // each in a session of its own
		connector, err := sqldriver.NewConnector(c)
		require.NoError(t, err)
		db := sql.OpenDB(connector)
		exec(t, db, statement)
		require.NoError(t, db.Close())
	}
	return e, nodes[0], nodes[1]
}

// checksums asks every table for its checksum.
func checksums(t testing.TB, n *node) map[string]string {
	t.Helper()
	db := n.admin(t)
	tables, err := db.Query("SELECT table_schema, table_name FROM information_schema.tables WHERE table_type <> 'VIEW' AND " +
		"table_schema NOT IN ('mysql','sys','information_schema','performance_schema')")
	require.NoError(t, err)
	defer tables.Close()
	sums := map[string]string{}
	for tables.Next() {
		var s, n, table string
		var sum sql.NullString
		require.NoError(t, tables.Scan(&s, &n))
		quoted := "`" + strings.ReplaceAll(s, "`", "``") + "`.`" + strings.ReplaceAll(n, "`", "``") + "`"
		require.NoError(t, db.QueryRow("CHECKSUM TABLE "+quoted+" EXTENDED").Scan(&table, &sum))
		require.NotEmpty(t, sum.String, quoted)
		sums[s+"."+n] = sum.String + ", rows " + one(t, db, "SELECT COUNT(*) FROM "+quoted)
	}
	require.NoError(t, tables.Err())
	return sums
}

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
	require.NoError(t, e.SetSemiSync(t.Context(), source.Member, true))
	acked := make(chan error, 1)
	app := source.app(t)
	go func() {
		_, err := app.ExecContext(context.Background(), "INSERT INTO app.t VALUES (1)")
		acked <- err
	}()
	within(t, "the commit waits", func() bool {
		return one(t, source.admin(t), "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for semi-sync ACK%'") == "1"
	})
	at, err := e.Seed(t.Context(), target.Member, source.Member, nil)
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

// during runs something once, when rows of the table have been copied and not compared yet.
func during(table string, do func()) func(replication.Progress) {
	done := false
	return func(p replication.Progress) {
		if p.What == table && !done {
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
	exec(t, db, "CREATE SCHEMA app", "CREATE TABLE app.a (i INT PRIMARY KEY)", "INSERT INTO app.a VALUES (1)",
		"CREATE TABLE app.m (i INT) ENGINE=MyISAM", "INSERT INTO app.m VALUES (1)", "CREATE TABLE app.z (i INT PRIMARY KEY)", "INSERT INTO app.z VALUES (1)")
	fails := func(table string, do func(), text string) {
		t.Helper()
		_, err := e.Seed(t.Context(), target.Member, source.Member, during(table, do))
		require.ErrorContains(t, err, text)
		require.True(t, observe(t, e, target).Empty)
	}
	fails("app.a", func() { exec(t, db, "CREATE TABLE app.later (i INT)") }, "definitions on the source changed during the copy: seed it again: table app.later is new")
	exec(t, db, "DROP TABLE app.later")
	fails("app.a", func() { exec(t, db, "CREATE USER new@'%' IDENTIFIED BY 'n'") }, "account `new`@`%`")
	fails("app.m", func() { exec(t, db, "ALTER TABLE app.a ADD j INT") }, "table app.a has another definition")
	fails("app.a", func() { exec(t, db, "ALTER TABLE app.z ADD j INT") }, "table app.z")
	fails("app.a", func() { exec(t, db, "INSERT INTO app.m VALUES (2)") }, "table app.m: it has been written to during the copy, and its engine MyISAM has no transactions")
	fails("app.a", func() {
		exec(t, target.admin(t), "SET sql_log_bin=0; UPDATE app.a SET i=5")
	}, "table app.a: the copy has the checksum")
	fails("app.a", func() {
		exec(t, target.admin(t), "SET sql_log_bin=0; INSERT INTO app.a (i) VALUES (5)")
	}, "table app.a: the copy has 2 rows, the source 1")
	fails("app.m", func() {
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

// Errors about accounts name them, and show neither password nor hash.
func TestSeedErrorsKeepHashes(t *testing.T) {
	nodes := start(t, 2)
	source, target := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), source.Member, false))
	exec(t, source.admin(t), "SET sql_log_bin=0; INSTALL SONAME 'auth_ed25519'; CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('hidden')")
	hash := one(t, source.admin(t), "SELECT JSON_VALUE(priv,'$.authentication_string') FROM mysql.global_priv WHERE user='ed'")
	require.NotEmpty(t, hash)
	_, err := e.Seed(t.Context(), target.Member, source.Member, nil)
	require.ErrorContains(t, err, "creating the account `ed`@`%`")
	require.ErrorContains(t, err, "not loaded")
	require.NotContains(t, err.Error(), hash)
}
