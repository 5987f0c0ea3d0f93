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

// marker is the schema that a member has while it is being seeded, and after a seed that broke off.
const marker = "scalr_seeding"

// imported is the table that a member has whose data came by Import, until it follows another member. It says the position
// of the copy. Replicas do not have it, and it is copied nowhere.
const imported = "scalr_imported"

// systemSchemas hold no data of users.
const systemSchemas = "('mysql','information_schema','performance_schema','sys')"

// statusQuery asks everything in one round trip. The order matters: what is received is asked before what is applied, and
// gtid_slave_pos before the binary log's state, so that a server that works meanwhile never seems to have applied what it
// has not received, or to have applied what it did not log; semi-sync before them, so that they have all that was committed
// without it.
const statusQuery = "SHOW ALL SLAVES STATUS; " +
	"SHOW GLOBAL STATUS WHERE Variable_name LIKE 'Rpl_semi_sync%' OR Variable_name IN ('Uptime', 'Threads_running', 'Binlog_bytes_written'); " +
	`SELECT @@version AS version,
	@@server_id AS server_id, @@global.read_only AS read_only, @@global.log_bin AS log_bin,
	@@global.log_slave_updates AS log_slave_updates, @@global.gtid_strict_mode AS strict, @@global.slave_parallel_threads AS workers,
	@@global.rpl_semi_sync_master_enabled AS master_enabled, @@global.rpl_semi_sync_master_wait_point AS wait_point,
	@@global.rpl_semi_sync_master_timeout AS timeout, @@global.rpl_semi_sync_master_wait_no_slave AS wait_no_slave,
	@@global.rpl_semi_sync_slave_enabled AS slave_enabled,
	@@global.gtid_slave_pos AS slave_pos, @@global.gtid_binlog_state AS binlog_state,
	(SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = '` + marker + `') AS seeding,
	(SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'mysql' AND table_name = '` + imported + `') AS imported,
	(SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '` + marker + `' AND table_name = '` + foreign + `') AS foreign_data,
	(SELECT MAX(table_comment) FROM information_schema.tables WHERE table_schema = 'mysql' AND table_name = '` + setName + `') AS set_name`

// emptyQuery asks whether there is any table or view of users; it is asked only of a server without positions.
const emptyQuery = "SELECT COUNT(*) AS tables FROM information_schema.tables WHERE table_schema NOT IN " + systemSchemas

// channel is one replication connection of a replica, as SHOW ALL SLAVES STATUS has it. MariaDB names them; the one that
// CHANGE MASTER makes without a name is "".
type channel struct {
	name     string
	source   string // host:port
	io, sql  string // Slave_IO_Running: Yes, No, Connecting, Preparing; Slave_SQL_Running: Yes, No
	state    string // what the SQL thread does
	gtid     bool   // it uses GTIDs: Gtid_IO_Pos is kept
	received position
	row      row
}

// delay is how much later than it could the member is set to apply (MASTER_DELAY).
func (c channel) delay() time.Duration {
	return time.Duration(number(c.row["SQL_Delay"])) * time.Second
}

// look is what one round trip tells.
type look struct {
	vars, counters row
	channels       []channel
	slavePos       position // gtid_slave_pos
	applied        position // of the binary log and gtid_slave_pos
	received       position // applied, and what lies in relay logs as far as the threads know it
	seeding        bool
	imported       bool
	foreign        bool // if seeding: the data is another set's, whole; if imported too, only the end of Adopt is missing
}

func (l look) on(variable string) bool { return l.vars[variable] == "1" }

// semiSync reports whether every commit waits for a replica, however long. The time-out is unsigned: what is too large for
// a signed number is long enough too.
func (l look) semiSync() bool {
	timeout, err := strconv.ParseUint(l.vars["timeout"], 10, 64)
	return l.counters["rpl_semi_sync_master_status"] == "ON" && l.vars["wait_point"] == "AFTER_SYNC" &&
		l.on("wait_no_slave") && err == nil && timeout >= semiSyncForever
}

// status asks for the status in one round trip.
func (s *server) status(ctx context.Context) (look, error) {
	results, err := s.query(ctx, statusQuery)
	return s.look(ctx, results, err)
}

// statusOrStall asks for the status in one round trip, and gives an ErrStalled instead of it where there is one. The first time,
// it asks again until commits that are under way have ended, or others: who asks takes what it is told for acknowledged.
func (s *server) statusOrStall(ctx context.Context) (look, error) {
	for {
		l, err := s.statusOnce(ctx)
		if err != nil || s.knows() {
			return l, err
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			return look{}, fmt.Errorf("%w: commits are under way, and none has ended yet", replication.ErrHung)
		}
	}
}

// statusOnce is one look. What the sessions do is answered first: it is told even if the status never comes.
func (s *server) statusOnce(ctx context.Context) (look, error) {
	if !s.asksProcesses() {
		l, err := s.status(ctx)
		s.learn(l, err)
		return l, err
	}
	results, err := s.query(ctx, processesQuery+"; "+statusQuery)
	if len(results) == 0 {
		return look{}, err
	}
	processes, results := results[0], results[1:]
	l, err := s.look(ctx, results, err)
	s.learn(l, err)
	if errors.Is(err, replication.ErrHung) || err == nil && s.asksProcesses() {
		if stalled := s.stalled(processes, time.Now()); stalled != nil {
			return look{}, stalled
		}
	}
	return l, err
}

// look reads the results of statusQuery.
func (s *server) look(ctx context.Context, results [][]row, err error) (look, error) {
	if err != nil {
		if isServer(err, errSyntax, errUnknownVariable, errUnknownTable, errPrivilegeMissing) {
			if other := s.notMariaDB(ctx); other != nil {
				return look{}, other
			}
		}
		return look{}, err
	}
	if len(results) != 3 || len(results[2]) != 1 {
		return look{}, fmt.Errorf("the server gave %d results to its status, want 3", len(results))
	}
	l := look{vars: results[2][0], counters: row{}, seeding: results[2][0]["seeding"] != "0",
		imported: results[2][0]["imported"] != "0", foreign: results[2][0]["foreign_data"] != "0" || results[2][0]["imported"] != "0"}
	if err := checkVersion(l.vars["version"]); err != nil {
		return look{}, err
	}
	for _, r := range results[1] {
		l.counters[strings.ToLower(r["Variable_name"])] = r["Value"]
	}
	if l.slavePos, err = parsePosition(l.vars["slave_pos"]); err != nil {
		return look{}, err
	}
	if l.applied, err = parsePosition(l.vars["binlog_state"]); err != nil {
		return look{}, err
	}
	l.applied.extend(l.slavePos)
	l.received = l.applied.clone()
	for _, r := range results[0] {
		if r["Master_Host"] == "" {
			continue
		}
		c := channel{name: r["Connection_name"], source: net.JoinHostPort(r["Master_Host"], r["Master_Port"]),
			io: r["Slave_IO_Running"], sql: r["Slave_SQL_Running"], state: r["Slave_SQL_Running_State"],
			gtid: r["Using_Gtid"] != "No", row: r}
		if c.gtid {
			if c.received, err = parsePosition(r["Gtid_IO_Pos"]); err != nil {
				return look{}, err
			}
			l.received.extend(c.received)
		}
		l.channels = append(l.channels, c)
	}
	return l, nil
}

// notMariaDB explains a server that does not understand the engine's statements.
func (s *server) notMariaDB(ctx context.Context) error {
	version, err := s.version(ctx)
	if err != nil {
		return nil
	}
	s.forgetKind()
	return checkVersion(version)
}

func checkVersion(version string) error {
	if !strings.Contains(version, "MariaDB") {
		return fmt.Errorf("the server is no MariaDB (its version is %q): this engine speaks to MariaDB 10.6 or later", version)
	}
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	if err1 == nil && err2 == nil && (a < 10 || a == 10 && b < 6) {
		return fmt.Errorf("the server is too old (its version is %q): this engine speaks to MariaDB 10.6 or later", version)
	}
	return nil
}

// Observe asks the member for its status: one round trip on a held connection, a second one only where the member has no
// position at all, or has stopped replicating with relay logs left.
//
// A primary on which a commit waits since the disk of its binary log is full, or has waited for the disk for Config.Stall, is
// replication.ErrStalled. One that writes nothing is probed besides, once a second, by what goes on when Observe has returned, until
// Close: Observe never waits for it.
//
// Applied is what the binary log and gtid_slave_pos hold together; Received is that and what the relay logs hold. Server
// is the server_id. Lag is Seconds_Behind_Master, so whole seconds. Receives is false once nothing, heartbeats included,
// has come from the source for four of its heartbeat periods, at least 1 s, as far as looks of this engine tell. SemiSync
// is true while every commit waits for a replica (AFTER_SYNC), without a time-out of practical length, also while there
// is none to wait for: nothing is acknowledged then.
func (e *Engine) Observe(ctx context.Context, m replication.Member) (replication.Status, error) {
	d, err := e.dialect(ctx, m)
	if err != nil {
		return replication.Status{}, wrap("observe", m, err)
	}
	status, err := d.observe(ctx)
	return status, wrap("observe", m, err)
}

func (s *server) observe(ctx context.Context) (replication.Status, error) {
	l, err := s.statusOrStall(ctx)
	if err != nil {
		return replication.Status{}, err
	}
	if set := s.engine.config.Set; set != "" && l.vars["set_name"] != set {
		return replication.Status{}, fmt.Errorf("its data bears the name %q of a set, want %q: its init_file must be BootstrapSQL's, for that Config.Set",
			l.vars["set_name"], set)
	}
	st := replication.Status{
		Server:   l.vars["server_id"],
		Version:  l.vars["version"],
		Writable: !l.on("read_only"),
		Acked:    number(l.counters["rpl_semi_sync_slave_send_ack"]) > 0,
		// The server counts ticks of the second.
		Uptime:  max(0, time.Duration(number(l.counters["uptime"])-1)) * time.Second,
		Waiters: int(number(l.counters["rpl_semi_sync_master_clients"])),
		Unacked: int(number(l.counters["rpl_semi_sync_master_wait_sessions"])),
	}
	st.SemiSync = st.Writable && l.semiSync()
	if l.seeding {
		st.Empty, st.Foreign = true, l.foreign
		return st, nil
	}
	st.Imported = l.imported
	if len(l.applied) == 0 {
		rows, err := s.rows(ctx, emptyQuery)
		if err != nil {
			return replication.Status{}, err
		}
		st.Empty = rows[0]["tables"] == "0"
	}
	if len(l.channels) > 0 {
		if err := s.observeReplica(ctx, l, &st); err != nil {
			return replication.Status{}, err
		}
	}
	st.Applied, st.Received = l.applied.public(), l.received.public()
	return st, nil
}

func (s *server) observeReplica(ctx context.Context, l look, st *replication.Status) error {
	var troubles []string
	st.Receives, st.Applies = true, true
	for i, c := range l.channels {
		if i == 0 {
			st.Source = c.source
		}
		st.Receives = st.Receives && c.io == "Yes"
		st.Applies = st.Applies && c.sql == "Yes"
		st.Lag = max(st.Lag, time.Duration(number(c.row["Seconds_Behind_Master"]))*time.Second)
		st.Delay = max(st.Delay, c.delay())
		if e := c.row["Last_IO_Error"]; e != "" {
			troubles = append(troubles, "does not receive: "+s.engine.redact(e))
		}
		if e := c.row["Last_SQL_Error"]; e != "" {
			troubles = append(troubles, "does not apply: "+s.engine.clean(e))
		}
	}
	if silence := s.hear(l.channels, time.Now()); st.Receives && silence > 0 {
		st.Receives = false
		troubles = append(troubles, fmt.Sprintf("does not receive: no heartbeat of the source for %v", silence.Round(time.Millisecond)))
	}
	unread, err := s.observeRelayLogs(ctx, l, observeLimit)
	if err != nil {
		return err
	}
	if unread != "" {
		troubles = append(troubles, unread)
	}
	st.Error = strings.Join(troubles, "; ")
	return nil
}

// hearing remembers when a replica last heard of its source.
type hearing struct {
	sign string // what changes whenever something comes from the source
	at   time.Time
}

// hear gives how long the member's connections have been silent, or 0 if that is no longer than it may be.
func (s *server) hear(channels []channel, now time.Time) time.Duration {
	var sign strings.Builder
	var longest time.Duration
	for _, c := range channels {
		period, _ := strconv.ParseFloat(c.row["Slave_heartbeat_period"], 64)
		if period == 0 {
			return 0
		}
		longest = max(longest, time.Duration(period*float64(time.Second)))
		for _, column := range []string{"Connection_name", "Slave_IO_Running", "Slave_received_heartbeats", "Master_Log_File",
			"Read_Master_Log_Pos", "Relay_Log_Space"} {
			sign.WriteString(c.row[column] + " ")
		}
	}
	return s.silence(sign.String(), longest, now)
}

// silence remembers the sign, and gives how long it has been the same, or 0 if that is no longer than four of the periods
// and 1 s.
func (s *server) silence(sign string, period time.Duration, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hearing.sign != sign {
		s.hearing = hearing{sign: sign, at: now}
	}
	if silence := now.Sub(s.hearing.at); silence > max(time.Second, 4*period) {
		return silence
	}
	return 0
}

// number reads a counter; what is NULL, absent or no number is 0.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
