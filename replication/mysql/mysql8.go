package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// mysql8 speaks to a server that runs MySQL.
type mysql8 struct{ *server }

// statusQuery8 asks everything in one round trip. What is received is asked before what is applied, so that a server that works
// meanwhile never seems to have applied what it has not received. Semi-synchronous replication is plugins, whose variables
// are there only with them.
const statusQuery8 = "SHOW REPLICA STATUS; " +
	"SELECT s.channel_name AS channel, s.count_received_heartbeats AS heartbeats, c.heartbeat_interval AS period " +
	"FROM performance_schema.replication_connection_status s " +
	"JOIN performance_schema.replication_connection_configuration c ON c.channel_name = s.channel_name; " +
	"SHOW GLOBAL STATUS WHERE Variable_name LIKE 'Rpl_semi_sync%' OR Variable_name = 'Uptime'; " +
	"SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync%'; " +
	"SELECT @@global.gtid_owned AS owned, @@global.gtid_executed AS executed, @@version AS version, @@server_id AS server_id, " +
	"@@server_uuid AS server_uuid, @@global.read_only AS read_only, @@global.super_read_only AS super_read_only, " +
	"@@global.log_bin AS log_bin, @@global.log_replica_updates AS log_replica_updates, @@global.gtid_mode AS gtid_mode, " +
	"(SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = '" + marker + "') AS seeding"

// channel8 is one replication channel of a replica. The one that has no name is "".
type channel8 struct {
	name      string
	source    string // host:port
	io, sql   string // Replica_IO_Running: Yes, No, Connecting; Replica_SQL_Running: Yes, No
	auto      bool   // it asks its source by GTIDs
	retrieved gtidSet
	row       row
	heard     row // of performance_schema
}

func (c channel8) delay() time.Duration {
	return time.Duration(number(c.row["SQL_Delay"])) * time.Second
}

// of ends a statement for the channel.
func (c channel8) of() string { return " FOR CHANNEL " + quote(c.name) }

// look8 is what one round trip tells.
type look8 struct {
	vars, counters row
	channels       []channel8
	applied        gtidSet // gtid_executed, and of one that follows nobody also what its sessions are about to commit
	received       gtidSet // applied, and what lies in relay logs
	seeding        bool
}

func (l look8) on(variable string) bool { return l.vars[variable] == "1" || l.vars[variable] == "ON" }

// plugin gives the first of the names by which a semi-synchronous plugin's variables go, or nothing if it is not loaded.
func (l look8) plugin(names ...string) string {
	for _, n := range names {
		if _, ok := l.vars["rpl_semi_sync_"+n+"_enabled"]; ok {
			return n
		}
	}
	return ""
}

// sourcePlugin and replicaPlugin give what their variables are called: there are old plugins with old names.
func (l look8) sourcePlugin() string  { return l.plugin("source", "master") }
func (l look8) replicaPlugin() string { return l.plugin("replica", "slave") }

// counter reads a status variable of the source's plugin.
func (l look8) counter(n string) string { return l.counters["rpl_semi_sync_"+l.sourcePlugin()+"_"+n] }

// semiSync reports whether every commit waits for a replica, however long.
func (l look8) semiSync() bool {
	p := "rpl_semi_sync_" + l.sourcePlugin() + "_"
	timeout, err := strconv.ParseUint(l.vars[p+"timeout"], 10, 64)
	return l.counter("status") == "ON" && l.vars[p+"wait_point"] == "AFTER_SYNC" && err == nil && timeout >= semiSyncForever &&
		(l.on(p+"wait_no_replica") || l.on(p+"wait_no_slave"))
}

// needsPlugin is the error of a server without semi-synchronous replication.
func needsPlugin(what, library string) error {
	return fmt.Errorf("it has no semi-synchronous %s plugin: set plugin_load_add = %s in its my.cnf and start it again, see "+
		"ServerConfMySQL8", what, library)
}

// semiSyncStatements switch it on or off. The time-out is the longest there is, 49 days.
func (l look8) semiSyncStatements(on bool) ([]string, error) {
	p := l.sourcePlugin()
	switch {
	case p == "" && on:
		return nil, needsPlugin("source", "semisync_source.so")
	case p == "":
		return nil, nil
	case !on:
		return []string{"SET GLOBAL rpl_semi_sync_" + p + "_enabled = OFF"}, nil
	}
	other := map[string]string{"source": "replica", "master": "slave"}[p]
	var list []string
	for _, s := range []string{"wait_point = AFTER_SYNC", "timeout = 4294967295", "wait_no_" + other + " = ON", "enabled = ON"} {
		list = append(list, "SET GLOBAL rpl_semi_sync_"+p+"_"+s)
	}
	return list, nil
}

// look asks for the status in one round trip.
func (s mysql8) look(ctx context.Context) (look8, error) {
	results, err := s.query(ctx, statusQuery8)
	if err != nil {
		if isServer(err, errSyntax, errUnknownVariable) { // is it still the server that it was?
			s.forgetKind()
			if version, other := s.version(ctx); other == nil && !strings.Contains(version, "MariaDB") {
				err = errors.Join(checkMySQL(version), err)
			}
		}
		return look8{}, err
	}
	if len(results) != 5 || len(results[4]) != 1 {
		return look8{}, fmt.Errorf("the server gave %d results to its status, want 5", len(results))
	}
	l := look8{vars: results[4][0], counters: row{}, seeding: results[4][0]["seeding"] != "0"}
	for _, r := range results[2] {
		l.counters[strings.ToLower(r["Variable_name"])] = r["Value"]
	}
	for _, r := range results[3] {
		l.vars[strings.ToLower(r["Variable_name"])] = r["Value"]
	}
	if l.applied, err = parseGTIDSet(l.vars["executed"]); err != nil {
		return look8{}, fmt.Errorf("gtid_executed: %w", err)
	}
	for _, r := range results[0] {
		c := channel8{name: r["Channel_Name"], source: net.JoinHostPort(r["Source_Host"], r["Source_Port"]),
			io: r["Replica_IO_Running"], sql: r["Replica_SQL_Running"], auto: r["Auto_Position"] == "1", row: r, heard: row{}}
		if r["Source_Host"] == "" {
			continue
		}
		if c.retrieved, err = parseGTIDSet(r["Retrieved_Gtid_Set"]); err != nil {
			return look8{}, fmt.Errorf("Retrieved_Gtid_Set: %w", err)
		}
		for _, h := range results[1] {
			if h["channel"] == c.name {
				c.heard = h
			}
		}
		l.channels = append(l.channels, c)
	}
	if len(l.channels) == 0 {
		// What waits for a replica's acknowledgement is in the binary log, and not executed yet.
		owned, err := parseGTIDSet(l.vars["owned"])
		if err != nil {
			return look8{}, fmt.Errorf("gtid_owned: %w", err)
		}
		l.applied = l.applied.union(owned)
	}
	l.received = l.applied
	for _, c := range l.channels {
		l.received = l.received.union(c.retrieved)
	}
	return l, nil
}

func (s mysql8) observe(ctx context.Context) (replication.Status, error) {
	l, err := s.look(ctx)
	if err != nil {
		return replication.Status{}, err
	}
	st := replication.Status{
		Server:   l.vars["server_uuid"],
		Version:  l.vars["version"],
		Writable: !l.on("read_only"),
		Uptime:   max(0, time.Duration(number(l.counters["uptime"])-1)) * time.Second,
		Waiters:  int(number(l.counter("clients"))),
		Unacked:  int(number(l.counter("wait_sessions"))),
	}
	st.SemiSync = st.Writable && l.semiSync()
	if l.seeding {
		st.Empty = true
		return st, nil
	}
	if len(l.applied) == 0 {
		rows, err := s.rows(ctx, emptyQuery)
		if err != nil {
			return replication.Status{}, err
		}
		st.Empty = rows[0]["tables"] == "0"
	}
	s.observeChannels(l, &st)
	st.Applied, st.Received = l.applied.public(), l.received.public()
	return st, nil
}

func (s mysql8) observeChannels(l look8, st *replication.Status) {
	if len(l.channels) == 0 {
		return
	}
	var troubles []string
	var sign strings.Builder
	var longest time.Duration
	st.Source, st.Receives, st.Applies = l.channels[0].source, true, true
	heard := true // the server tells of heartbeats on every channel
	for _, c := range l.channels {
		st.Receives = st.Receives && c.io == "Yes"
		st.Applies = st.Applies && c.sql == "Yes"
		st.Lag = max(st.Lag, time.Duration(number(c.row["Seconds_Behind_Source"]))*time.Second)
		st.Delay = max(st.Delay, c.delay())
		if e := c.row["Last_IO_Error"]; e != "" {
			troubles = append(troubles, "does not receive: "+s.engine.redact(e))
		}
		if e := c.row["Last_SQL_Error"]; e != "" {
			troubles = append(troubles, "does not apply: "+s.engine.clean(e))
		}
		period, _ := strconv.ParseFloat(c.heard["period"], 64)
		heard = heard && period > 0
		longest = max(longest, time.Duration(period*float64(time.Second)))
		sign.WriteString(strings.Join([]string{c.name, c.io, c.heard["heartbeats"], c.row["Source_Log_File"],
			c.row["Read_Source_Log_Pos"], c.row["Relay_Log_Space"], ""}, " "))
	}
	if silence := s.silence(sign.String(), longest, time.Now()); heard && st.Receives && silence > 0 {
		st.Receives = false
		troubles = append(troubles, fmt.Sprintf("does not receive: no heartbeat of the source for %v", silence.Round(time.Millisecond)))
	}
	st.Error = strings.Join(troubles, "; ")
}
