package mysql_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The statements that a fake knows, each as MySQL's manual has it. Everything else is error 1064 and fails the test.

const (
	text8  = `'((?:[^'\\]|\\.)*)'`
	ident8 = "`((?:[^`]|``)*)`"
	of8    = ` FOR CHANNEL ''`
)

type statement8 struct {
	pattern *regexp.Regexp
	run     func(c *conn8, args []string) (resultSet, *sqlError)
}

func known8(pattern string, run func(c *conn8, args []string) (resultSet, *sqlError)) statement8 {
	return statement8{regexp.MustCompile(`(?s)^(?:` + pattern + `)$`), run}
}

var statements8 []statement8

func init() {
	statements8 = []statement8{
		known8(`DO 1`, nothing8),
		known8(`SELECT VERSION\(\) AS version`, func(c *conn8, _ []string) (resultSet, *sqlError) {
			return resultSet{[]string{"version"}, [][]any{{c.f.vars["version"]}}}, nil
		}),
		known8(`SET GLOBAL (\w+) = (ON|OFF|AFTER_SYNC|\d+|`+text8+`)`, setGlobal8),
		known8(`SET (?:SESSION )?(\w+ ?=.*)`, setSession8),
		known8(`SHOW GLOBAL STATUS WHERE Variable_name LIKE 'Rpl_semi_sync%' OR Variable_name = 'Uptime'`, showStatus8),
		known8(`SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync%'`, showVariables8),
		known8(`SHOW REPLICA STATUS`, showReplica8),
		known8(`SHOW ENGINE INNODB STATUS`, func(c *conn8, _ []string) (resultSet, *sqlError) {
			return one8("Status", "TRANSACTIONS\n------------\nLIST OF TRANSACTIONS FOR EACH SESSION:\n"+c.f.transactions), nil
		}),
		known8(`SELECT s\.channel_name AS channel, s\.count_received_heartbeats AS heartbeats, c\.heartbeat_interval AS period `+
			`FROM performance_schema\.replication_connection_status s `+
			`JOIN performance_schema\.replication_connection_configuration c ON c\.channel_name = s\.channel_name`, heartbeats8),
		known8(`SELECT COUNT\(\*\) AS tables FROM information_schema\.tables WHERE table_schema NOT IN `+
			`\('mysql','information_schema','performance_schema','sys'\)`, func(c *conn8, _ []string) (resultSet, *sqlError) {
			n := 0
			if len(c.f.data) > 0 {
				n = 1
			}
			return one8("tables", n), nil
		}),
		known8(`SELECT ([\w ,]+) FROM information_schema\.processlist WHERE (.+)`, processlist8),
		known8(`KILL CONNECTION (\d+)`, kill8),
		known8(`(STOP|START) REPLICA(?: (IO_THREAD|SQL_THREAD))?`+of8, threads8),
		known8(`RESET REPLICA ALL`+of8, resetReplica8),
		known8(`CHANGE REPLICATION SOURCE TO (.+)`+of8, changeSource8),
		known8(`SELECT WAIT_FOR_EXECUTED_GTID_SET\(`+text8+`, (\d+(?:\.\d+)?)\)(?: AS r)?`, waitFor8),
		known8(`SELECT +@@global\.(read_only|gtid_executed)`, func(c *conn8, args []string) (resultSet, *sqlError) {
			return selectVariables8(c, []string{"@@global." + args[0] + " AS v"})
		}),
		known8(`SELECT (@@.*)`, selectVariables8),
		known8(`SELECT COUNT\(\*\) AS n FROM mysql\.user WHERE user = `+text8, func(c *conn8, args []string) (resultSet, *sqlError) {
			_, ok := c.f.accounts[unquote8(args[0])]
			return one8("n", bit8(ok)), nil
		}),
		known8("CREATE USER IF NOT EXISTS "+ident8+"@`%` IDENTIFIED BY "+text8, createUser8),
		known8("GRANT ([A-Z_, ]+) ON \\*\\.\\* TO "+ident8+"@`%`(?: WITH GRANT OPTION)?", grant8),
		known8("CREATE SCHEMA IF NOT EXISTS "+ident8, schema8(true)),
		known8("DROP SCHEMA IF EXISTS "+ident8, schema8(false)),
		known8(`SELECT schema_name AS name FROM information_schema\.schemata WHERE schema_name NOT IN `+
			`\('mysql','information_schema','performance_schema','sys'\) AND schema_name <> 'scalr_seeding'`,
			func(c *conn8, _ []string) (resultSet, *sqlError) {
				r := resultSet{columns: []string{"name"}}
				for _, n := range slices.Sorted(maps.Keys(c.f.schemas)) {
					if n != "scalr_seeding" {
						r.rows = append(r.rows, []any{n})
					}
				}
				return r, nil
			}),
		known8(`RESET (MASTER|BINARY LOGS AND GTIDS)`, resetLogs8),
		known8(`SELECT COUNT\(\*\) AS n FROM information_schema\.plugins WHERE plugin_name = 'clone' AND plugin_status = 'ACTIVE'`,
			func(c *conn8, _ []string) (resultSet, *sqlError) { return one8("n", 1), nil }),
		known8(`SELECT SUM\(estimate\) AS estimate, SUM\(data\) AS data FROM performance_schema\.clone_progress`,
			func(c *conn8, _ []string) (resultSet, *sqlError) {
				return resultSet{[]string{"estimate", "data"}, [][]any{{1000, 500}}}, nil
			}),
		known8(`SELECT state AS state, error_no AS number, error_message AS message FROM performance_schema\.clone_status`,
			func(c *conn8, _ []string) (resultSet, *sqlError) {
				return resultSet{[]string{"state", "number", "message"}, [][]any{{c.f.clone, 0, c.f.cloneError}}}, nil
			}),
		known8(`CLONE INSTANCE FROM `+text8+`@`+text8+`:(\d+) IDENTIFIED BY `+text8+`( REQUIRE SSL)?`, clone8),
		known8(`REPLACE INTO app\.kv VALUES \(`+text8+`, `+text8+`\)`, func(c *conn8, args []string) (resultSet, *sqlError) {
			return c.write(unquote8(args[0]), unquote8(args[1]))
		}),
		known8(`SELECT v FROM app\.kv WHERE k = `+text8, func(c *conn8, args []string) (resultSet, *sqlError) {
			r := resultSet{columns: []string{"v"}}
			if v, ok := c.f.data[unquote8(args[0])]; ok {
				r.rows = [][]any{{v}}
			}
			return r, nil
		}),
	}
}

var (
	foreign8  = regexp.MustCompile(`(?s)/\*M!.*?\*/`)
	version8  = regexp.MustCompile(`(?s)/\*!(\d{5})(.*?)\*/`)
	comments8 = regexp.MustCompile(`(?s)/\*[^!].*?\*/`)
)

// run runs one statement.
func (c *conn8) run(text string) (resultSet, *sqlError) {
	text = foreign8.ReplaceAllString(text, "") // MariaDB's comments are no code for MySQL
	text = version8.ReplaceAllStringFunc(text, func(s string) string {
		if m := version8.FindStringSubmatch(s); number8(m[1]) <= c.f.number() {
			return m[2]
		}
		return ""
	})
	text = strings.TrimSpace(comments8.ReplaceAllString(text, " "))
	for _, s := range statements8 {
		if m := s.pattern.FindStringSubmatch(text); m != nil {
			return s.run(c, m[1:])
		}
	}
	return resultSet{}, c.unknown(text)
}

// unknown fails the test.
func (c *conn8) unknown(text string) *sqlError {
	c.f.w.t.Errorf("the fake does not know the statement %q", text)
	return sqlErrorf(1064, "You have an error in your SQL syntax near '%s'", text)
}

// number is the version as comments have it: 80036.
func (f *fake8) number() int {
	var a, b, d int
	fmt.Sscanf(f.vars["version"], "%d.%d.%d", &a, &b, &d)
	return a*10000 + b*100 + d
}

func number8(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func bit8(b bool) int {
	if b {
		return 1
	}
	return 0
}

func one8(column string, value any) resultSet {
	return resultSet{[]string{column}, [][]any{{value}}}
}

var unescape8 = strings.NewReplacer(`\\`, `\`, `\'`, `'`, `\"`, `"`, `\n`, "\n", `\r`, "\r", `\0`, "\x00", `\Z`, "\x1a")

func unquote8(s string) string { return unescape8.Replace(s) }

func unident8(s string) string { return strings.ReplaceAll(s, "``", "`") }

func nothing8(*conn8, []string) (resultSet, *sqlError) { return resultSet{}, nil }

// refusedRead is what super_read_only says to whoever changes something.
func (c *conn8) refusedRead() *sqlError {
	if c.f.on("super_read_only") {
		return sqlErrorf(1290, "The MySQL server is running with the --super-read-only option so it cannot execute this statement")
	}
	return nil
}

func setGlobal8(c *conn8, args []string) (resultSet, *sqlError) {
	f, n, value := c.f, args[0], args[1]
	if strings.HasPrefix(value, "'") {
		value = unquote8(args[2])
	}
	if _, ok := f.vars[n]; !ok {
		return resultSet{}, sqlErrorf(1193, "Unknown system variable '%s'", n)
	}
	wantNumber, wantPoint, wantText := strings.HasSuffix(n, "_timeout"), strings.HasSuffix(n, "_wait_point"), n == "clone_valid_donor_list"
	if _, err := strconv.ParseUint(value, 10, 32); wantNumber != (err == nil) || wantPoint != (value == "AFTER_SYNC") ||
		!wantText && !wantNumber && !wantPoint && value != "ON" && value != "OFF" {
		return resultSet{}, sqlErrorf(1231, "Variable '%s' can't be set to the value of '%s'", n, value)
	}
	switch {
	case n == "read_only" && value == "ON":
		return resultSet{}, c.freeze("read_only")
	case n == "super_read_only" && value == "ON":
		return resultSet{}, c.freeze("read_only", "super_read_only")
	case n == "read_only":
		f.vars["super_read_only"] = "OFF"
	case n == f.semi("enabled"):
		f.fellBack = false
	case n == "server_uuid" || n == "version" || n == "log_bin" || n == "log_replica_updates":
		return resultSet{}, sqlErrorf(1238, "Variable '%s' is a read only variable", n)
	}
	f.vars[n] = value
	return resultSet{}, nil
}

func setSession8(c *conn8, args []string) (resultSet, *sqlError) {
	for _, item := range splitOutside(args[0], ',') {
		n, value, _ := strings.Cut(item, "=")
		switch n, value = strings.TrimSpace(n), strings.TrimSpace(value); n {
		case "autocommit", "sql_mode", "time_zone", "lock_wait_timeout":
		case "sql_log_bin":
			c.unlogged = value == "0"
		default:
			c.f.w.t.Errorf("the fake does not know the session variable %q", item)
			return resultSet{}, sqlErrorf(1193, "Unknown system variable '%s'", n)
		}
	}
	return resultSet{}, nil
}

var variable8 = regexp.MustCompile(`^@@(?:global\.)?(\w+) AS (\w+)$`)
var seeding8 = regexp.MustCompile(`^\(SELECT COUNT\(\*\) FROM information_schema\.schemata WHERE schema_name = 'scalr_seeding'\) AS (\w+)$`)

func selectVariables8(c *conn8, args []string) (resultSet, *sqlError) {
	r := resultSet{rows: [][]any{nil}}
	for _, item := range splitOutside(args[0], ',') {
		if m := seeding8.FindStringSubmatch(item); m != nil {
			r.columns, r.rows[0] = append(r.columns, m[1]), append(r.rows[0], bit8(c.f.schemas["scalr_seeding"]))
			continue
		}
		m := variable8.FindStringSubmatch(item)
		if m == nil {
			return resultSet{}, c.unknown(item)
		}
		var value any
		switch m[1] {
		case "gtid_executed":
			value = c.f.executed.String()
		case "gtid_owned": // with the thread that has it
			var items []string
			for name := range c.f.owned() {
				items = append(items, fmt.Sprintf("%s:%d#%d", name.uuid, name.n, c.id))
			}
			value = strings.Join(items, ",\n")
		default:
			text, ok := c.f.vars[m[1]]
			if !ok {
				return resultSet{}, sqlErrorf(1193, "Unknown system variable '%s'", m[1])
			}
			if value = text; text == "ON" && m[1] != "gtid_mode" {
				value = 1
			} else if text == "OFF" && m[1] != "gtid_mode" {
				value = 0
			}
		}
		r.columns, r.rows[0] = append(r.columns, m[2]), append(r.rows[0], value)
	}
	return r, nil
}

func showStatus8(c *conn8, _ []string) (resultSet, *sqlError) {
	f := c.f
	prefix := "Rpl_semi_sync_" + f.w.source + "_"
	waiting := 0
	for _, d := range f.conns {
		waiting += bit8(strings.HasPrefix(d.state, "Waiting for semi-sync ACK"))
	}
	on := map[bool]string{true: "ON", false: "OFF"}
	return resultSet{[]string{"Variable_name", "Value"}, [][]any{
		{prefix + "clients", f.clients()},
		{prefix + "status", on[f.waits()]},
		{prefix + "wait_sessions", waiting},
		{"Rpl_semi_sync_" + f.replicaWord() + "_status", on[f.replica != nil && f.replica.io]},
		{"Uptime", int(time.Since(f.started).Seconds()) + 1},
	}}, nil
}

func showVariables8(c *conn8, _ []string) (resultSet, *sqlError) {
	r := resultSet{columns: []string{"Variable_name", "Value"}}
	for _, n := range slices.Sorted(maps.Keys(c.f.vars)) {
		if strings.HasPrefix(n, "rpl_semi_sync") {
			r.rows = append(r.rows, []any{n, c.f.vars[n]})
		}
	}
	return r, nil
}

func showReplica8(c *conn8, _ []string) (resultSet, *sqlError) {
	q := resultSet{columns: []string{"Replica_IO_State", "Source_Host", "Source_User", "Source_Port", "Source_Log_File", "Read_Source_Log_Pos",
		"Relay_Log_File", "Relay_Log_Pos", "Replica_IO_Running", "Replica_SQL_Running", "Relay_Log_Space", "Seconds_Behind_Source",
		"Last_IO_Errno", "Last_IO_Error", "Last_SQL_Errno", "Last_SQL_Error", "SQL_Delay", "Retrieved_Gtid_Set", "Executed_Gtid_Set",
		"Auto_Position", "Channel_Name"}}
	r := c.f.replica
	if r == nil {
		return q, nil
	}
	io, sql, file := "No", "No", ""
	var behind any
	if r.io {
		io = "Connecting"
	}
	if r.linked {
		io, file = "Yes", "binlog.000001"
	}
	if r.sql {
		sql, behind = "Yes", 0
		if len(r.relay) > 0 {
			behind = int(time.Since(r.arrived[0]).Seconds())
		}
	}
	q.rows = [][]any{{"", r.host, r.user, r.port, file, r.read, fmt.Sprintf("relay.%06d", r.relayFile), r.read - len(r.relay) + 4, io, sql,
		len(r.relay), behind, r.errno, r.trouble, 0, "", r.delay, r.retrieved.String(), c.f.executed.String(), bit8(r.auto), ""}}
	return q, nil
}

func heartbeats8(c *conn8, _ []string) (resultSet, *sqlError) {
	q := resultSet{columns: []string{"channel", "heartbeats", "period"}}
	if r := c.f.replica; r != nil {
		q.rows = [][]any{{"", r.heartbeats, fmt.Sprintf("%.3f", r.heartbeat)}}
	}
	return q, nil
}

// dumpIDs is from where on sessions are those of replicas.
const dumpIDs = 1 << 20

func processlist8(c *conn8, args []string) (resultSet, *sqlError) {
	var r resultSet
	var columns []string
	for item := range strings.SplitSeq(args[0], ",") {
		column, alias, ok := strings.Cut(strings.TrimSpace(item), " AS ")
		if !ok || column != alias {
			return resultSet{}, c.unknown(item)
		}
		columns, r.columns = append(columns, column), append(r.columns, alias)
	}
	sessions := []map[string]any{}
	for _, d := range c.f.conns {
		sessions = append(sessions, map[string]any{"id": d.id, "user": d.user, "host": d.host + ":1", "command": d.command,
			"state": d.state, "info": d.info, "time": int(time.Since(d.since).Seconds())})
	}
	for i, addr := range slices.Sorted(maps.Keys(c.f.w.fakes)) {
		if g := c.f.w.fakes[addr]; g.replica != nil && g.replica.linked && g.replica.source() == c.f.addr {
			sessions = append(sessions, map[string]any{"id": dumpIDs + i, "user": g.replica.user, "host": addr, "command": "Binlog Dump GTID",
				"state": "Source has sent all binlog to replica; waiting for more updates", "info": "", "time": 1})
		}
	}
	for _, s := range sessions {
		all := true
		for cond := range strings.SplitSeq(args[1], " AND ") {
			held, ok := holds8(s, cond)
			if !ok {
				return resultSet{}, c.unknown(cond)
			}
			all = all && held
		}
		if all {
			var values []any
			for _, column := range columns {
				values = append(values, s[column])
			}
			r.rows = append(r.rows, values)
		}
	}
	return r, nil
}

var (
	in8      = regexp.MustCompile(`^(?:IFNULL\()?(\w+)(?:, ''\))? NOT IN \((.+)\)$`)
	like8    = regexp.MustCompile(`^(\w+) LIKE '([^%']*)%'$`)
	unequal8 = regexp.MustCompile(`^(\w+) <> '([^']*)'$`)
	time8    = regexp.MustCompile(`^time (<|>=) (\d+)$`)
)

// holds8 reports whether a condition holds for a session, if it is one that the fake knows.
func holds8(s map[string]any, cond string) (held, ok bool) {
	if m := in8.FindStringSubmatch(cond); m != nil {
		for _, v := range splitOutside(m[2], ',') {
			if unquote8(strings.Trim(v, "'")) == s[m[1]] {
				return false, true
			}
		}
		return true, s[m[1]] != nil
	}
	if m := like8.FindStringSubmatch(cond); m != nil {
		text, ok := s[m[1]].(string)
		return strings.HasPrefix(text, m[2]), ok
	}
	if m := unequal8.FindStringSubmatch(cond); m != nil {
		return s[m[1]] != m[2], s[m[1]] != nil
	}
	if m := time8.FindStringSubmatch(cond); m != nil {
		return (s["time"].(int) < number8(m[2])) == (m[1] == "<"), true
	}
	return false, false
}
