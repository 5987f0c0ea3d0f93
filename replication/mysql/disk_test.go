//go:build linux

package mysql_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
)

// disks give each server a small disk of its own for its binary log. They must be made before the servers.
type disks struct {
	t    testing.TB
	root string
}

func newDisks(t testing.TB) *disks {
	t.Helper()
	d := &disks{t, t.TempDir()}
	probe := filepath.Join(d.root, "probe")
	require.NoError(t, os.Mkdir(probe, 0o700))
	if err := unix.Mount("tmpfs", probe, "tmpfs", 0, "size=1m"); errors.Is(err, unix.EPERM) {
		testenv.Missing(t, fmt.Sprintf("a disk cannot be mounted (it takes root): %v", err))
	} else {
		require.NoError(t, err)
	}
	require.NoError(t, unix.Unmount(probe, 0))
	return d
}

// line makes the disk of a machine, once, and gives the line of my.cnf that puts the binary log there.
func (d *disks) line(m local.Machine) string {
	dir := d.dir(m.Addr.String())
	if os.Mkdir(dir, 0o700) == nil {
		require.NoError(d.t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"))
		d.t.Cleanup(func() { require.NoError(d.t, unix.Unmount(dir, unix.MNT_DETACH)) })
	}
	return "log_bin = " + filepath.Join(dir, "binlog")
}

func (d *disks) dir(host string) string { return filepath.Join(d.root, host) }

// fill leaves no space on the disk of a server.
func (d *disks) fill(n *node) {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.dir(n.Host), "filler"))
	require.NoError(d.t, err)
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	require.ErrorIs(d.t, err, unix.ENOSPC)
}

func (d *disks) free(n *node) {
	d.t.Helper()
	require.NoError(d.t, os.Remove(filepath.Join(d.dir(n.Host), "filler")))
}

// A primary whose disk is full says so while a commit waits, and works again when there is space, though not at once: it
// looks once a minute. Its machine is stopped here instead.
func TestFullDiskIsSeen(t *testing.T) {
	d := newDisks(t)
	n := startOn(t, 1, d.line)[0]
	e := engine(t, config, n)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	app := n.app(t)
	exec(t, app, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)")
	d.fill(n)
	observe(t, e, n)
	waits := make(chan error, 1)
	go func() {
		_, err := app.Exec("INSERT INTO app.t (v) VALUES (REPEAT('x', 100000))")
		waits <- err
	}()
	within(t, "the primary is stalled", func() bool {
		_, err := e.Observe(t.Context(), n.Member)
		return errors.Is(err, replication.ErrStalled) && errors.Is(err, replication.ErrHung)
	})
	require.NoError(t, n.Kill(t.Context()))
	require.Error(t, <-waits)
	d.free(n)
	require.NoError(t, n.Start(t.Context()))
	within(t, "it answers again", func() bool { _, err := e.Observe(t.Context(), n.Member); return err == nil })
}

// slowStatus is a connection on which the server takes its time for the status, and for nothing else.
type slowStatus struct{ net.Conn }

func (c slowStatus) Write(b []byte) (int, error) {
	const status, slow = "SHOW ALL SLAVES STATUS", "SELECT SLEEP(100)     "
	return c.Conn.Write(bytes.Replace(b, []byte(status), []byte(slow), 1))
}

// A commit that waits for the disk may hold what the status waits for: what the sessions do is told all the same.
func TestFullDiskIsSeenThoughTheStatusHangs(t *testing.T) {
	d := newDisks(t)
	n := startOn(t, 1, d.line)[0]
	require.NoError(t, engine(t, config, n).Promote(t.Context(), n.Member, false))
	app := n.app(t)
	exec(t, app, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)")
	c := config
	c.Timeout = 300 * time.Millisecond
	c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return slowStatus{conn}, err
	}
	e := engine(t, c, n)
	for range 3 {
		_, err := e.Observe(t.Context(), n.Member)
		require.ErrorIs(t, err, replication.ErrHung)
		require.NotErrorIs(t, err, replication.ErrStalled)
	}
	d.fill(n)
	go func() { _, _ = app.Exec("INSERT INTO app.t (v) VALUES (REPEAT('x', 100000))") }()
	within(t, "the primary is stalled", func() bool {
		_, err := e.Observe(t.Context(), n.Member)
		require.ErrorIs(t, err, replication.ErrHung)
		return errors.Is(err, replication.ErrStalled)
	})
}

// A commit that takes long is no stall before Config.Stall has passed, and none at all while something else is written.
func TestStallTakesItsTime(t *testing.T) {
	c := config
	c.Stall = 500 * time.Millisecond
	nodes := start(t, 2)
	e := engine(t, c, nodes...)
	require.NoError(t, e.Promote(t.Context(), nodes[0].Member, true))
	require.NoError(t, e.Follow(t.Context(), nodes[1].Member, nodes[0].Member))
	app := nodes[0].app(t)
	exec(t, app, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)")
	require.NoError(t, nodes[1].Hang(t.Context()))
	failed := make(chan error, 2)
	for range 2 { // of which the second one waits in its commit for the first, and that for a replica
		go func() {
			for { // until the replica stands still in fact
				if _, err := app.Exec("INSERT INTO app.t (v) VALUES ('x')"); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	within(t, "commits wait", func() bool {
		select {
		case err := <-failed:
			t.Fatal(err)
		default:
		}
		return observe(t, e, nodes[0]).Unacked > 0
	})
	for end := time.Now().Add(3 * c.Stall); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		observe(t, e, nodes[0])
	}
}

// Storage that does not return is seen by the commits that wait for it.
func TestStalledStorageIsSeen(t *testing.T) {
	c := config
	c.Stall = time.Second
	n := start(t, 1, durable...)[0]
	e := engine(t, c, n)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	app := n.app(t)
	exec(t, app, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)")
	thaw := slow(t, n, syncs, time.Hour)
	waits := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := app.Exec("INSERT INTO app.t (v) VALUES ('x')")
		waits <- err
	}()
	within(t, "the primary is stalled", func() bool {
		_, err := e.Observe(t.Context(), n.Member)
		return errors.Is(err, replication.ErrStalled)
	})
	require.GreaterOrEqual(t, time.Since(began), c.Stall)
	// Who has not seen it before it stalled is not told what it has, which nobody may have been told is there.
	late := engine(t, c, n)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err := late.Observe(short, n.Member)
	cancel()
	require.ErrorIs(t, err, replication.ErrHung)
	require.NotErrorIs(t, err, replication.ErrStalled)
	_, err = late.Observe(t.Context(), n.Member)
	require.ErrorIs(t, err, replication.ErrStalled)
	thaw()
	require.NoError(t, <-waits)
	observe(t, e, n)
	observe(t, late, n)
}

// The primary's disk gets full under writers: a replica takes over, nothing is lost, and the old one comes back when there is
// space. So it is if the Manager begins only when commits wait already, and has not seen how far they were before.
func TestManagerFailsOverFromAFullDisk(t *testing.T) {
	for _, c := range []struct {
		policy replication.Policy
		anew   bool
	}{{replication.Availability, false}, {replication.Durability, false}, {replication.Durability, true}} {
		t.Run(fmt.Sprint(c.policy, ",", c.anew), func(t *testing.T) {
			d, by := newDisks(t), replication.Config{Policy: c.policy}
			s := manageOn(t, startOn(t, 3, d.line), by)
			stop := s.write(4)
			defer stop()
			within(t, "writers write", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.acked) > 200 })
			old := s.primary()
			if c.anew {
				s.stop()
			}
			began := time.Now()
			d.fill(s.node(old))
			if c.anew {
				admin := s.node(old).admin(t)
				within(t, "commits wait for the disk", func() bool {
					return one(t, admin, "SELECT COUNT(*) > 0 FROM information_schema.processlist WHERE state = 'Waiting for someone to free space'") == "1"
				})
				began = time.Now()
				s.run(t, config, by)
			}
			t.Logf("%v until the new primary acknowledged", s.after(t, old).Sub(began))
			top, _ := s.manager.Topology()
			require.NotNil(t, top.Verdict)
			t.Log(top.Verdict)
			d.free(s.node(old))
			require.NoError(t, s.node(old).Start(t.Context()))
			s.whole(t)
			stop()
			require.Zero(t, s.lost(t))
			s.equal(t)
		})
	}
}
