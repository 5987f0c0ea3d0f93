//go:build linux

package mysql_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// durable are the settings of a primary whose commits are synced.
var durable = []string{"sync_binlog = 1", "innodb_flush_log_at_trx_commit = 1"}

// What a server calls to get things to its disk: storage may take what is written and not sync it, or not even take it.
const syncs, writes = "fsync,fdatasync", "fsync,fdatasync,pwrite64"

// slow makes the calls of the server take so much longer, until it is told to stop, or ends.
func slow(t testing.TB, n *node, calls string, by time.Duration) (stop func()) {
	t.Helper()
	strace := testenv.Need(t, "strace")[0]
	file, err := os.ReadFile(one(t, n.admin(t), "SELECT @@pid_file"))
	require.NoError(t, err)
	pid := strings.TrimSpace(string(file))
	cmd := osexec.Command(strace, "-f", "-o", os.DevNull, "-e", "trace="+calls,
		fmt.Sprintf("--inject=%s:delay_enter=%d", calls, by.Microseconds()), "-p", pid)
	var said strings.Builder
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	go func() { // it keeps a server that is killed meanwhile from ending
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
				if status, err := os.ReadFile("/proc/" + pid + "/status"); err != nil || strings.Contains(string(status), "State:\tZ") {
					_ = cmd.Process.Kill()
				}
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // the server goes on
		<-ended
	})
	t.Cleanup(stop)
	within(t, "the server is traced", func() bool {
		select {
		case <-ended:
			testenv.Missing(t, "a server cannot be traced: "+said.String())
		default:
		}
		threads, err := filepath.Glob("/proc/" + pid + "/task/*/status")
		require.NoError(t, err)
		for _, thread := range threads {
			if status, err := os.ReadFile(thread); err == nil && !strings.Contains(string(status), "TracerPid:\t"+strconv.Itoa(cmd.Process.Pid)+"\n") {
				return false
			}
		}
		return true
	})
	return stop
}

// idle is a primary that nobody writes to, and an engine for it.
func idle(t *testing.T, c mysql.Config, semisync bool, line func(local.Machine) string) (*mysql.Engine, *node) {
	t.Helper()
	n := startOn(t, 1, line, durable...)[0]
	e := engine(t, c, n)
	exec(t, n.admin(t), "SET sql_log_bin = 0; CREATE SCHEMA app; CREATE TABLE app.t (i INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)")
	require.NoError(t, e.Promote(t.Context(), n.Member, semisync))
	require.NoError(t, e.Record(t.Context(), n.Member, "kept"))
	return e, n
}

func noLine(local.Machine) string { return "" }

// probed looks at a primary until it has been probed so many times, or for so long, and gives how often it has been.
func probed(t *testing.T, e *mysql.Engine, n *node, times int, long time.Duration) (seen int) {
	t.Helper()
	db := n.admin(t)
	defer db.Close()
	last := ""
	for end := time.Now().Add(long); seen < times && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		observe(t, e, n)
		at := one(t, db, "SELECT IFNULL((SELECT text FROM mysql.scalr_record WHERE one = 2), '')")
		if at != last && last != "" {
			seen++
		}
		last = at
	}
	return seen
}

// Nobody writes to a primary, and its storage does not return: that is seen all the same, also by who begins to look only then.
func TestStalledStorageIsSeenWhereNobodyWrites(t *testing.T) {
	for _, calls := range []string{syncs, writes} {
		t.Run(calls, func(t *testing.T) { stalledStorageIsSeen(t, calls) })
	}
}

func stalledStorageIsSeen(t *testing.T, calls string) {
	c := config
	c.Stall = time.Second
	maker, n := idle(t, c, false, noLine)
	before := one(t, n.admin(t), "SELECT @@gtid_binlog_state")
	e := engine(t, c, n)
	observe(t, e, n)
	thaw := slow(t, n, calls, time.Hour)
	began := time.Now()
	stalled := func(e *mysql.Engine) func() bool {
		return func() bool {
			_, err := e.Observe(t.Context(), n.Member)
			return errors.Is(err, replication.ErrStalled)
		}
	}
	late := engine(t, c, n) // sees it for the first time
	observe(t, late, n)
	within(t, "the primary is stalled", stalled(e))
	require.GreaterOrEqual(t, time.Since(began), c.Stall)
	within(t, "it is so for who came late", stalled(late))
	for range 3 {
		require.True(t, stalled(e)(), "it stays so")
	}
	require.NoError(t, late.Close(n.Member), "a probe that waits holds nobody up")
	thaw()
	within(t, "it works again", func() bool { _, err := e.Observe(t.Context(), n.Member); return err == nil })
	require.NotZero(t, probed(t, e, n, 3, 30*time.Second))
	require.Equal(t, before, one(t, n.admin(t), "SELECT @@gtid_binlog_state"))
	text, err := maker.Recorded(t.Context(), n.Member)
	require.NoError(t, err)
	require.Equal(t, "kept", text)

	slow(t, n, calls, time.Hour)
	within(t, "the primary is stalled again", stalled(e))
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.Error(t, maker.Fence(short, n.Member), "it waits for the probe")
}

func isProbe(b []byte) bool {
	return bytes.Contains(b, []byte("INSERT INTO mysql.scalr_record SELECT"))
}

// triesConn counts the probes that are sent.
type triesConn struct {
	net.Conn
	tries *atomic.Int64
}

func (c triesConn) Write(b []byte) (int, error) {
	if isProbe(b) {
		c.tries.Add(1)
	}
	return c.Conn.Write(b)
}

// deafConn hears nothing any more once it has sent the first of the probes.
type deafConn struct {
	net.Conn
	first *atomic.Bool
	deaf  atomic.Bool
}

func (c *deafConn) Write(b []byte) (int, error) {
	if isProbe(b) && c.first.CompareAndSwap(true, false) {
		c.deaf.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (n int, err error) {
	for n, err = c.Conn.Read(b); err == nil && c.deaf.Load(); {
		n, err = c.Conn.Read(b)
	}
	return n, err
}

// A probe whose answer is lost is no stall. It is given up once it has had its time, or when the server is no primary any more.
func TestProbeWhoseAnswerIsLost(t *testing.T) {
	for _, patience := range []time.Duration{time.Second, time.Hour} {
		t.Run(patience.String(), func(t *testing.T) {
			var first atomic.Bool
			first.Store(true)
			c := config
			c.Stall, c.Timeout = 100*time.Millisecond, patience
			c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				return &deafConn{Conn: conn, first: &first}, err
			}
			e, n := idle(t, c, false, noLine)
			if patience == time.Hour {
				within(t, "the primary is probed", func() bool { observe(t, e, n); return !first.Load() })
				exec(t, n.admin(t), "SET GLOBAL read_only = 1")
				observe(t, e, n)
				exec(t, n.admin(t), "SET GLOBAL read_only = 0")
			}
			require.Equal(t, 3, probed(t, e, n, 3, 30*time.Second))
			require.False(t, first.Load())
		})
	}
}

// A disk that takes its time, though not Config.Stall, is none that stalls.
func TestSlowStorageIsNoStall(t *testing.T) {
	c := config
	c.Stall = 20 * time.Second
	e, n := idle(t, c, false, noLine)
	slow(t, n, syncs, 700*time.Millisecond)
	require.Equal(t, 3, probed(t, e, n, 3, 60*time.Second))
}

// A primary is probed while nobody writes to it, which writes nothing to its binary log, and only while it takes writes.
func TestProbeIsNoTransaction(t *testing.T) {
	nodes := start(t, 2)
	e := engine(t, config, nodes...)
	primary, replica := nodes[0], nodes[1]
	require.NoError(t, e.Promote(t.Context(), primary.Member, false))
	require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member))
	app := primary.app(t)
	exec(t, app, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT AUTO_INCREMENT PRIMARY KEY)")
	for _, n := range nodes {
		require.NoError(t, e.Record(t.Context(), n.Member, "kept"))
	}
	caughtUp(t, e, replica, primary)
	log := func() string {
		return one(t, primary.admin(t), "SELECT CONCAT(@@gtid_binlog_state, ' ', (SELECT variable_value FROM information_schema.global_status "+
			"WHERE variable_name = 'Binlog_bytes_written'), ' ', @@gtid_binlog_pos)")
	}
	before := log()
	require.Equal(t, 3, probed(t, e, primary, 3, 30*time.Second))
	require.Equal(t, before, log())
	const probes = "SELECT COUNT(*) FROM mysql.scalr_record WHERE one <> 1"
	require.Equal(t, "1", one(t, primary.admin(t), probes))
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		observe(t, e, replica)
	}
	require.Equal(t, "0", one(t, replica.admin(t), probes))

	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(50 * time.Millisecond):
			}
			if _, err := app.Exec("INSERT INTO app.t VALUES ()"); err != nil {
				done <- err
				return
			}
		}
	}()
	within(t, "somebody writes", func() bool { return log() != before })
	observe(t, e, primary)
	exec(t, primary.admin(t), "SET sql_log_bin = 0; DELETE FROM mysql.scalr_record WHERE one <> 1")
	require.Zero(t, probed(t, e, primary, 1, 3*time.Second), "applications' commits are the probe")
	require.Equal(t, "0", one(t, primary.admin(t), probes))
	close(stop)
	require.NoError(t, <-done)
	require.NotZero(t, probed(t, e, primary, 1, 30*time.Second))

	require.NoError(t, e.Fence(t.Context(), primary.Member))
	observe(t, e, primary)
	exec(t, primary.admin(t), "SET sql_log_bin = 0; DELETE FROM mysql.scalr_record WHERE one <> 1")
	require.Zero(t, probed(t, e, primary, 1, 3*time.Second))
	require.Equal(t, "0", one(t, primary.admin(t), probes))
}

// Who waits for something else than the disk does not stall: an acknowledgement, a lock, an account that may not write.
func TestProbeWaitsForTheDiskOnly(t *testing.T) {
	var tries atomic.Int64
	c := config
	c.Stall = 300 * time.Millisecond
	c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return triesConn{conn, &tries}, err
	}
	e, n := idle(t, c, true, noLine)
	admin := n.admin(t)
	app := n.app(t)
	const writers = 3 // the first waits for a replica, and the others for it
	waits := make(chan error, writers)
	for range writers {
		go func() {
			_, err := app.Exec("INSERT INTO app.t (v) VALUES ('x')")
			waits <- err
		}()
	}
	within(t, "commits wait for a replica", func() bool {
		return observe(t, e, n).Unacked == 1 && one(t, admin, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT INTO app.t%'") == "3"
	})
	require.Equal(t, 3, probed(t, e, n, 3, 30*time.Second), "nobody acknowledges")
	require.NoError(t, e.SetSemiSync(t.Context(), n.Member, false))
	for range writers {
		require.NoError(t, <-waits)
	}

	holder, err := admin.Conn(t.Context())
	require.NoError(t, err)
	defer holder.Close()
	for what, statements := range map[string][2]string{
		"a lock of the whole server": {"FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES"},
		"a lock of its row":          {"BEGIN; SELECT * FROM mysql.scalr_record FOR UPDATE", "ROLLBACK"},
		"a lock of its table":        {"LOCK TABLES mysql.scalr_record WRITE", "UNLOCK TABLES"},
	} {
		_, err := holder.ExecContext(t.Context(), statements[0])
		require.NoError(t, err)
		before := tries.Load()
		within(t, "it is tried again and again under "+what, func() bool { observe(t, e, n); return tries.Load() >= before+3 })
		_, err = holder.ExecContext(t.Context(), statements[1])
		require.NoError(t, err)
		require.NotZero(t, probed(t, e, n, 1, 30*time.Second), what)
	}

	exec(t, admin, "SET sql_log_bin = 0; CREATE USER weak@'%' IDENTIFIED BY 'w'; GRANT SELECT, PROCESS, BINLOG ADMIN, REPLICA MONITOR ON *.* TO weak@'%'")
	weak := config
	weak.User, weak.Password = "weak", "w"
	exec(t, admin, "SET sql_log_bin = 0; DELETE FROM mysql.scalr_record WHERE one <> 1")
	require.NoError(t, e.Close(n.Member))
	require.Zero(t, probed(t, engine(t, weak, n), n, 1, 3*time.Second))
}

// A full disk is no matter before somebody needs space on it; then it is found at once.
func TestFullDiskOfAnIdlePrimary(t *testing.T) {
	d := newDisks(t)
	e, n := idle(t, config, false, d.line)
	app := n.app(t)
	d.fill(n)
	require.Equal(t, 3, probed(t, e, n, 3, 30*time.Second))
	began := time.Now()
	go func() { _, _ = app.Exec("INSERT INTO app.t (v) VALUES (REPEAT('x', 100000))") }()
	within(t, "the primary is stalled", func() bool {
		_, err := e.Observe(t.Context(), n.Member)
		return errors.Is(err, replication.ErrStalled)
	})
	t.Log(time.Since(began))
	require.NoError(t, n.Kill(t.Context()))
}

// Nobody writes, and the primary's storage stalls: a replica takes over, also if the Manager begins only then.
func TestManagerFailsOverFromStalledStorage(t *testing.T) {
	for _, x := range []struct {
		policy replication.Policy
		anew   bool
	}{{replication.Availability, false}, {replication.Durability, false}, {replication.Durability, true}} {
		t.Run(fmt.Sprint(x.policy, ",", x.anew), func(t *testing.T) {
			c, by := config, replication.Config{Policy: x.policy}
			c.Stall = time.Second
			s := manageWith(t, start(t, 3, durable...), c, by)
			old := s.primary()
			if x.anew {
				s.stop()
			}
			began := time.Now()
			slow(t, s.node(old), syncs, time.Hour)
			if x.anew {
				s.run(t, c, by)
			}
			within(t, "another member is the primary", func() bool { p := s.primary(); return p != "" && p != old })
			t.Logf("another primary after %v", time.Since(began))
			top, _ := s.manager.Topology()
			require.NotNil(t, top.Verdict)
			t.Log(top.Verdict)
			require.Zero(t, top.Verdict.Lost)
			require.NoError(t, s.node(old).Start(t.Context()))
			s.equal(t)
		})
	}
}
