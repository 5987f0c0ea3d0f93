package mysql_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// read_only waits for table locks and statements, and does not end transactions: Fence ends the sessions.
func TestFenceEndsWhatReadOnlyWaitsFor(t *testing.T) {
	n := start(t, 1)[0]
	e := engine(t, config, n)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	app := n.app(t)
	exec(t, app, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)", "CREATE TABLE app.u (i INT PRIMARY KEY)")

	locked, err := app.Conn(t.Context())
	require.NoError(t, err)
	defer locked.Close()
	exec(t, locked, "LOCK TABLES app.t WRITE")
	open, err := app.Conn(t.Context())
	require.NoError(t, err)
	defer open.Close()
	exec(t, open, "BEGIN", "INSERT INTO app.u VALUES (1)")
	var busy sync.WaitGroup
	for _, statement := range []string{"INSERT INTO app.u SELECT 2 + SLEEP(600)", "INSERT INTO app.t VALUES (1)", "SELECT SLEEP(600)"} {
		busy.Go(func() {
			_, err := app.ExecContext(context.Background(), statement)
			if err == nil {
				t.Errorf("%s was not ended", statement)
			}
		})
	}
	admin := n.admin(t)
	within(t, "all are under way", func() bool {
		return one(t, admin, "SELECT COUNT(*) FROM information_schema.processlist WHERE user='app' AND command='Query'") == "3"
	})
	// The trap: without ending sessions it waits.
	_, err = admin.Exec("SET SESSION lock_wait_timeout=1; SET GLOBAL read_only=1")
	require.ErrorContains(t, err, "Lock wait timeout")

	require.NoError(t, e.Fence(t.Context(), n.Member))
	busy.Wait()
	require.Equal(t, "1", one(t, admin, "SELECT @@global.read_only"))
	_, err = open.ExecContext(t.Context(), "COMMIT")
	require.Error(t, err)
	_, err = app.Exec("INSERT INTO app.u VALUES (3)")
	require.ErrorContains(t, err, "read-only")
	require.Equal(t, "0", one(t, admin, "SELECT COUNT(*) FROM app.u"))
}

// Whatever was acknowledged before or during the fence is there after it, and nothing else is acknowledged.
func TestFenceUnderWriters(t *testing.T) {
	n := start(t, 1)[0]
	e := engine(t, config, n)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	exec(t, n.app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)")
	var writers sync.WaitGroup
	var acked, next atomic.Int64
	for range 8 {
		db := n.app(t)
		writers.Go(func() {
			for {
				if _, err := db.ExecContext(context.Background(), fmt.Sprintf("INSERT INTO app.t VALUES (%d)", next.Add(1))); err != nil {
					return
				}
				acked.Add(1)
			}
		})
	}
	within(t, "writers write", func() bool { return acked.Load() > 100 })
	require.NoError(t, e.Fence(t.Context(), n.Member))
	at := observe(t, e, n).Applied
	writers.Wait()
	require.Equal(t, at, observe(t, e, n).Applied)
	var rows int64
	_, err := fmt.Sscan(one(t, n.admin(t), "SELECT COUNT(*) FROM app.t"), &rows)
	require.NoError(t, err)
	require.GreaterOrEqual(t, rows, acked.Load())
	require.LessOrEqual(t, rows, next.Load())
}

// Replicas must keep their connections, since they drain what the fenced primary has: those that send nothing but requests
// yet, and those that use an account of their own.
func TestFenceSparesReplicas(t *testing.T) {
	e, primary, replica := pair(t)
	exec(t, primary.admin(t), "SET sql_log_bin=0; CREATE USER theirs@'%' IDENTIFIED BY 't'; GRANT REPLICATION SLAVE ON *.* TO theirs@'%'")
	exec(t, replica.admin(t), "STOP SLAVE", "CHANGE MASTER TO MASTER_USER='theirs', MASTER_PASSWORD='t'", "START SLAVE")
	const dump = "SELECT MIN(id) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%' AND user='theirs'"
	var before string
	within(t, "the replica receives", func() bool { before = one(t, primary.admin(t), dump); return before != "" })
	connecting, err := primary.db(t, config.ReplicationUser, config.ReplicationPassword, "").Conn(t.Context())
	require.NoError(t, err)
	defer connecting.Close()
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	require.NoError(t, e.Fence(t.Context(), primary.Member))
	require.Equal(t, before, one(t, primary.admin(t), dump))
	exec(t, connecting, "DO 1")
	caughtUp(t, e, replica, primary)
}

// Accounts with READ_ONLY ADMIN write through read_only: Fence says so if one was there.
func TestFenceNamesAccountsThatWriteAllTheSame(t *testing.T) {
	n := start(t, 1)[0]
	e := engine(t, config, n)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	exec(t, n.admin(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT)",
		"CREATE USER boss@'127.0.0.%' IDENTIFIED BY 'b'", "GRANT ALL PRIVILEGES ON *.* TO boss@'127.0.0.%'")
	require.NoError(t, e.Fence(t.Context(), n.Member), "one that is not there does not matter")
	boss := n.db(t, "boss", "b", "")
	exec(t, boss, "INSERT INTO app.t VALUES (1)") // the trap
	err := e.Fence(t.Context(), n.Member)
	require.ErrorIs(t, err, replication.ErrUnsafe)
	require.ErrorContains(t, err, "'boss'@'127.0.0.%' may write all the same")
	require.False(t, observe(t, e, n).Writable)
	exec(t, n.admin(t), "REVOKE READ_ONLY ADMIN, SUPER ON *.* FROM boss@'127.0.0.%'")
	require.NoError(t, e.Fence(t.Context(), n.Member))
	_, err = boss.Exec("INSERT INTO app.t VALUES (2)")
	require.ErrorContains(t, err, "read-only")
}

// Something that no KILL ends holds read_only up: Fence gives up with its context, and says why, whichever of its calls the
// end of the context meets.
func TestFenceIsBounded(t *testing.T) {
	n := start(t, 1)[0]
	e := engine(t, config, n)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	exec(t, n.admin(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT)")
	conn, err := n.admin(t).Conn(t.Context()) // the engine's own account is spared
	require.NoError(t, err)
	defer conn.Close()
	exec(t, conn, "LOCK TABLES app.t WRITE")
	for name, mute := range map[string]bool{"while it waits for read_only": false, "while it ends sessions": true} {
		t.Run(name, func(t *testing.T) {
			c := config
			var asked atomic.Int64
			c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				return &muteConn{conn, mute, &asked}, err
			}
			e := engine(t, c, n)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			err := e.Fence(ctx, n.Member)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "read_only still waits")
			require.NotErrorIs(t, err, replication.ErrHung)
		})
	}
}

// muteConn, if mute, swallows every question after the first for the sessions of a server, so that it is never answered.
type muteConn struct {
	net.Conn
	mute  bool
	asked *atomic.Int64
}

func (c *muteConn) Write(b []byte) (int, error) {
	if c.mute && strings.Contains(string(b), "information_schema.processlist") && c.asked.Add(1) > 1 {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func TestSemiSyncSettings(t *testing.T) {
	e, primary, replica := pair(t)
	require.NoError(t, e.SetSemiSync(t.Context(), primary.Member, true))
	admin := primary.admin(t)
	require.Equal(t, "AFTER_SYNC", one(t, admin, "SELECT @@global.rpl_semi_sync_master_wait_point"))
	require.Equal(t, "1", one(t, admin, "SELECT @@global.rpl_semi_sync_master_wait_no_slave"))
	require.Equal(t, "18446744073709551615", one(t, admin, "SELECT CAST(@@global.rpl_semi_sync_master_timeout AS UNSIGNED)"))
	require.True(t, observe(t, e, primary).SemiSync)
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	require.True(t, observe(t, e, replica).Acked)

	for _, setting := range []string{"rpl_semi_sync_master_wait_point=AFTER_COMMIT", "rpl_semi_sync_master_timeout=10000",
		"rpl_semi_sync_master_wait_no_slave=OFF"} {
		exec(t, admin, "SET GLOBAL "+setting)
		require.False(t, observe(t, e, primary).SemiSync, "with %s an acknowledged transaction can be lost", setting)
		require.NoError(t, e.SetSemiSync(t.Context(), primary.Member, true))
		require.True(t, observe(t, e, primary).SemiSync)
	}
	// A silent fall-back to asynchronous replication shows.
	exec(t, admin, "SET GLOBAL rpl_semi_sync_master_timeout=1")
	require.NoError(t, replica.Kill(t.Context()))
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('not on the replica')")
	exec(t, admin, "SET GLOBAL rpl_semi_sync_master_timeout=18446744073709551615")
	require.False(t, observe(t, e, primary).SemiSync)
}

// With semi-sync on as a primary, a replica that logs what it applies would wait itself: it must be off on replicas.
func TestSemiSyncIsForPrimaries(t *testing.T) {
	e, primary, replica := pair(t)
	err := e.SetSemiSync(t.Context(), replica.Member, true)
	require.ErrorContains(t, err, "it follows "+primary.Addr)

	require.NoError(t, e.SetSemiSync(t.Context(), primary.Member, true))
	require.NoError(t, e.Fence(t.Context(), primary.Member))
	caughtUp(t, e, replica, primary)
	_, err = e.Drain(t.Context(), replica.Member)
	require.NoError(t, err)
	require.NoError(t, e.Promote(t.Context(), replica.Member, true))
	require.NoError(t, e.Follow(t.Context(), primary.Member, replica.Member))
	require.Equal(t, "0", one(t, primary.admin(t), "SELECT @@global.rpl_semi_sync_master_enabled"))
	require.Equal(t, "1", one(t, primary.admin(t), "SELECT @@global.rpl_semi_sync_slave_enabled"))
	require.Equal(t, "0", one(t, replica.admin(t), "SELECT @@global.rpl_semi_sync_slave_enabled"))
	exec(t, replica.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	caughtUp(t, e, primary, replica)
}

// The trap of the rule above: the SQL thread waits for acknowledgements.
func TestSemiSyncOnAReplicaStallsIt(t *testing.T) {
	e, primary, replica := pair(t)
	exec(t, replica.admin(t), "SET GLOBAL rpl_semi_sync_master_enabled=1")
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	within(t, "the SQL thread waits for an acknowledgement", func() bool {
		return one(t, replica.admin(t), "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for semi-sync ACK%'") == "1"
	})
	require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member))
	caughtUp(t, e, replica, primary)
}

// Promotion that breaks off anywhere leaves a replica, or a primary that still says whom it followed.
func TestPromoteForgetsTheSourceLast(t *testing.T) {
	e, primary, replica := pair(t)
	require.NoError(t, primary.Kill(t.Context()))
	_, err := e.Drain(t.Context(), replica.Member)
	require.NoError(t, err)
	writes := 0
	for budget := 1; ; budget++ {
		c := config
		var left atomic.Int64
		left.Store(int64(budget))
		c.DialContext = limited(&left)
		broken := engine(t, c, replica)
		err := broken.Promote(t.Context(), replica.Member, false)
		require.NoError(t, broken.Close(replica.Member))
		st := observe(t, e, replica)
		if err == nil {
			require.True(t, st.Writable && st.Source == "", "%+v", st)
			break
		}
		writes++
		require.True(t, st.Source == primary.Addr || st.Writable, "after %d statements: %+v", budget, st)
	}
	require.Greater(t, writes, 2)
	exec(t, replica.app(t), "INSERT INTO app.t (v) VALUES ('x')")
}
