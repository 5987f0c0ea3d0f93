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

const (
	// heartbeat is how often an idle source lets its replicas hear of it.
	heartbeat = 250 * time.Millisecond
	// attachTime is how long Follow waits for the source to accept or refuse the replica; accepting takes milliseconds.
	attachTime = 2 * time.Second
)

// Follow attaches the member by GTID. Before anything is changed, it refuses two servers with one server_id, servers
// without binary logs, and, as ErrDiverged, a member that has received or applied transactions that the primary lacks. A
// member that takes writes is fenced first. What lies in its relay logs is applied first, since attaching deletes them; a
// member with a MASTER_DELAY keeps it, or gets Member.Delay in its place (in whole seconds, rounded up), and gets from the new
// primary what it has not applied.
//
// It returns when the primary has accepted the replica or cannot be reached from it, after 2 s at most. ErrDiverged is also
// what it returns if the primary's binary logs no longer reach back to the member's position: either way the member has to
// be seeded. The account for replication is created on the primary if there is none of its name.
func (e *Engine) Follow(ctx context.Context, m, primary replication.Member) error {
	d, p, err := e.pair(ctx, m, "primary", primary)
	if err == nil {
		err = d.follow(ctx, p, m, primary)
	}
	return wrap("follow", m, err)
}

func (s *server) follow(ctx context.Context, p *server, m, primary replication.Member) error {
	if m.Addr == primary.Addr {
		return fmt.Errorf("it cannot follow itself: the primary's Addr is %s too", primary.Addr)
	}
	l, err := s.status(ctx)
	if err != nil {
		return err
	}
	who := func(err error) error { return fmt.Errorf("the primary %s (%s): %w", primary.ID, primary.Addr, err) }
	pl, err := p.status(ctx)
	if err != nil {
		return who(err)
	}
	if err := checkPair(l, pl, m, primary); err != nil {
		return err
	}
	if m.Delay < 0 {
		return badDelay(m)
	}
	if l.follows(primary.Addr, m.Delay) {
		return nil
	}
	if _, err := s.observeRelayLogs(ctx, l, observeLimit); err != nil {
		return err
	}
	if err := checkHistory(l, pl, primary); err != nil {
		return err
	}
	if !l.on("read_only") {
		if err := s.fence(ctx); err != nil && !errors.Is(err, replication.ErrUnsafe) {
			return err
		}
	}
	if err := p.ensureReplicationUser(ctx); err != nil {
		return who(err)
	}
	drained, err := s.isDrained(ctx, l)
	if err != nil {
		return err
	}
	if !drained {
		if l, err = s.settle(ctx, l); err != nil {
			return err
		}
		// Again, since it may have taken writes until now or had more in its relay logs, and the primary has gone on.
		if pl, err = p.status(ctx); err != nil {
			return who(err)
		}
		if err := checkHistory(l, pl, primary); err != nil {
			return err
		}
	}
	if l.imported {
		if err := s.exec(ctx, "DROP TABLE IF EXISTS "+name("mysql", imported)); err != nil {
			return err
		}
	}
	err = s.attach(ctx, l, primary.Addr, m.Delay)
	if isServer(err, errNoReplicaInfo) { // its relay logs are not whole, and are given up
		for _, c := range l.channels {
			if err := s.exec(ctx, "RESET SLAVE "+quote(c.name)); err != nil {
				return err
			}
		}
		err = s.attach(ctx, l, primary.Addr, m.Delay)
	}
	if err != nil {
		return err
	}
	return s.awaitSource(ctx, primary)
}

// badDelay refuses a delay that there cannot be.
func badDelay(m replication.Member) error {
	return fmt.Errorf("its Member.Delay is %v, want at least 0", m.Delay)
}

// seconds is a delay as servers count it.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// follows reports whether the member is a healthy replica of the address already, with the delay if there is to be one.
func (l look) follows(addr string, delay time.Duration) bool {
	if len(l.channels) != 1 || l.seeding || !l.on("read_only") || l.on("master_enabled") || !l.on("slave_enabled") {
		return false
	}
	c := l.channels[0]
	return c.source == addr && c.gtid && c.io == "Yes" && c.sql == "Yes" &&
		(delay == 0 || seconds(c.delay()) == seconds(delay))
}

// checkPair refuses what can never work.
func checkPair(l, pl look, m, primary replication.Member) error {
	switch {
	case l.vars["server_id"] == pl.vars["server_id"]:
		return fmt.Errorf("it and the primary %s have the same server_id %s: set another one in my.cnf and start it again",
			primary.ID, l.vars["server_id"])
	case l.seeding:
		return fmt.Errorf("it holds a part of a copy: seed it again")
	case pl.seeding:
		return fmt.Errorf("the primary %s holds a part of a copy: seed it again", primary.ID)
	case !pl.on("log_bin"):
		return fmt.Errorf("the primary %s has no binary log: set log_bin in its my.cnf, see ServerConf", primary.ID)
	case !l.on("log_bin") || !l.on("log_slave_updates"):
		return fmt.Errorf("it keeps no binary log of what it applies, so it could never be promoted: set log_bin and " +
			"log_slave_updates in its my.cnf, see ServerConf")
	}
	for _, c := range pl.channels {
		if c.source == m.Addr {
			return fmt.Errorf("the primary %s follows it: promote the primary first", primary.ID)
		}
	}
	return nil
}

// checkHistory refuses a member that has what the primary lacks.
func checkHistory(l, pl look, primary replication.Member) error {
	lacking := pl.applied.lacks(l.received)
	if len(lacking) == 0 {
		return nil
	}
	var list []string
	for _, g := range lacking {
		list = append(list, g.String())
	}
	n, exact := count(l.received.public(), pl.applied.public())
	about := ""
	if !exact {
		about = "at least "
	}
	return fmt.Errorf("%w: the primary %s lacks %s%d of its transactions, up to %s (it has %s, the primary %s): seed it again, "+
		"which discards them", replication.ErrDiverged, primary.ID, about, n, strings.Join(list, ","), l.received.public(),
		pl.applied.public())
}

// isDrained reports whether it receives nothing and its SQL thread has applied everything that the relay logs hold.
func (s *server) isDrained(ctx context.Context, l look) (bool, error) {
	for _, c := range l.channels {
		if c.io != "No" || c.sql != "Yes" || !isIdle(c.state) {
			return false, nil
		}
	}
	if len(l.channels) == 0 || !l.on("read_only") || !l.applied.holds(l.received) {
		return false, nil
	}
	busy, err := s.busyWorkers(ctx)
	return !busy, err
}

// settle applies what lies in relay logs, since attaching deletes them. Relay logs that the server itself cannot read, or that
// it is set to apply later, are given up: the primary has what they held, as far as the member told.
func (s *server) settle(ctx context.Context, l look) (look, error) {
	for _, c := range l.channels {
		if c.delay() > 0 {
			if err := s.exec(ctx, "STOP SLAVE "+quote(c.name)); err != nil {
				return look{}, err
			}
			return s.status(ctx)
		}
		if number(c.row["Last_SQL_Errno"]) == errRelayLogCorrupt {
			return l, nil
		}
	}
	if len(l.channels) > 0 {
		if _, err := s.drain(ctx); err != nil {
			return look{}, err
		}
	}
	return s.status(ctx)
}

// attach points the member to the address.
func (s *server) attach(ctx context.Context, l look, addr string, delay time.Duration) error {
	var statements []string
	for _, c := range l.channels {
		statements = append(statements, "STOP SLAVE "+quote(c.name))
		if c.name != "" {
			statements = append(statements, "RESET SLAVE "+quote(c.name)+" ALL")
		}
	}
	statements = append(statements,
		"SET GLOBAL rpl_semi_sync_master_enabled = OFF", // as a replica that logs what it applies, it would wait itself
		"SET GLOBAL rpl_semi_sync_slave_enabled = ON")
	if at := l.applied.plain(); at != l.slavePos.plain() {
		statements = append(statements, "SET GLOBAL gtid_slave_pos = "+quote(at))
	}
	change := s.engine.changeMaster(addr)
	if delay > 0 {
		change += fmt.Sprintf(", MASTER_DELAY=%d", seconds(delay))
	}
	statements = append(statements, change,
		"SET GLOBAL slave_parallel_mode = IF(@@global.slave_parallel_mode = 'none', 'conservative', @@global.slave_parallel_mode)", // see Drain
		"START SLAVE")
	if err := s.exec(ctx, strings.Join(statements, "; ")); err != nil {
		return fmt.Errorf("attaching it to %s: %w", addr, err)
	}
	return nil
}

// changeMaster gives the statement that names the source. It holds the password.
func (e *Engine) changeMaster(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	c := e.config
	change := fmt.Sprintf("CHANGE MASTER TO MASTER_HOST=%s, MASTER_PORT=%s, MASTER_USER=%s, MASTER_PASSWORD=%s, "+
		"MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=%.3f",
		quote(host), port, quote(c.ReplicationUser), quote(c.ReplicationPassword), heartbeat.Seconds())
	if c.TLS != nil {
		change += ", MASTER_SSL=1, MASTER_SSL_VERIFY_SERVER_CERT=0"
	}
	return change
}

// awaitSource waits until the primary has accepted the replica, refused it, or cannot be reached.
func (s *server) awaitSource(ctx context.Context, primary replication.Member) error {
	for deadline := time.Now().Add(attachTime); time.Now().Before(deadline); {
		l, err := s.status(ctx)
		if err != nil {
			return err
		}
		for _, c := range l.channels {
			number, _ := strconv.ParseUint(c.row["Last_IO_Errno"], 10, 16)
			reason := s.engine.redact(c.row["Last_IO_Error"])
			switch {
			case number == errSourceFatal:
				return fmt.Errorf("%w: the primary %s cannot send what comes after its position %s: %s: seed it again",
					replication.ErrDiverged, primary.ID, l.applied.public(), reason)
			case number == errUserDenied || number == errHostDenied || number == errPrivilegeMissing:
				return fmt.Errorf("%w: the primary %s refuses the replication account %q: %s: give it the password of the "+
					"configuration and REPLICATION SLAVE, or drop it and let it be created", replication.ErrAccess,
					primary.ID, s.engine.config.ReplicationUser, reason)
			case number == errSameServerID:
				return fmt.Errorf("the primary %s refuses it: %s", primary.ID, reason)
			case number != 0:
				return nil // it tries on, every second
			case c.io == "Yes" && c.row["Master_Log_File"] != "": // the source has begun to send
				return nil
			}
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
