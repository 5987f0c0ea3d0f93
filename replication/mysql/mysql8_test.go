package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
	"github.com/scalr-go/scalr/replication/replicationtest"
)

// member gives a fake as a member.
func (f *fake8) member(n int) replication.Member {
	return replication.Member{ID: fmt.Sprintf("db-%d", n), Addr: f.addr}
}

// set8 starts n fakes and an engine.
func set8(t testing.TB, version string, n int) (*mysql.Engine, []*fake8, []replication.Member) {
	w := newWorld8(t, version, "source")
	e, err := mysql.New(config)
	require.NoError(t, err)
	var fakes []*fake8
	var members []replication.Member
	for i := range n {
		f := w.start()
		m := f.member(i + 1)
		fakes, members = append(fakes, f), append(members, m)
		t.Cleanup(func() { require.NoError(t, e.Close(m)) })
	}
	return e, fakes, members
}

// engineOnly hides that the engine can import, which it cannot from MySQL.
type engineOnly struct{ replication.Engine }

func factory8(version, source string) func(t testing.TB) replicationtest.Fixture {
	return func(t testing.TB) replicationtest.Fixture {
		w := newWorld8(t, version, source)
		e, err := mysql.New(config)
		require.NoError(t, err)
		wrong := config
		wrong.Password = "not it"
		denied, err := mysql.New(wrong)
		require.NoError(t, err)
		started := 0
		return replicationtest.Fixture{
			Engine: engineOnly{e},
			Denied: denied,
			Within: 30 * time.Second,
			// MySQL counts acknowledgements on the source only.
			AckedUnknown: true,
			Start: func() replicationtest.Server {
				f := w.start()
				started++
				m := f.member(started)
				t.Cleanup(func() {
					require.NoError(t, e.Close(m))
					require.NoError(t, denied.Close(m))
				})
				return replicationtest.Server{Member: m, Kill: f.Kill, Restart: f.Restart, Hang: f.hang(true), Resume: f.hang(false)}
			},
			Open: open8,
		}
	}
}

func open8(ctx context.Context, m replication.Member) (replicationtest.Session, error) {
	return openAs8(ctx, m, appUser, appPassword)
}

func openAs8(ctx context.Context, m replication.Member, user, password string) (replicationtest.Session, error) {
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.InterpolateParams = user, password, "tcp", m.Addr, true
	connector, err := sqldriver.NewConnector(c)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	conn, err := db.Conn(ctx)
	if err != nil {
		db.Close()
		return nil, err
	}
	return &session{db, conn}, nil
}

// The rules hold on fakes of MySQL, old and new, with the plugins' old names and new.
func TestMySQL8Engine(t *testing.T) {
	for _, version := range []struct{ number, source string }{{"8.0.36-0ubuntu0.22.04.1", "source"}, {"8.0.26", "master"}, {"8.4.3", "source"}} {
		t.Run(version.number, func(t *testing.T) {
			t.Parallel()
			replicationtest.Run(t, factory8(version.number, version.source))
		})
	}
}

// has waits until the fake holds the row.
func (f *fake8) has(t testing.TB, key string) {
	t.Helper()
	within(t, f.addr+" has "+key, func() bool {
		f.w.mu.Lock()
		defer f.w.mu.Unlock()
		_, ok := f.data[key]
		return ok
	})
}

// with changes a fake as an administrator, or a fault, would.
func (f *fake8) with(do func()) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	do()
	f.w.changed.Broadcast()
}

// put8 writes a row as an application.
func put8(ctx context.Context, m replication.Member, key string) error {
	s, err := open8(ctx, m)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Write(ctx, key, key)
}

// pair8 is a primary and a replica that has caught up.
func pair8(t *testing.T) (*mysql.Engine, []*fake8, []replication.Member) {
	t.Helper()
	e, f, m := set8(t, "8.4.3", 2)
	require.NoError(t, e.Promote(t.Context(), m[0], false))
	require.NoError(t, e.Follow(t.Context(), m[1], m[0]))
	require.NoError(t, put8(t.Context(), m[0], "first"))
	f[1].has(t, "first")
	return e, f, m
}

func TestMySQL8Status(t *testing.T) {
	e, f, m := pair8(t)
	require.NoError(t, e.SetSemiSync(t.Context(), m[0], true))
	within(t, "the primary has its replica", func() bool {
		st, err := e.Observe(t.Context(), m[0])
		return err == nil && st.Waiters == 1
	})
	st, err := e.Observe(t.Context(), m[0])
	require.NoError(t, err)
	at := replication.Position(f[0].uuid + ":1")
	require.Equal(t, replication.Status{Server: f[0].uuid, Version: "8.4.3", Writable: true, SemiSync: true, Waiters: 1,
		Received: at, Applied: at}, with(st, func(st *replication.Status) { st.Uptime = 0 }))
	st, err = e.Observe(t.Context(), m[1])
	require.NoError(t, err)
	require.Equal(t, replication.Status{Server: f[1].uuid, Version: "8.4.3", Source: m[0].Addr, Receives: true, Applies: true,
		Received: at, Applied: at}, with(st, func(st *replication.Status) { st.Uptime = 0 }))

	// Not semi-synchronous is what would let a commit go without a replica.
	for name, value := range map[string]string{"timeout": "10000", "wait_point": "AFTER_COMMIT", "wait_no_replica": "OFF"} {
		name = f[0].semi(name)
		f[0].with(func() { f[0].vars[name], value = value, f[0].vars[name] })
		st, err := e.Observe(t.Context(), m[0])
		require.NoError(t, err)
		require.False(t, st.SemiSync, name)
		f[0].with(func() { f[0].vars[name] = value })
	}

	f[1].with(func() { f[1].replica.sql = false })
	require.NoError(t, put8(t.Context(), m[0], "second"))
	within(t, "the replica has received it", func() bool {
		st, err := e.Observe(t.Context(), m[1])
		require.NoError(t, err)
		return !st.Applies && st.Applied == at && st.Received == replication.Position(f[0].uuid+":1-2")
	})
}

func with(st replication.Status, change func(*replication.Status)) replication.Status {
	change(&st)
	return st
}

func TestMySQL8Versions(t *testing.T) {
	for _, version := range []string{"5.7.44-log", "8.0.25", "8.0.11-TiDB-v7.5.0", "8", "nonsense"} {
		e, _, m := set8(t, version, 1)
		_, err := e.Observe(t.Context(), m[0])
		require.ErrorContains(t, err, "db-1", version)
		require.ErrorContains(t, err, version)
		require.ErrorContains(t, err, "MySQL 8.0.26 or later", version)
	}
}

// A set has servers of one kind: whoever is of the other one is named, and stays as it is.
func TestMySQL8WithMariaDB(t *testing.T) {
	n := start(t, 1)[0]
	e, _, m := set8(t, "8.0.36", 1)
	t.Cleanup(func() { require.NoError(t, e.Close(n.Member)) })
	n.Member.ID = "db-2"
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	_, seed := e.Seed(t.Context(), m[0], n.Member, nil)
	for role, err := range map[string]error{"primary": e.Follow(t.Context(), m[0], n.Member), "source": seed} {
		require.ErrorContains(t, err, "db-1")
		require.ErrorContains(t, err, "it runs MySQL and the "+role+" db-2 ("+n.Addr+") runs MariaDB")
	}
	require.ErrorContains(t, e.Follow(t.Context(), n.Member, m[0]), "it runs MariaDB and the primary db-1 ("+m[0].Addr+") runs MySQL")
	st, err := e.Observe(t.Context(), m[0])
	require.NoError(t, err)
	require.True(t, st.Empty && st.Source == "", "%+v", st)
	require.True(t, observe(t, e, n).Writable)
}

// Another server at the same address is noticed.
func TestMySQL8BecomesAnother(t *testing.T) {
	e, f, m := set8(t, "8.0.36", 1)
	_, err := e.Observe(t.Context(), m[0])
	require.NoError(t, err)
	f[0].with(func() {
		f[0].vars["version"] = "8.0.20"
		delete(f[0].vars, "log_replica_updates") // which that version does not have
	})
	for range 2 {
		_, err = e.Observe(t.Context(), m[0])
		require.ErrorContains(t, err, "too old")
	}
}
