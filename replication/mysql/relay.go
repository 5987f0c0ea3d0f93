package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// MariaDB keeps what a replica has received and not applied in relay logs, and deletes them when a replication thread
// starts while both are stopped, since with GTIDs it can ask its source again. If the source is gone, that loses
// acknowledged transactions. SHOW RELAYLOG EVENTS tells what the files hold, and without GTIDs (MASTER_USE_GTID=no, with
// RELAY_LOG_FILE and RELAY_LOG_POS) the SQL thread starts at a place in them and deletes nothing.

// relayPlace is the start of an event group in a relay log.
type relayPlace struct {
	file string
	pos  uint64
}

// relayScan is what the relay logs of a channel hold.
type relayScan struct {
	first      relayPlace // of the first group that is not applied; file is empty if all are
	end        position   // what the member has when it has applied them
	unordered  gtid       // a group after first that is applied already; seq is 0 if there is none
	groups     int        // complete groups that are not applied
	incomplete bool       // the last group is cut off: its source never sent the rest, so nobody was told it is safe here
}

// relayReading is a scan of stopped threads, whose relay logs do not change. It goes on when nobody waits for it: a look has
// less time than large relay logs may take.
type relayReading struct {
	key  string
	end  context.CancelFunc
	done chan struct{} // closed when the rest is there
	scan relayScan
	err  error
}

// observeLimit is the size of relay logs up to which Observe reads them: a tenth of a second, or some.
const observeLimit = 16 << 20

// observeRelayLogs adds to what l has received what lies in the relay logs of threads that do not know it: after the
// member has started again, or while Drain works through them. Relay logs larger than the limit are not read, and those that
// take longer than three quarters of the context's time are read on: it says so in words.
func (s *server) observeRelayLogs(ctx context.Context, l look, limit int64) (unread string, err error) {
	for _, c := range l.channels {
		if c.io != "No" || len(c.received) > 0 || c.row["Relay_Log_File"] == "" || c.sql == "Yes" && isIdle(c.state) {
			continue
		}
		size := number(c.row["Relay_Log_Space"])
		if size > limit {
			unread = fmt.Sprintf("its relay logs of %d MB are not read yet: drain it to know what it has received", size>>20)
			continue
		}
		pos, err := strconv.ParseUint(c.row["Relay_Log_Pos"], 10, 64)
		if err != nil {
			return "", fmt.Errorf("Relay_Log_Pos: %w", err)
		}
		key := fmt.Sprint(c.name, c.row["Relay_Log_File"], c.row["Relay_Log_Pos"], c.row["Relay_Log_Space"], l.slavePos.plain())
		r := s.readRelayLogs(key, c.name, relayPlace{c.row["Relay_Log_File"], pos}, l.applied)
		short, cancel := ctx, func() {}
		if end, ok := ctx.Deadline(); ok {
			short, cancel = context.WithTimeout(ctx, time.Until(end)*3/4)
		}
		select {
		case <-r.done:
		case <-short.Done():
		}
		cancel()
		select {
		case <-r.done:
		default:
			if err := context.Cause(ctx); err != nil {
				return "", s.engine.explain(ctx, err)
			}
			unread = fmt.Sprintf("its relay logs of %d MB are being read, to know what it has received", size>>20)
			continue
		}
		if r.err != nil {
			s.forgetReading(r)
		}
		if errors.Is(r.err, context.Canceled) && ctx.Err() == nil { // another call has found others to read
			unread = "its relay logs have changed while they were read"
			continue
		}
		if isServer(r.err, errNoRelayLog) {
			unread = "its relay logs are not where the server looks for them"
			continue
		}
		if r.err != nil {
			return "", r.err
		}
		for domain, h := range r.scan.end {
			if known := l.received[domain]; known == nil || h.last(domain).seq > known.last(domain).seq {
				l.received[domain] = &history{seqs: maps.Clone(h.seqs), open: h.open}
			}
		}
	}
	return unread, nil
}

// readRelayLogs begins to read the relay logs, or gives the reading of the same ones that has begun.
func (s *server) readRelayLogs(key, channel string, from relayPlace, applied position) *relayReading {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relay != nil {
		if s.relay.key == key {
			return s.relay
		}
		s.relay.end()
	}
	ctx, end := context.WithCancel(context.Background())
	r := &relayReading{key: key, end: end, done: make(chan struct{})}
	if s.closed {
		end()
		r.err = fmt.Errorf("%w: its connections have been closed", replication.ErrUnreachable)
		close(r.done)
		return r
	}
	s.relay = r
	applied = applied.clone()
	s.readers.Go(func() {
		defer close(r.done)
		defer end()
		r.scan, r.err = s.scanRelayLogs(ctx, channel, from, applied)
	})
	return r
}

// forgetReading lets the next look read anew.
func (s *server) forgetReading(r *relayReading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relay == r {
		s.relay = nil
	}
}

// close ends what goes on, and the connections.
func (s *server) close() error {
	s.mu.Lock()
	if s.closed = true; s.relay != nil {
		s.relay.end()
	}
	if s.probe != nil {
		s.probe.end()
	}
	s.mu.Unlock()
	err := errors.Join(s.db.Close(), s.probes.Close())
	s.readers.Wait()
	return err
}

// firstRelayLog gives the start of the first relay log.
func (s *server) firstRelayLog(ctx context.Context, channel string) (relayPlace, error) {
	rows, err := s.rows(ctx, "SHOW RELAYLOG "+quote(channel)+" EVENTS LIMIT 1")
	if err != nil || len(rows) == 0 {
		return relayPlace{}, err
	}
	return relayPlace{rows[0]["Log_name"], 4}, nil
}

// scanRelayLogs reads the relay logs from a place on, to the last one.
func (s *server) scanRelayLogs(ctx context.Context, channel string, from relayPlace, applied position) (relayScan, error) {
	scan := relayScan{end: applied.clone()}
	var open groupReader
	for file, pos := from.file, from.pos; ; {
		events := 0
		err := s.readRelayLog(ctx, channel, relayPlace{file, pos}, func(at relayPlace, kind, info string) {
			events++
			g, done := open.next(at, kind, info)
			if g.id.seq == 0 {
				return
			}
			if h := applied[g.id.domain]; h != nil && g.id.seq <= h.last(g.id.domain).seq {
				if scan.first.file != "" && done {
					scan.unordered = g.id
				}
				return
			}
			if scan.first.file == "" {
				scan.first = g.at
			}
			if done {
				scan.end.add(g.id)
				scan.groups++
			}
			scan.incomplete = !done
		})
		if isServer(err, errNoRelayLog) && file != from.file {
			return scan, nil
		}
		if err == nil && events == 0 && pos == 4 {
			// Each file begins with what it is. A server that could not open its relay log when it started finds nothing in any file,
			// whether there is such a one or not.
			err = &statementError{number: errNoRelayLog, text: "the relay log is closed"}
		}
		if err != nil {
			return relayScan{}, err
		}
		if file, err = nextRelayLog(file); err != nil {
			return relayScan{}, err
		}
		pos = 4
	}
}

// readRelayLog streams the events of one relay log. It may take long: it is bounded by the context, and by the engine's
// Timeout between two events.
func (s *server) readRelayLog(ctx context.Context, channel string, from relayPlace, each func(relayPlace, string, string)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(s.engine.config.Timeout, func() { cancel(replication.ErrHung) })
	defer stall.Stop()
	query := fmt.Sprintf("SHOW RELAYLOG %s EVENTS IN %s FROM %d", quote(channel), quote(from.file), from.pos)
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return s.engine.explain(ctx, err)
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		if n%1000 == 0 {
			stall.Reset(s.engine.config.Timeout)
		}
		var file, kind, serverID, end, info sql.NullString
		var pos uint64
		if err := rows.Scan(&file, &pos, &kind, &serverID, &end, &info); err != nil {
			return err
		}
		each(relayPlace{file.String, pos}, kind.String, info.String)
	}
	return s.engine.explain(ctx, rows.Err())
}

// group is an event group, which is a transaction.
type group struct {
	id gtid
	at relayPlace
}

// groupReader tells where event groups begin and end.
type groupReader struct {
	open       group
	standalone bool // it ends with its first query: DDL
}

var gtidInfo = regexp.MustCompile(`GTID (\d+-\d+-\d+)`)

// next takes an event and gives the group that it belongs to, and whether it ends it. The zero group is no group.
func (r *groupReader) next(at relayPlace, kind, info string) (g group, done bool) {
	kind = strings.TrimSuffix(kind, "_compressed")
	switch kind {
	case "Gtid":
		r.open = group{}
		if m := gtidInfo.FindStringSubmatch(info); m != nil {
			id, _ := parseGTID(m[1])
			r.open, r.standalone = group{id, at}, strings.HasPrefix(info, "GTID ")
		}
		return r.open, false
	case "Xid", "XA_prepare":
		done = true
	case "Query":
		done = r.standalone || endsGroup(info)
	case "Execute_load_query":
		done = r.standalone
	}
	g = r.open
	if done {
		r.open = group{}
	}
	return g, done
}

func endsGroup(info string) bool {
	if i := strings.LastIndex(info, "; "); i >= 0 && strings.HasPrefix(info, "use ") {
		info = info[i+2:]
	}
	return info == "COMMIT" || info == "ROLLBACK"
}

// nextRelayLog counts the file's number up.
func nextRelayLog(file string) (string, error) {
	i := strings.LastIndexByte(file, '.')
	n, err := strconv.ParseUint(file[i+1:], 10, 63)
	if i < 0 || err != nil {
		return "", errors.New("relay log " + strconv.Quote(file) + " has no number")
	}
	return fmt.Sprintf("%s.%0*d", file[:i], len(file)-i-1, n+1), nil
}
