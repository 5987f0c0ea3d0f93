package mysql_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// ledgers are tables whose first rows hold the same number after every transaction of count.
var ledgers = []string{"a", "b", "c", "d", "e"}

// books are a source with the ledgers, each of several batches and the last one the largest, and an empty target.
type books struct {
	e              *mysql.Engine
	source, target *node
	app, from, to  *sql.DB
	none           uint64 // the number of the last transaction before the first count
}

func keep(t testing.TB) *books {
	t.Helper()
	nodes := start(t, 2)
	b := &books{e: engine(t, config, nodes...), source: nodes[0], target: nodes[1],
		app: nodes[0].app(t), from: nodes[0].admin(t), to: nodes[1].admin(t)}
	require.NoError(t, b.e.Promote(t.Context(), b.source.Member, false))
	exec(t, b.from, "CREATE SCHEMA app")
	for i, table := range ledgers {
		exec(t, b.from, "CREATE TABLE app."+table+" (id INT PRIMARY KEY, v INT, pad TEXT)",
			fmt.Sprintf("INSERT INTO app.%s SELECT seq, 0, REPEAT('x', 2000) FROM app.seq_1_to_%d", table, 3000+i/4*1000),
			"ANALYZE TABLE app."+table)
	}
	b.none = last(t, observe(t, b.e, b.source).Applied)
	return b
}

// last gives the number of the last transaction, of the only server that wrote any.
func last(t testing.TB, at replication.Position) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(string(at[strings.LastIndexByte(string(at), '-')+1:]), 10, 64)
	require.NoError(t, err, at)
	return n
}

// count is one transaction over all ledgers.
func (b *books) count(t testing.TB) {
	t.Helper()
	exec(t, b.app, "BEGIN; UPDATE app."+strings.Join(ledgers, " SET v = v + 1 WHERE id = 1; UPDATE app.")+" SET v = v + 1 WHERE id = 1; COMMIT")
}

// tally gives what the ledgers say.
func tally(t testing.TB, db *sql.DB) string {
	t.Helper()
	return one(t, db, "SELECT GROUP_CONCAT(DISTINCT v) FROM (SELECT v FROM app."+
		strings.Join(ledgers, " WHERE id = 1 UNION ALL SELECT v FROM app.")+" WHERE id = 1) AS x")
}

// snapshots counts the transactions that an account's sessions have open.
func snapshots(t testing.TB, db *sql.DB, user string) string {
	t.Helper()
	return one(t, db, "SELECT COUNT(*) FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p "+
		"ON t.trx_mysql_thread_id = p.id WHERE p.user = '"+user+"'")
}

// begun counts the ledgers that have rows on the target.
func (b *books) begun(t testing.TB) string {
	t.Helper()
	return one(t, b.to, "SELECT EXISTS (SELECT 1 FROM app."+strings.Join(ledgers, ") + EXISTS (SELECT 1 FROM app.")+")")
}

// told makes connections that tell of a statement before it is sent, and call what that gives when its answer comes.
func told(before func(addr, statement string) (after func())) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &toldConn{Conn: conn, before: func(statement string) func() { return before(addr, statement) }}, err
	}
}

type toldConn struct {
	net.Conn
	before func(string) func()
	after  func()
}

func (c *toldConn) Write(b []byte) (int, error) {
	if len(b) > 4 && b[4] == 3 { // COM_QUERY
		c.after = c.before(string(b[5:]))
	}
	return c.Conn.Write(b)
}

func (c *toldConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.after != nil {
		c.after()
		c.after = nil
	}
	return n, err
}

// between makes connections over which the snapshots of a source begin one after the other, and does something before each.
func between(source *node, do func(i int)) func(context.Context, string, string) (net.Conn, error) {
	var mu sync.Mutex
	i := 0
	return told(func(addr, statement string) func() {
		if addr != source.Addr || !strings.HasPrefix(statement, "START TRANSACTION WITH CONSISTENT SNAPSHOT") {
			return nil
		}
		mu.Lock()
		do(i)
		i++
		return mu.Unlock
	})
}

// All tables are copied as of one position, over as many sessions as are seen to agree on it, whoever commits meanwhile.
func TestSeedOverSeveralSessions(t *testing.T) {
	b := keep(t)
	for _, test := range []struct {
		name     string
		commits  func(i int) bool // before the i-th snapshot
		sessions string
		tried    int
	}{
		{"nobody commits", func(int) bool { return false }, "4", 4},
		{"two tries are disturbed", func(i int) bool { return i < 8 }, "4", 12},
		{"one session is always behind", func(i int) bool { return i%4 == 1 }, "3", 44},
		{"none agrees", func(int) bool { return true }, "1", 124},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.NoError(t, b.e.Fence(t.Context(), b.target.Member))
			tried := 0
			c := config
			c.DialContext = between(b.source, func(i int) {
				if tried++; test.commits(i) {
					b.count(t)
				}
			})
			ctx, stop := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			defer writers.Wait()
			defer stop()
			at, err := engine(t, c, b.source, b.target).Seed(t.Context(), b.target.Member, b.source.Member, during("", func() {
				before := tally(t, b.from)
				for range 2 {
					writers.Go(func() {
						for ctx.Err() == nil {
							b.count(t)
						}
					})
				}
				within(t, "tables are being copied", func() bool { return b.begun(t) == test.sessions })
				require.Equal(t, "1", one(t, b.to, "SELECT EXISTS (SELECT 1 FROM app.e)"), "the largest is not among the first")
				within(t, "there are no more snapshots", func() bool { return snapshots(t, b.from, config.User) == test.sessions })
				within(t, "there are commits", func() bool { return tally(t, b.from) != before })
			}))
			stop()
			writers.Wait()
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(last(t, at)-b.none), tally(t, b.to), "the copy is as of %s", at)
			require.Equal(t, test.tried, tried)
			require.NoError(t, b.e.Follow(t.Context(), b.target.Member, b.source.Member))
			caughtUp(t, b.e, b.target, b.source)
			require.Equal(t, checksums(t, b.source), checksums(t, b.target))
		})
	}
}

// refusing is a connection that a server refuses with an error.
func refusing(text string, number uint16) net.Conn {
	client, server := net.Pipe()
	payload := append(binary.LittleEndian.AppendUint16([]byte{0xff}, number), text...)
	go func() {
		defer server.Close()
		server.Write(append([]byte{byte(len(payload)), 0, 0, 0}, payload...))
	}()
	return client
}

// Where a server takes no more sessions, those that there are copy everything.
func TestSeedWithoutRoomForSessions(t *testing.T) {
	b := keep(t)
	t.Run("target", func(t *testing.T) {
		c := config
		var full atomic.Bool
		dial := told(func(addr, statement string) func() {
			if statement == "SELECT GET_LOCK('scalr_seeding-2', 0) AS got" {
				return func() { full.Store(true) }
			}
			return nil
		})
		c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == b.target.Addr && full.Load() {
				return refusing("Too many connections", 1040), nil
			}
			return dial(ctx, network, addr)
		}
		_, err := engine(t, c, b.source, b.target).Seed(t.Context(), b.target.Member, b.source.Member, during("", func() {
			within(t, "it has two snapshots", func() bool { return snapshots(t, b.from, config.User) == "2" })
		}))
		require.NoError(t, err)
		require.Equal(t, checksums(t, b.source), checksums(t, b.target))
	})
	t.Run("source", func(t *testing.T) {
		bootstrap(t, b.target)
		exec(t, b.from, "CREATE USER "+reader+"@'%' IDENTIFIED BY '"+readerPassword+"'",
			"GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, BINLOG MONITOR, BINLOG ADMIN, REPLICA MONITOR ON *.* TO "+reader+"@'%' WITH MAX_USER_CONNECTIONS 4")
		c := config
		c.User, c.Password = reader, readerPassword
		origin := engine(t, c, b.source)
		scrub := func(context.Context, replication.Member) error {
			within(t, "no snapshot is left", func() bool { return snapshots(t, b.from, reader) == "0" })
			return nil
		}
		_, err := engine(t, twinConfig, b.target).Import(t.Context(), b.target.Member, origin, b.source.Member, scrub, during("", func() {
			within(t, "it has two snapshots", func() bool { return snapshots(t, b.from, reader) == "2" })
		}))
		require.NoError(t, err)
		require.Equal(t, checksums(t, b.source), checksumsAs(t, b.target, twinConfig))
	})
}

// What fails in one session ends the others, and is what the seed says.
func TestSeedFailsAsAWhole(t *testing.T) {
	b := keep(t)
	failed := make(chan struct{})
	c := config
	c.DialContext = told(func(addr, statement string) func() {
		if strings.HasPrefix(statement, "INSERT INTO `app`.`c`") {
			exec(t, b.to, "SET sql_log_bin = 0; DROP TABLE app.c")
			return func() { close(failed) }
		}
		return nil
	})
	_, err := engine(t, c, b.source, b.target).Seed(t.Context(), b.target.Member, b.source.Member, during("", func() {
		<-failed
		within(t, "nobody reads any more", func() bool { return snapshots(t, b.from, config.User) == "0" })
	}))
	require.ErrorContains(t, err, "table app.c: inserting: Table '…' doesn't exist")
	require.True(t, observe(t, b.e, b.target).Empty)
	require.Equal(t, "0", one(t, b.to, "SELECT COUNT(*) FROM app.d"))
}

// A source that hangs while several sessions read ends all of them.
func TestSeedOverSeveralSessionsNoticesAHungSource(t *testing.T) {
	b := keep(t)
	quick := config
	quick.Timeout = time.Second
	_, err := engine(t, quick, b.source, b.target).Seed(t.Context(), b.target.Member, b.source.Member, during("", func() {
		within(t, "tables are being copied", func() bool { return b.begun(t) == "4" })
		require.NoError(t, b.source.Hang(t.Context()))
	}))
	require.ErrorIs(t, err, replication.ErrHung)
	require.ErrorContains(t, err, b.source.Addr)
	require.NoError(t, b.source.Resume(t.Context()))
	require.True(t, observe(t, b.e, b.target).Empty)
	_, err = b.e.Seed(t.Context(), b.target.Member, b.source.Member, nil)
	require.NoError(t, err)
}

// A seed that begins ends all sessions of an earlier one, before it makes anything.
func TestSeedTakesOver(t *testing.T) {
	b := keep(t)
	locks := func() string {
		return one(t, b.to, "SELECT CONCAT_WS(',', IS_USED_LOCK('scalr_seeding'), IS_USED_LOCK('scalr_seeding-2'), "+
			"IS_USED_LOCK('scalr_seeding-3'), IS_USED_LOCK('scalr_seeding-4'))")
	}
	_, err := b.e.Seed(t.Context(), b.target.Member, b.source.Member, during("", func() {
		within(t, "tables are being copied", func() bool { return b.begun(t) == "4" })
		earlier := locks()
		require.Equal(t, 3, strings.Count(earlier, ","), earlier)
		_, err := engine(t, config, b.source, b.target).Seed(t.Context(), b.target.Member, b.source.Member, nil)
		require.NoError(t, err)
		within(t, "the sessions of both have ended", func() bool {
			return one(t, b.to, "SELECT COUNT(*) FROM information_schema.processlist WHERE id IN ("+earlier+")") == "0" && locks() == ""
		})
	}))
	require.ErrorIs(t, err, replication.ErrUnreachable)
	require.Equal(t, checksums(t, b.source), checksums(t, b.target))
	require.False(t, observe(t, b.e, b.target).Empty)
}

// Whoever inserts into a sequence waits for all that insert into tables whose columns take their default from it: it is not
// copied beside them.
func TestSeedCopiesSequencesFirst(t *testing.T) {
	b := keep(t)
	exec(t, b.from, "CREATE SEQUENCE app.s", "ALTER TABLE app.a MODIFY v INT DEFAULT NEXTVAL(app.s)", "SELECT NEXTVAL(app.s)")
	var mu sync.Mutex
	var filled []string
	c := config
	c.DialContext = told(func(addr, statement string) func() {
		if rest, ok := strings.CutPrefix(statement, "INSERT INTO `app`."); ok {
			mu.Lock()
			defer mu.Unlock()
			filled = append(filled, rest[:len("`a`")])
		}
		return nil
	})
	_, err := engine(t, c, b.source, b.target).Seed(t.Context(), b.target.Member, b.source.Member, nil)
	require.NoError(t, err)
	require.Equal(t, "`s`", filled[0])
	require.Equal(t, checksums(t, b.source), checksums(t, b.target))
}
