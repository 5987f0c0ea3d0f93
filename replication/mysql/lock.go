package mysql

import "strings"

const (
	// setName is the table whose comment says which set's the data of a member is. (A comment can be asked for with the status,
	// also where there is no such table.) It is in no binary log: replicas have their own.
	setName = "scalr_set"
	// foreign is the table, of the schema marker, that says that the data is another set's, whole and as it was found but for
	// the accounts. Adopt keeps the data's position in it. In the schema mysql it is a lock that is not complete.
	foreign = "scalr_foreign"
)

// lockSQL gives the statements that lock data that is not the set's. A server runs them before it takes its first connection,
// and each start until they have succeeded; where one of them fails it ends, since a server goes on after an init_file that
// does not. All of them are one line.
func lockSQL(c Config) []string {
	if c.Set == "" {
		return nil
	}
	set, held, part := name("mysql", setName), name("mysql", foreign), name(marker, foreign)
	has := func(table string) string {
		schema, table, _ := strings.Cut(strings.ReplaceAll(table, "`", ""), ".")
		return "EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = " + quote(schema) + " AND table_name = " + quote(table) + ")"
	}
	seeding := "EXISTS (SELECT 1 FROM information_schema.schemata WHERE schema_name = " + quote(marker) + ")"
	return []string{"BEGIN NOT ATOMIC DECLARE EXIT HANDLER FOR SQLEXCEPTION SHUTDOWN; " +
		"IF NOT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = 'mysql' AND table_name = " + quote(setName) +
		" AND BINARY table_comment = " + quote(c.Set) + ") THEN " +
		strings.Join(lockAccounts(c), "; ") + "; " +
		"CREATE OR REPLACE USER " + account(c.User, "%") + " IDENTIFIED BY " + quote(c.Password) + "; " +
		"CREATE OR REPLACE USER " + account(c.ReplicationUser, "%") + " IDENTIFIED BY " + quote(c.ReplicationPassword) + "; " +
		"RESET SLAVE ALL; " +
		"UPDATE mysql.event SET status = 'SLAVESIDE_DISABLED' WHERE status = 'ENABLED'; " +
		"IF @@global.event_scheduler = 'ON' THEN SET GLOBAL event_scheduler = OFF; END IF; " +
		"DROP TABLE IF EXISTS " + claimed + ", " + recorded + ", " + name("mysql", imported) + "; " +
		// A schema without a table beside it is a copy that was not complete when the volume was.
		"IF NOT " + seeding + " AND (EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema NOT IN " + systemSchemas + ")" +
		" OR @@global.gtid_binlog_state <> '' OR @@global.gtid_slave_pos <> '') THEN " +
		"CREATE TABLE IF NOT EXISTS " + held + " (position TEXT CHARACTER SET ascii NOT NULL) ENGINE=InnoDB; END IF; " +
		"IF " + has(held) + " THEN CREATE SCHEMA IF NOT EXISTS " + name(marker) + "; RENAME TABLE " + held + " TO " + part + "; END IF; " +
		"CREATE TABLE IF NOT EXISTS " + set + " (one TINYINT) ENGINE=InnoDB; ALTER TABLE " + set + " COMMENT = " + quote(c.Set) + "; " +
		"END IF; END"}
}

// lockAccounts gives the statements after which nobody can log in but the engine, replicas with the set's password, and the
// system users of the machine itself. The accounts stay, with their privileges, for what runs as them. Connections that
// others' servers are to be reached by are forgotten.
func lockAccounts(c Config) []string {
	own := "User IN (" + quote(c.User) + "," + quote(c.ReplicationUser) + ")"
	const system = "Host = 'localhost' AND User IN ('root','mysql')"
	return []string{
		"DELETE FROM mysql.global_priv WHERE User = '' OR " + own + " AND Host <> '%'",
		"UPDATE mysql.global_priv SET Priv = JSON_MERGE_PATCH(Priv, '" +
			`{"plugin":"mysql_native_password","authentication_string":"invalid","auth_or":null,"account_locked":true}` + "') " +
			"WHERE NOT (" + own + " OR " + system + " OR Host = '') AND JSON_VALUE(Priv, '$.is_role') IS NULL",
		"UPDATE mysql.global_priv SET Priv = JSON_MERGE_PATCH(Priv, '" +
			`{"plugin":"unix_socket","authentication_string":"","auth_or":null}` + "') WHERE " + system,
		"DELETE FROM mysql.proxies_priv WHERE NOT (" + system + ")",
		"DELETE FROM mysql.servers",
		"FLUSH PRIVILEGES",
	}
}
