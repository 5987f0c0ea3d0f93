package mysql

import (
	"context"
	"time"
)

// probeEvery is how long a primary must have written nothing before it is probed, and from the end of a probe to the next one.
const probeEvery = time.Second

// probeQuery writes to the table of the record, which is in no binary log: a row of its own, and only where applications might
// write too. It has a new value each time, since InnoDB would have nothing to sync otherwise.
const probeQuery = "INSERT INTO " + recorded + " SELECT 2, NOW(6) FROM DUAL WHERE @@global.read_only = 0 ON DUPLICATE KEY UPDATE text = VALUES(text)"

// noWaits makes the probe fail at once where it would wait for a lock: what it waits for then is the disk.
var noWaits = map[string]string{"lock_wait_timeout": "0" + noTimeLimit, "innodb_lock_wait_timeout": "0"}

// probe is a commit of the engine's own on a primary that has no other ones. It is judged as all commits are, by what the sessions do
// at looks; how it ends is no matter.
type probe struct {
	end     context.CancelFunc
	session string // its ID, as the server's sessions have it; empty until it writes
	sent    time.Time
}

// probeIdle begins a probe where one is due, and gives one up where there is no primary any more. It is called under the lock.
func (s *server) probeIdle(l look, now time.Time) {
	primary := !l.on("read_only") && len(l.channels) == 0 && !l.seeding
	switch {
	case s.probe != nil && !primary:
		s.probe.end()
	case s.probe == nil && primary && !s.closed && now.Sub(s.commits.quiet) >= probeEvery:
		ctx, end := context.WithCancel(context.Background())
		p := &probe{end: end}
		s.probe = p
		s.readers.Go(func() {
			defer end()
			_ = s.runProbe(ctx, p)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.probe, s.commits.quiet = nil, time.Now()
		})
	}
}

// runProbe writes, however long it takes, on a connection of its own: whoever waits for it is in nobody's way.
func (s *server) runProbe(ctx context.Context, p *probe) error {
	short, cancel := context.WithTimeout(ctx, s.engine.config.Timeout)
	defer cancel()
	conn, err := s.probes.Conn(short)
	if err != nil {
		return err
	}
	defer conn.Close()
	rows, err := s.rowsOn(ctx, conn, "SELECT CONNECTION_ID() AS id")
	if err != nil {
		return err
	}
	s.mu.Lock()
	p.session, p.sent = rows[0]["id"], time.Now()
	s.mu.Unlock()
	_, err = conn.ExecContext(ctx, probeQuery)
	return err
}

// checkProbe gives up a probe whose answer was lost: its session does nothing any more. It is called under the lock.
func (s *server) checkProbe(processes []row, now time.Time) {
	p := s.probe
	if p == nil || p.session == "" || now.Sub(p.sent) < s.engine.config.Timeout {
		return
	}
	for _, r := range processes {
		if r["Id"] == p.session && r["Command"] != "Sleep" {
			return
		}
	}
	p.end()
}
