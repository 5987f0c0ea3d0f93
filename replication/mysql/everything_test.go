package mysql_test

import (
	"database/sql"
	"strings"
	"testing"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

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
	fillWithEverything(t, nodes[0])
	return e, nodes[0], nodes[1]
}

func fillWithEverything(t testing.TB, n *node) {
	t.Helper()
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = config.User, config.Password, "tcp", n.Addr
	c.MultiStatements = true
	c.Params = map[string]string{"sql_mode": "''", "time_zone": "'+00:00'"}
	for _, statement := range everything { // each in a session of its own
		connector, err := sqldriver.NewConnector(c)
		require.NoError(t, err)
		db := sql.OpenDB(connector)
		exec(t, db, statement)
		require.NoError(t, db.Close())
	}
}

// checksums asks every table for its checksum.
func checksums(t testing.TB, n *node) map[string]string {
	t.Helper()
	return checksumsAs(t, n, config)
}

// checksumsAs is checksums with the administrator of another set.
func checksumsAs(t testing.TB, n *node, c mysql.Config) map[string]string {
	t.Helper()
	db := n.db(t, c.User, c.Password, "")
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
