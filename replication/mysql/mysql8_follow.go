package mysql

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// drain needs no care with relay logs but for a delay: MySQL deletes none when its threads stop and start.
func (s mysql8) drain(ctx context.Context) (replication.Position, error) {
	l, err := s.look(ctx)
	if err != nil || l.seeding {
		return "", err
	}
	if p := l.sourcePlugin(); len(l.channels) > 0 && p != "" && l.on("rpl_semi_sync_"+p+"_enabled") {
		// The SQL thread would wait for acknowledgements of what it logs.
		if err := s.exec(ctx, "SET GLOBAL rpl_semi_sync_"+p+"_enabled = OFF"); err != nil {
			return "", err
		}
	}
	for _, c := range l.channels {
		if c.io != "No" {
			if err := s.exec(ctx, "STOP REPLICA IO_THREAD"+c.of()); err != nil {
				return "", err
			}
		}
		if c.delay() > 0 {
			if err := s.hurry(ctx, c); err != nil {
				return "", err
			}
		} else if c.sql != "Yes" {
			if err := s.exec(ctx, "START REPLICA SQL_THREAD"+c.of()); err != nil {
				return "", err
			}
		}
	}
	if l, err = s.look(ctx); err != nil {
		return "", err
	}
	for _, c := range l.channels {
		if err := s.awaitApplied(ctx, c); err != nil {
			return "", err
		}
	}
	if l, err = s.look(ctx); err != nil {
		return "", err
	}
	return l.applied.public(), nil
}

// hurry takes a delay away. To change it with both threads stopped would delete the relay logs, unless the statement says
// where in them to go on; and it may say so only to a replica that does not ask its source by GTIDs, which Follow makes of it
// again.
func (s mysql8) hurry(ctx context.Context, c channel8) error {
	if err := s.exec(ctx, "STOP REPLICA SQL_THREAD"+c.of()); err != nil {
		return err
	}
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(l.channels, func(d channel8) bool { return d.name == c.name })
	if i < 0 {
		return nil
	}
	return s.exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=0, SOURCE_DELAY=0, RELAY_LOG_FILE=%s, RELAY_LOG_POS=%d",
		quote(l.channels[i].row["Relay_Log_File"]), number(l.channels[i].row["Relay_Log_Pos"]))+c.of(),
		"START REPLICA SQL_THREAD"+c.of())
}

// awaitApplied waits until the SQL thread has applied all that was received.
func (s mysql8) awaitApplied(ctx context.Context, c channel8) error {
	if len(c.retrieved) == 0 {
		return nil
	}
	for {
		rows, err := s.rows(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET("+quote(c.retrieved.String())+", 1) AS r")
		if ctx.Err() != nil {
			return fmt.Errorf("not done in time: it has not applied all up to %s: %w", c.retrieved, context.Cause(ctx))
		}
		if err != nil || rows[0]["r"] == "0" {
			return err
		}
		l, err := s.look(ctx)
		if err != nil {
			return err
		}
		for _, now := range l.channels {
			if now.name == c.name && now.sql != "Yes" {
				return fmt.Errorf("its SQL thread stopped before it had applied all up to %s: %s: remove the cause and drain it again",
					c.retrieved, s.engine.clean(now.row["Last_SQL_Error"]))
			}
		}
	}
}

func (s mysql8) follow(ctx context.Context, primary *server, m, at replication.Member) error {
	if m.Addr == at.Addr {
		return fmt.Errorf("it cannot follow itself: the primary's Addr is %s too", at.Addr)
	}
	p := mysql8{primary}
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	who := func(err error) error { return fmt.Errorf("the primary %s (%s): %w", at.ID, at.Addr, err) }
	pl, err := p.look(ctx)
	if err != nil {
		return who(err)
	}
	if err := checkPair8(l, pl, m, at); err != nil {
		return err
	}
	if m.Delay < 0 {
		return badDelay(m)
	}
	if l.follows(at.Addr, m.Delay) {
		return nil
	}
	if err := checkHistory8(l, pl, at); err != nil {
		return err
	}
	if !l.on("super_read_only") {
		if err := s.fence(ctx); err != nil {
			return err
		}
	}
	if err := p.ensureReplicationUser(ctx); err != nil {
		return who(err)
	}
	if !slices.ContainsFunc(l.channels, func(c channel8) bool { return c.delay() > 0 }) { // one that has a delay keeps it
		if _, err := s.drain(ctx); err != nil {
			return err
		}
	}
	// Again, since it may have taken writes until now or received more, and the primary has gone on.
	if l, err = s.look(ctx); err != nil {
		return err
	}
	if pl, err = p.look(ctx); err != nil {
		return who(err)
	}
	if err := checkHistory8(l, pl, at); err != nil {
		return err
	}
	if err := s.attach(ctx, l, at.Addr, m.Delay); err != nil {
		return err
	}
	return s.awaitSource(ctx, at)
}

// follows reports whether the member is a healthy replica of the address already.
func (l look8) follows(addr string, delay time.Duration) bool {
	if len(l.channels) != 1 || l.seeding || !l.on("super_read_only") ||
		l.on("rpl_semi_sync_"+l.sourcePlugin()+"_enabled") || !l.on("rpl_semi_sync_"+l.replicaPlugin()+"_enabled") {
		return false
	}
	c := l.channels[0]
	return c.source == addr && c.auto && c.io == "Yes" && c.sql == "Yes" && (delay == 0 || seconds(c.delay()) == seconds(delay))
}

// checkPair8 refuses what can never work.
func checkPair8(l, pl look8, m, primary replication.Member) error {
	for _, id := range []string{"server_id", "server_uuid"} {
		if l.vars[id] == pl.vars[id] {
			return fmt.Errorf("it and the primary %s have the same %s %s: give it one of its own (server_id in my.cnf; for server_uuid "+
				"remove auto.cnf from its datadir) and start it again", primary.ID, id, l.vars[id])
		}
	}
	switch {
	case l.seeding:
		return fmt.Errorf("it holds a part of a copy: seed it again")
	case pl.seeding:
		return fmt.Errorf("the primary %s holds a part of a copy: seed it again", primary.ID)
	case !pl.on("log_bin") || !pl.on("gtid_mode"):
		return fmt.Errorf("the primary %s has no binary log with GTIDs: set log_bin and gtid_mode = ON in its my.cnf, see ServerConfMySQL8",
			primary.ID)
	case !l.on("log_bin") || !l.on("gtid_mode") || !l.on("log_replica_updates"):
		return fmt.Errorf("it keeps no binary log with GTIDs of what it applies, so it could never be promoted: set log_bin, " +
			"gtid_mode = ON and log_replica_updates in its my.cnf, see ServerConfMySQL8")
	case l.replicaPlugin() == "":
		return needsPlugin("replica", "semisync_replica.so")
	}
	for _, c := range pl.channels {
		if c.source == m.Addr {
			return fmt.Errorf("the primary %s follows it: promote the primary first", primary.ID)
		}
	}
	return nil
}

// checkHistory8 refuses a member that has what the primary lacks.
func checkHistory8(l, pl look8, primary replication.Member) error {
	lacking := l.received.without(pl.applied)
	if len(lacking) == 0 {
		return nil
	}
	return fmt.Errorf("%w: the primary %s lacks %d of its transactions: %s: seed it again, which discards them",
		replication.ErrDiverged, primary.ID, lacking.count(), lacking)
}

// attach points the member to the address. What a delay has kept from being applied comes from there again.
func (s mysql8) attach(ctx context.Context, l look8, addr string, delay time.Duration) error {
	var statements []string
	for _, c := range l.channels {
		statements = append(statements, "STOP REPLICA"+c.of())
		if c.name != "" {
			statements = append(statements, "RESET REPLICA ALL"+c.of())
		}
	}
	off, err := l.semiSyncStatements(false) // as a replica that logs what it applies, it would wait itself
	if err != nil {
		return err
	}
	statements = append(append(statements, off...), "SET GLOBAL rpl_semi_sync_"+l.replicaPlugin()+"_enabled = ON")
	host, port, _ := net.SplitHostPort(addr)
	c := s.engine.config
	change := fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST=%s, SOURCE_PORT=%s, SOURCE_USER=%s, SOURCE_PASSWORD=%s, "+
		"SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=1000000000, SOURCE_HEARTBEAT_PERIOD=%.3f",
		quote(host), port, quote(c.ReplicationUser), quote(c.ReplicationPassword), heartbeat.Seconds())
	if delay > 0 {
		change += fmt.Sprintf(", SOURCE_DELAY=%d", seconds(delay))
	}
	if c.TLS != nil {
		change += ", SOURCE_SSL=1, SOURCE_SSL_VERIFY_SERVER_CERT=0"
	} else {
		change += ", GET_SOURCE_PUBLIC_KEY=1" // caching_sha2_password without TLS encrypts the password with it
	}
	if err := s.exec(ctx, strings.Join(append(statements, change+" FOR CHANNEL ''", "START REPLICA FOR CHANNEL ''"), "; ")); err != nil {
		return fmt.Errorf("attaching it to %s: %w", addr, err)
	}
	return nil
}

// Error numbers of a replica's threads, which MySQL gives beside those of MariaDB.
const (
	errSourceFatal8 = 13114 // the source cannot send what the replica asks for
	errReplicaFatal = 13117 // such as equal server_ids or server_uuids
	errAuthPlugin   = 2061
)

// awaitSource waits until the primary has accepted the replica, refused it, or cannot be reached.
func (s mysql8) awaitSource(ctx context.Context, primary replication.Member) error {
	for deadline := time.Now().Add(attachTime); time.Now().Before(deadline); {
		l, err := s.look(ctx)
		if err != nil {
			return err
		}
		for _, c := range l.channels {
			reason := s.engine.redact(c.row["Last_IO_Error"])
			switch number(c.row["Last_IO_Errno"]) {
			case errSourceFatal, errSourceFatal8:
				return fmt.Errorf("%w: the primary %s cannot send what comes after its position %s: %s: seed it again",
					replication.ErrDiverged, primary.ID, l.applied, reason)
			case errUserDenied, errHostDenied, errPrivilegeMissing, errAuthPlugin:
				return fmt.Errorf("%w: the primary %s refuses the replication account %q: %s: give it the password of the "+
					"configuration and REPLICATION SLAVE, or drop it and let it be created", replication.ErrAccess,
					primary.ID, s.engine.config.ReplicationUser, reason)
			case errSameServerID, errReplicaFatal:
				return fmt.Errorf("the primary %s refuses it: %s", primary.ID, reason)
			case 0:
				if c.io == "Yes" && c.row["Source_Log_File"] != "" { // the source has begun to send
					return nil
				}
			default:
				return nil // it tries on, every second
			}
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
