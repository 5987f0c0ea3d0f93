package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// namedTwin is the accounts of a set that locks what is not its own.
func namedTwin() mysql.Config {
	c := twinConfig
	c.Set = "dev/db"
	return c
}

// shelf is a cloud where servers of two sets start on volumes.
type shelf struct {
	t     testing.TB
	cloud *local.Cloud
	n     int
}

func newShelf(t testing.TB, twin mysql.Config) *shelf {
	testenv.Need(t, "mariadbd", "mariadb-install-db")
	image := func(c mysql.Config, line string, more ...string) local.Image {
		image, err := local.MariaDB{User: c.User, Password: c.Password,
			SQL: append(strings.Split(strings.TrimRight(mysql.BootstrapSQL(c), ";\n"), ";\n"), more...),
			Config: func(m local.Machine) string {
				return mysql.ServerConf(mysql.Server{Bind: m.Addr.String(), More: []string{"sync_binlog = 0", "innodb_flush_log_at_trx_commit = 2", line}})
			}}.Image()
		require.NoError(t, err)
		return image
	}
	return &shelf{t: t, cloud: testenv.Cloud(t, map[string]local.Image{
		"parent": image(config, "event_scheduler = ON", "CREATE USER IF NOT EXISTS "+appUser+"@'%' IDENTIFIED BY '"+appPassword+"'", "GRANT ALL PRIVILEGES ON app.* TO "+appUser+"@'%'"),
		"twin":   image(twin, ""),
	})}
}

// launch launches a server on a volume, empty or from a snapshot, and does not wait for it.
func (s *shelf) launch(image, snapshot string) *node {
	s.t.Helper()
	s.n++
	name := fmt.Sprintf("db-%d", s.n)
	v, err := s.cloud.CreateVolume(s.t.Context(), provider.VolumeSpec{Token: name, Name: name, SizeGB: 1, Snapshot: snapshot})
	require.NoError(s.t, err)
	in, err := s.cloud.Launch(s.t.Context(), provider.Launch{Token: name, Name: name, Image: image, Volumes: []string{v.ID}})
	require.NoError(s.t, err)
	addr := in.Private.String() + ":3306"
	return &node{&testenv.Server{Cloud: s.cloud, ID: in.ID, Volume: v.ID, Dir: s.cloud.Dir(in.ID), Addr: addr},
		replication.Member{ID: name, Addr: addr, Machine: in.ID, Fence: func(ctx context.Context) error { return s.cloud.Stop(ctx, in.ID) }}}
}

func (s *shelf) snapshot(of *node) string {
	s.t.Helper()
	s.n++
	x, err := s.cloud.CreateSnapshot(s.t.Context(), provider.SnapshotSpec{Token: fmt.Sprint("snapshot-", s.n), Volume: of.Volume})
	require.NoError(s.t, err)
	return x.ID
}

// parent gives a server with everything, an account that opens with each connection, a server to connect to, and a past as somebody's
// replica.
func (s *shelf) parent() (*mysql.Engine, *node) {
	s.t.Helper()
	p := s.launch("parent", "")
	e := engine(s.t, config, p)
	within(s.t, "the parent answers", func() bool { _, err := e.Observe(s.t.Context(), p.Member); return err == nil })
	require.NoError(s.t, e.Promote(s.t.Context(), p.Member, false))
	db := p.admin(s.t)
	fillWithEverything(s.t, p)
	exec(s.t, db, "DROP TABLE app.mem, app.myisam, app.aria", // what a loss of power may damage
		"CREATE TABLE app.w (i INT PRIMARY KEY)",
		"CREATE USER open@'127.%'", "GRANT SELECT ON *.* TO open@'127.%'",
		"CREATE USER "+twinConfig.User+"@'127.%' IDENTIFIED BY 'parents'", "CREATE USER "+twinConfig.User+"@'%' IDENTIFIED BY 'parents'",
		"GRANT ALL PRIVILEGES ON *.* TO "+twinConfig.User+"@'%'",
		"CREATE USER "+twinConfig.ReplicationUser+"@'%' IDENTIFIED BY 'parents'",
		"CREATE SERVER elsewhere FOREIGN DATA WRAPPER mysql OPTIONS (HOST '127.0.0.9', USER 'x', PASSWORD 'y')",
		"CREATE EVENT app.now ON SCHEDULE EVERY 1 SECOND DISABLE DO INSERT INTO app.w VALUES (-UNIX_TIMESTAMP())", // until just before the snapshot
		"SET sql_log_bin = 0; CREATE TABLE mysql.scalr_claimed (one TINYINT PRIMARY KEY, token BIGINT UNSIGNED NOT NULL); INSERT INTO mysql.scalr_claimed VALUES (1, 99)",
		"SET sql_log_bin = 0; CREATE TABLE mysql.scalr_record (one TINYINT PRIMARY KEY, text LONGTEXT NOT NULL); INSERT INTO mysql.scalr_record VALUES (1, 'parents')",
		"CHANGE MASTER TO MASTER_HOST='127.0.0.9', MASTER_USER='repl', MASTER_PASSWORD='parents', MASTER_USE_GTID=slave_pos")
	return e, p
}

// logins are the accounts of the parent's.
var logins = [][2]string{{config.User, config.Password}, {config.ReplicationUser, config.ReplicationPassword}, {appUser, appPassword}, {"roled", "r"},
	{"open", ""}, {"nobody", ""}, {twinConfig.User, "parents"}, {twinConfig.ReplicationUser, "parents"}, {"root", ""}}

// opened is the accounts that somebody could log in to.
const opened = "SELECT GROUP_CONCAT(user ORDER BY user) FROM mysql.global_priv WHERE user NOT IN ('root','mariadb.sys','mysql','PUBLIC') " +
	"AND JSON_VALUE(priv,'$.account_locked') IS NULL AND JSON_VALUE(priv,'$.is_role') IS NULL"

// besiege tries them all, all the time, until it is told to stop, and says how many times each was refused. None may get in.
func besiege(t *testing.T, n *node) (stop func(refusals bool)) {
	ctx, cancel := context.WithCancel(context.Background())
	refused := make([]atomic.Int64, len(logins))
	var all sync.WaitGroup
	for i, login := range logins {
		c := sqldriver.NewConfig()
		c.User, c.Passwd, c.Net, c.Addr, c.Timeout, c.Logger = login[0], login[1], "tcp", n.Addr, 10*time.Second, &sqldriver.NopLogger{}
		connector, err := sqldriver.NewConnector(c)
		require.NoError(t, err)
		all.Go(func() {
			for ctx.Err() == nil {
				conn, err := connector.Connect(ctx)
				var e *sqldriver.MySQLError
				switch {
				case err == nil:
					t.Errorf("%s has got in", login[0])
					conn.Close()
				case errors.As(err, &e):
					refused[i].Add(1)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return func(refusals bool) {
		within(t, "all have been refused", func() bool {
			for i := range refused {
				if refusals && refused[i].Load() == 0 {
					return false
				}
			}
			return true
		})
		cancel()
		all.Wait()
	}
}

func TestAdoptASnapshotOfAWorkingServer(t *testing.T) {
	s := newShelf(t, namedTwin())
	e, parent := s.parent()
	db := parent.admin(t)
	want := checksums(t, parent)
	base := observe(t, e, parent).Applied
	exec(t, db, "ALTER EVENT app.now ENABLE") // one transaction, and then each is a row
	var acked atomic.Int64
	ctx, halt := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 3 {
		app := parent.app(t)
		writers.Go(func() {
			for i := w + 1; ctx.Err() == nil; i += 3 {
				if _, err := app.ExecContext(ctx, fmt.Sprintf("INSERT INTO app.w VALUES (%d)", i)); err == nil {
					acked.Add(1)
				}
			}
		})
	}
	within(t, "there are rows", func() bool { return acked.Load() > 200 })
	least := acked.Load()
	exec(t, db, "SET sql_log_bin = 0; CREATE USER ''@'127.%'") // who comes before every account for any host
	snapshot := s.snapshot(parent)
	exec(t, db, "SET sql_log_bin = 0; DROP USER ''@'127.%'")
	halt()
	writers.Wait()

	first, second := s.launch("twin", snapshot), s.launch("twin", snapshot)
	e2 := engine(t, namedTwin(), first, second)
	stop1, stop2 := besiege(t, first), besiege(t, second)
	for _, n := range []*node{first, second} {
		within(t, "the twin answers", func() bool { _, err := e2.Observe(t.Context(), n.Member); return err == nil })
	}
	for range 2 { // also when it starts again
		st := observe(t, e2, first)
		require.True(t, st.Empty && st.Foreign && !st.Writable && st.Source == "" && st.Applied == "", "%+v", st)
		require.Error(t, e2.Promote(t.Context(), first.Member, false))
		text, err := e2.Recorded(t.Context(), first.Member)
		require.NoError(t, err)
		require.Empty(t, text, "what the other set's Managers have left")
		twin := first.db(t, twinConfig.User, twinConfig.Password, "")
		require.Equal(t, "twin,twin_repl", one(t, twin, opened))
		require.Equal(t, "0", one(t, twin, "SELECT COUNT(*) FROM mysql.servers"))
		require.Equal(t, "0", one(t, twin, "SELECT COUNT(*) FROM information_schema.events WHERE status = 'ENABLED'"))
		require.NoError(t, twin.Close())
		require.NoError(t, e2.Close(first.Member))
		require.NoError(t, first.Kill(t.Context()))
		require.NoError(t, first.Start(t.Context()))
	}

	first.Member.Token = 5
	failed := errors.New("no")
	_, err := e2.Adopt(t.Context(), first.Member, func(ctx context.Context, m replication.Member) error {
		exec(t, first.db(t, twinConfig.User, twinConfig.Password, ""), "ALTER USER "+appUser+"@'%' IDENTIFIED BY 'half' ACCOUNT UNLOCK", "CREATE TABLE app.scrubbed (i INT)")
		return failed
	}, nil)
	require.ErrorIs(t, err, failed)
	require.True(t, observe(t, e2, first).Foreign)
	at, err := e2.Adopt(t.Context(), first.Member, func(ctx context.Context, m replication.Member) error {
		require.Error(t, first.db(t, appUser, "half", "").PingContext(ctx), "what a scrub that failed has opened is closed")
		exec(t, first.db(t, twinConfig.User, twinConfig.Password, ""), "DROP TABLE app.scrubbed")
		return nil
	}, nil)
	require.NoError(t, err)
	st := observe(t, e2, first)
	require.True(t, st.Imported && !st.Empty && !st.Foreign && !st.Writable, "%+v", st)
	require.Equal(t, "0-"+st.Server+"-1", string(st.Applied))
	twin := first.db(t, twinConfig.User, twinConfig.Password, "")

	// The rows are those of the position, one each, and all that had been acknowledged.
	n, exact := e.Count(at, base)
	require.True(t, exact)
	require.Equal(t, fmt.Sprint(n-1), one(t, twin, "SELECT COUNT(*) FROM app.w"), "%s since %s", at, base)
	require.GreaterOrEqual(t, int64(n), least)
	require.Equal(t, string(at), one(t, twin, "SELECT position FROM mysql.scalr_imported"))
	exec(t, twin, "SET sql_log_bin = 0; DELETE FROM app.w")
	require.Equal(t, want, checksumsAs(t, first, twinConfig))
	require.Equal(t, "42", one(t, twin, "SELECT app.pack.f()"), "what runs as an account of the parent's runs")

	// The set has this data now, also after a loss of power, and the other copy follows it.
	require.NoError(t, e2.Close(first.Member))
	require.NoError(t, first.Kill(t.Context()))
	require.NoError(t, first.Start(t.Context()))
	require.Equal(t, st.Applied, observe(t, e2, first).Applied)
	require.NoError(t, e2.Promote(t.Context(), first.Member, false))
	_, err = e2.Seed(t.Context(), second.Member, first.Member, nil)
	require.NoError(t, err)
	require.False(t, observe(t, e2, second).Foreign)
	require.NoError(t, e2.Follow(t.Context(), second.Member, first.Member))
	exec(t, twin, "INSERT INTO app.nothing VALUES (8)")
	caughtUp(t, e2, second, first)
	require.Equal(t, checksumsAs(t, first, twinConfig), checksumsAs(t, second, twinConfig))
	stop1(true)
	stop2(true)

	// A snapshot of the set's own is not locked: what starts on it follows from there.
	third := s.launch("twin", s.snapshot(first))
	e3 := engine(t, namedTwin(), third)
	within(t, "the third answers", func() bool { _, err := e3.Observe(t.Context(), third.Member); return err == nil })
	require.False(t, observe(t, e3, third).Empty)
	require.NoError(t, e3.Follow(t.Context(), third.Member, first.Member))
	require.NoError(t, e3.Close(first.Member))
	exec(t, twin, "INSERT INTO app.nothing VALUES (9)")
	within(t, "the third has it", func() bool { return observe(t, e3, third).Applied == observe(t, e2, first).Applied })

	_, err = e2.Adopt(t.Context(), first.Member, nil, nil)
	require.ErrorContains(t, err, "does not start on another set's data")
	require.False(t, observe(t, e, parent).Foreign)
}

// small gives a parent with a row, and a snapshot of it.
func (s *shelf) small(more ...string) (at replication.Position, snapshot string) {
	p := s.launch("parent", "")
	e := engine(s.t, config, p)
	within(s.t, "the parent answers", func() bool { _, err := e.Observe(s.t.Context(), p.Member); return err == nil })
	require.NoError(s.t, e.Promote(s.t.Context(), p.Member, false))
	exec(s.t, p.admin(s.t), append([]string{"CREATE SCHEMA app", "CREATE TABLE app.people (id INT PRIMARY KEY, email VARCHAR(100))", "INSERT INTO app.people VALUES (1, 'a@b')"}, more...)...)
	return observe(s.t, e, p).Applied, s.snapshot(p)
}

// Wherever it breaks off, the member is empty for everybody and locked, or has all of it, scrubbed; and the next one goes on.
func TestAdoptThatBreaksOff(t *testing.T) {
	s := newShelf(t, namedTwin())
	was, snapshot := s.small()
	n := s.launch("twin", snapshot)
	e := engine(t, namedTwin(), n)
	stop := besiege(t, n)
	within(t, "the twin answers", func() bool { _, err := e.Observe(t.Context(), n.Member); return err == nil })
	scrubs, done := 0, false
	scrub := func(context.Context, replication.Member) error {
		scrubs++
		exec(t, n.db(t, twinConfig.User, twinConfig.Password, ""), "UPDATE app.people SET email = ''")
		return nil
	}
	for budget := int64(1); !done; budget++ {
		c := namedTwin()
		var left atomic.Int64
		left.Store(budget)
		c.DialContext = limited(&left)
		broken := engine(t, c, n)
		at, err := broken.Adopt(t.Context(), n.Member, scrub, nil)
		require.NoError(t, broken.Close(n.Member))
		st := observe(t, e, n)
		if done = err == nil; done {
			require.Equal(t, was, at)
			break
		}
		require.True(t, st.Empty && st.Foreign && !st.Imported && !st.Writable && st.Applied == "", "after %d statements: %+v (%v)", budget, st, err)
		require.ErrorIs(t, e.Promote(t.Context(), n.Member, false), replication.ErrUnsafe)
		if budget%7 == 0 {
			require.NoError(t, e.Close(n.Member))
			require.NoError(t, n.Kill(t.Context()))
			require.NoError(t, n.Start(t.Context()))
			require.True(t, observe(t, e, n).Foreign)
		}
		db := n.db(t, twinConfig.User, twinConfig.Password, "")
		if one(t, db, "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'scalr_imported'") == "1" {
			// Its end has two parts that may not both happen.
			exec(t, db, "SET sql_log_bin = 0; DROP TABLE IF EXISTS scalr_seeding.scalr_foreign")
			require.True(t, observe(t, e, n).Foreign)
		}
		require.NoError(t, db.Close())
	}
	require.Greater(t, scrubs, 3)
	stop(true)
	st := observe(t, e, n)
	require.True(t, st.Imported && !st.Empty && !st.Foreign, "%+v", st)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	db := n.db(t, twinConfig.User, twinConfig.Password, "")
	require.Equal(t, "1", one(t, db, "SELECT COUNT(*) FROM app.people WHERE email = ''"))
	require.Equal(t, "0", one(t, db, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'scalr_seeding'"))
}

// A first boot that is cut short is a first boot again.
func TestLockThatIsCutShort(t *testing.T) {
	s := newShelf(t, namedTwin())
	_, snapshot := s.small()
	for i := range 5 {
		n := s.launch("twin", snapshot)
		stop := besiege(t, n)
		time.Sleep(time.Duration(i) * 40 * time.Millisecond) // any moment will do
		if err := n.Kill(t.Context()); err != nil {
			t.Log(err) // nothing has run yet
		}
		require.NoError(t, n.Start(t.Context()))
		e := engine(t, namedTwin(), n)
		require.True(t, observe(t, e, n).Foreign)
		stop(true)
		require.NoError(t, e.Close(n.Member))
		require.NoError(t, n.Stop(t.Context()))
	}
}

// What cannot be locked does not run; and half a copy is nobody's data.
func TestLockOfWhatIsNotWhole(t *testing.T) {
	s := newShelf(t, namedTwin())
	_, snapshot := s.small("SET sql_log_bin = 0; DROP TABLE mysql.servers")
	n := s.launch("twin", snapshot)
	stop := besiege(t, n)
	within(t, "the server has ended", func() bool {
		all, err := s.cloud.Instances(t.Context(), nil)
		require.NoError(t, err)
		for _, in := range all {
			if in.ID == n.ID {
				return in.State == provider.Failed
			}
		}
		return false
	})
	stop(false)

	// One whose init_file does not lock is not used.
	n = s.launch("parent", "")
	e := engine(t, config, n)
	within(t, "the server answers", func() bool { _, err := e.Observe(t.Context(), n.Member); return err == nil })
	named := config
	named.Set = "shop/db"
	_, err := engine(t, named, n).Observe(t.Context(), n.Member)
	require.ErrorContains(t, err, `its data bears the name "" of a set, want "shop/db"`)

	_, snapshot = s.small("SET sql_log_bin = 0; CREATE SCHEMA scalr_seeding")
	n = s.launch("twin", snapshot)
	stop = besiege(t, n)
	e = engine(t, namedTwin(), n)
	within(t, "the twin answers", func() bool { _, err := e.Observe(t.Context(), n.Member); return err == nil })
	st := observe(t, e, n)
	require.True(t, st.Empty && !st.Foreign, "%+v", st)
	_, err = e.Adopt(t.Context(), n.Member, nil, nil)
	require.Error(t, err)
	stop(true)
}
