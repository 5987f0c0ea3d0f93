package mysql

import "strings"

// ServerConfMySQL8 is [ServerConf] for MySQL. It loads the plugins for semi-synchronous replication and for cloning, by which
// members are seeded. A server that clones ends and has to be started again: run it under systemd or mysqld_safe.
//
// Relay logs are kept when the server starts (relay_log_recovery), until Drain or Follow has applied them.
func ServerConfMySQL8(s Server) string {
	return s.head() + `# A server that starts takes no writes and does nothing by itself.
read_only = ON
super_read_only = ON
skip_replica_start = ON
# Any member can be the primary, and any can follow it.
log_bin = binlog
relay_log = relay
relay_log_recovery = OFF
log_replica_updates = ON
binlog_format = ROW
gtid_mode = ON
enforce_gtid_consistency = ON
# What was acknowledged is on disk.
sync_binlog = 1
innodb_flush_log_at_trx_commit = 1
# A source that is silent for so many seconds is lost.
replica_net_timeout = 4
# Replicas acknowledge; waiting for them is switched on when a primary is promoted.
plugin_load_add = semisync_source.so
plugin_load_add = semisync_replica.so
plugin_load_add = mysql_clone.so
rpl_semi_sync_replica_enabled = ON
rpl_semi_sync_source_wait_point = AFTER_SYNC
` + s.tail()
}

// BootstrapSQLMySQL8 is [BootstrapSQL] for MySQL: the engine's account and the members'. Accounts that are there already stay as
// they are, also root's, which mysqld --initialize-insecure leaves without a password.
//
// The result holds the passwords.
func BootstrapSQLMySQL8(c Config) string {
	admin := account(c.User, "%")
	statements := append([]string{
		"SET SESSION sql_log_bin = 0",
		"CREATE USER IF NOT EXISTS " + admin + " IDENTIFIED BY " + quote(c.Password),
		"GRANT ALL PRIVILEGES ON *.* TO " + admin + " WITH GRANT OPTION",
	}, replicationUserSQL8(c)...)
	return strings.Join(statements, ";\n") + ";\n"
}

// replicationUserSQL8 makes the account that members use on each other, to follow and to clone.
func replicationUserSQL8(c Config) []string {
	user := account(c.ReplicationUser, "%")
	return []string{
		"CREATE USER IF NOT EXISTS " + user + " IDENTIFIED BY " + quote(c.ReplicationPassword),
		"GRANT REPLICATION SLAVE, BACKUP_ADMIN ON *.* TO " + user,
	}
}
