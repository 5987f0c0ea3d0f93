package mysql

import (
	"fmt"
	"net/netip"
	"strings"
)

// Server says how one server is to run as a member. What is empty is left to the server's own defaults or to the
// rest of its configuration.
type Server struct {
	// ID is the server_id, distinct for every server that ever was in the set: a machine that replaces another one should
	// have one of its own. 0 takes it from Bind if that is an IPv4 address, as a number, which is distinct in a network.
	ID uint32
	// Bind is the address to listen on, and the name that the server goes by among replicas.
	Bind string
	Port int
	// DataDir, Socket, PidFile and ErrorLog are paths.
	DataDir, Socket, PidFile, ErrorLog string
	// RunAs is the system user.
	RunAs string
	// InitFile is the path of a file with SQL to run at each start, such as BootstrapSQL's.
	InitFile string
	// BufferPool is the size of InnoDB's buffer pool in bytes.
	BufferPool int64
	// More are further lines, such as "max_connections = 500". They win.
	More []string
}

// head gives what is of this server only.
func (s Server) head() string {
	var b strings.Builder
	b.WriteString("[mysqld]\n")
	set := func(variable, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s = %s\n", variable, optionValue(value))
		}
	}
	set("user", s.RunAs)
	set("datadir", s.DataDir)
	set("socket", s.Socket)
	set("pid_file", s.PidFile)
	set("log_error", s.ErrorLog)
	set("init_file", s.InitFile)
	set("bind_address", s.Bind)
	set("report_host", s.Bind)
	if s.Port != 0 {
		fmt.Fprintf(&b, "port = %d\nreport_port = %[1]d\n", s.Port)
	}
	if s.BufferPool != 0 {
		fmt.Fprintf(&b, "innodb_buffer_pool_size = %d\n", s.BufferPool)
	}
	if id := s.id(); id != 0 {
		fmt.Fprintf(&b, "server_id = %d\n", id)
	}
	return b.String()
}

// ServerConf gives the my.cnf of a member, which begins with [mysqld]. Values are quoted, so that any path may be used.
//
// Whatever becomes of the server, it starts read-only and with its replication threads stopped: a primary that comes back is
// no second primary, and a replica that comes back keeps its relay logs, which the start of a thread would delete, until
// Drain or Follow has applied them.
func ServerConf(s Server) string {
	return s.head() + `# A server that starts takes no writes and does nothing by itself.
read_only = ON
skip_slave_start = ON
# Any member can be the primary, and any can follow it.
log_bin = binlog
relay_log = relay
log_slave_updates = ON
binlog_format = ROW
gtid_strict_mode = ON
# What was acknowledged is on disk.
sync_binlog = 1
innodb_flush_log_at_trx_commit = 1
# A source that is silent for so many seconds is lost; a replica never gives up on one.
slave_net_timeout = 4
master_retry_count = 0
# Waiting for replicas is switched on when a primary is promoted, acknowledging when a member is told to follow: a server
# older than 10.6.19 or 10.11.9 that is to acknowledge when it starts rolls back what it had acknowledged itself.
rpl_semi_sync_master_wait_point = AFTER_SYNC
` + s.tail()
}

// tail gives the further lines, which win.
func (s Server) tail() string {
	var b strings.Builder
	for _, line := range s.More {
		b.WriteString(line + "\n")
	}
	return b.String()
}

func (s Server) id() uint32 {
	if s.ID != 0 {
		return s.ID
	}
	addr, err := netip.ParseAddr(s.Bind)
	if err != nil || !addr.Unmap().Is4() {
		return 0
	}
	a := addr.Unmap().As4()
	return uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
}

var optionEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

// optionValue quotes a value of an option file where it needs it.
func optionValue(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:+,@", r))
	}) {
		return s
	}
	return `"` + optionEscapes.Replace(s) + `"`
}

// BootstrapSQL gives the statements that make a fresh server a member: the engine's account and the replicas', for any
// host, and no account without a password but root's on the machine itself. Nothing goes to the binary log. Each statement
// is one line and may run again, so that it can serve as an init_file; an account that exists keeps its password.
//
// With Config.Set, data of another set is locked: see there. That takes an init_file, of which these statements are the first: a
// server runs it before it takes a connection.
//
// The result holds the passwords.
func BootstrapSQL(c Config) string {
	admin := account(c.User, "%")
	statements := append([]string{"SET SESSION sql_log_bin = 0", "SET SESSION sql_mode = ''"}, lockSQL(c)...)
	statements = append(statements,
		"DELETE FROM mysql.global_priv WHERE (User = '' OR User = 'root' AND Host <> 'localhost') "+
			"AND IFNULL(JSON_VALUE(Priv, '$.plugin'), 'mysql_native_password') = 'mysql_native_password' "+
			"AND IFNULL(JSON_VALUE(Priv, '$.authentication_string'), '') = ''",
		"FLUSH PRIVILEGES",
		"CREATE USER IF NOT EXISTS "+admin+" IDENTIFIED BY "+quote(c.Password),
		"GRANT ALL PRIVILEGES ON *.* TO "+admin+" WITH GRANT OPTION")
	statements = append(statements, replicationUserSQL(c)...)
	return strings.Join(statements, ";\n") + ";\n"
}

func replicationUserSQL(c Config) []string {
	user := account(c.ReplicationUser, "%")
	return []string{
		"CREATE USER IF NOT EXISTS " + user + " IDENTIFIED BY " + quote(c.ReplicationPassword),
		"GRANT REPLICATION SLAVE ON *.* TO " + user,
	}
}
