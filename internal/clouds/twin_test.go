package clouds

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// twinConfig is the accounts of a twin, none of which its parent has.
var twinConfig = mysql.Config{User: "dev", Password: "dev-secret", ReplicationUser: "dev_replica", ReplicationPassword: "dev-secret2", Set: "dev/db"}

// A twin begins on a snapshot of the volume of its parent's replica, taken while rows are written there, and its host program is killed
// all the time. From the first connection that any of its servers takes nobody gets in with what the parent's accounts have; when it serves
// it has the rows of one position of the parent's, scrubbed; and neither knows of the other.
func TestTwinFromASnapshotWithMariaDB(t *testing.T) {
	m := onMariaDB(t)
	spec := databases("shop", 2, farm.Volume{})
	config := m.config("shop")
	production := config.Databases["db"]
	shop, err := farm.New(spec, config)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- shop.Run(ctx) }()
	defer func() { stop(); <-ran }()
	var primary farm.Server
	require.Eventually(t, func() bool {
		ready := 0
		for _, s := range shop.Servers("db") {
			if s.Ready {
				ready++
			}
			if s.Primary {
				primary = s
			}
		}
		return ready == 2 && primary.ID != ""
	}, patience, 50*time.Millisecond)
	db, err := open(primary)
	require.NoError(t, err)
	defer db.Close()
	for _, q := range []string{"CREATE DATABASE shop", "CREATE TABLE shop.people (id INT PRIMARY KEY, email VARCHAR(100))", "INSERT INTO shop.people VALUES (1, 'a@example.com')",
		"CREATE TABLE shop.orders (id INT PRIMARY KEY)", "CREATE USER app@'%' IDENTIFIED BY 'app-secret'", "GRANT ALL PRIVILEGES ON shop.* TO app@'%'"} {
		_, err := db.ExecContext(t.Context(), q)
		require.NoError(t, err)
	}
	engine, err := mysql.New(mysql.Config{User: "scalr", Password: "secret", ReplicationUser: "replica", ReplicationPassword: "secret2"})
	require.NoError(t, err)
	member := replication.Member{ID: "db", Addr: fmt.Sprintf("%s:%d", primary.Private, primary.Port)}
	defer engine.Close(member)
	base, err := engine.Observe(t.Context(), member)
	require.NoError(t, err)

	var tasks sync.WaitGroup
	working, end := context.WithCancel(t.Context())
	defer tasks.Wait()
	defer end()
	var written atomic.Int64
	tasks.Go(func() { // one transaction a row
		for n := 1; working.Err() == nil; n++ {
			if _, err := db.ExecContext(working, "INSERT INTO shop.orders VALUES (?)", n); err == nil {
				written.Add(1)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	require.Eventually(t, func() bool { return written.Load() > 150 }, patience, 20*time.Millisecond)

	var refused atomic.Int64
	tasks.Go(func() { // whoever has what the parent's accounts have
		for working.Err() == nil {
			instances, _ := m.cloud.Instances(working, map[string]string{farm.TagFarm: "dev"})
			for _, in := range instances {
				for user, password := range map[string]string{"scalr": "secret", "replica": "secret2", "app": "app-secret"} {
					db, _ := openAs(farm.Server{Private: in.Private, Port: 3306}, user, password)
					err := db.PingContext(working)
					if e := (*driver.MySQLError)(nil); errors.As(err, &e) {
						refused.Add(1)
					} else if err == nil {
						t.Errorf("%s has got in to %s", user, in.Name)
					}
					db.Close()
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
	})

	spec, warnings, err := spec.Clone("dev", farm.CloneOptions{Snapshots: true})
	require.NoError(t, err)
	require.Empty(t, warnings)
	twinEngine, err := mysql.New(twinConfig)
	require.NoError(t, err)
	scrub := func(ctx context.Context, m replication.Member) error {
		c := driver.NewConfig()
		c.User, c.Passwd, c.Net, c.Addr = twinConfig.User, twinConfig.Password, "tcp", m.Addr
		c.MultiStatements = true
		connector, err := driver.NewConnector(c)
		if err != nil {
			return err
		}
		db := sql.OpenDB(connector)
		defer db.Close()
		_, err = db.ExecContext(ctx, "UPDATE shop.people SET email = 'somebody'; ALTER USER app@'%' IDENTIFIED BY 'dev-app' ACCOUNT UNLOCK")
		return err
	}
	var dev *farm.Farm
	run := func(d time.Duration) (whole bool) {
		manager, err := replication.New(replication.Config{Name: "dev/db", Engine: twinEngine, Origin: &replication.Origin{Volumes: true, Source: production.Source, Scrub: scrub}})
		require.NoError(t, err)
		c := quick(farm.Pool{Name: "local", Provider: m.cloud, Images: map[string]string{"mariadb": "twin"}})
		c.Databases, c.Interval = map[string]*replication.Manager{"db": manager}, 100*time.Millisecond
		dev, err = farm.New(spec, c)
		require.NoError(t, err)
		ctx, stop := context.WithTimeout(t.Context(), d)
		defer stop()
		ran := make(chan error, 1)
		go func() { ran <- dev.Run(ctx) }()
		for ctx.Err() == nil && !whole {
			ready, primary := 0, false
			for _, s := range dev.Servers("db") {
				if s.Ready {
					ready++
				}
				primary = primary || s.Primary
			}
			whole = ready == 2 && primary
			time.Sleep(20 * time.Millisecond)
		}
		stop()
		<-ran
		return whole
	}
	kills := 0
	for d := 400 * time.Millisecond; !run(d); d += 300 * time.Millisecond {
		kills++
		require.Less(t, d, patience)
	}
	t.Logf("killed %d times", kills)
	var at, addr string
	for _, s := range dev.Servers("db") {
		if s.Primary {
			addr = fmt.Sprintf("%s:%d", s.Private, s.Port)
			db, err := openAs(s, twinConfig.User, twinConfig.Password)
			require.NoError(t, err)
			defer db.Close()
			require.NoError(t, db.QueryRowContext(t.Context(), "SELECT position FROM mysql.scalr_imported").Scan(&at))
		}
	}
	n, exact := engine.Count(replication.Position(at), base.Applied)
	require.True(t, exact)
	require.NotZero(t, n)
	for _, s := range dev.Servers("db") {
		db, err := openAs(s, twinConfig.User, twinConfig.Password)
		require.NoError(t, err)
		defer db.Close()
		for query, want := range map[string]string{
			"SELECT COUNT(*) FROM shop.orders":            fmt.Sprint(n),
			"SELECT GROUP_CONCAT(email) FROM shop.people": "somebody"} {
			var got string
			require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&got))
			require.Equal(t, want, got, "%s of %s", query, s.Name)
		}
		member := replication.Member{ID: s.Name, Addr: fmt.Sprintf("%s:%d", s.Private, s.Port)}
		st, err := twinEngine.Observe(t.Context(), member)
		require.NoError(t, err)
		require.NoError(t, twinEngine.Close(member))
		require.Equal(t, !s.Primary, st.Source == addr)
		require.Equal(t, replication.Diverged, twinEngine.Compare(st.Applied, replication.Position(at)), "the histories have nothing in common")
		app, err := openAs(s, "app", "dev-app")
		require.NoError(t, err)
		defer app.Close()
		require.NoError(t, app.PingContext(t.Context()))
	}
	before := refused.Load()
	require.Eventually(t, func() bool { return refused.Load() > before+6 }, patience, 20*time.Millisecond) // also now
	mine, err := openAs(primary, twinConfig.User, twinConfig.Password)
	require.NoError(t, err)
	defer mine.Close()
	require.ErrorContains(t, mine.PingContext(t.Context()), "Access denied", "the parent does not know the twin")
	end()
	tasks.Wait()
	stop()
	ran <- <-ran
	for _, f := range []*farm.Farm{dev, shop} {
		require.NoError(t, f.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true}))
	}
	require.True(t, left(t, m.cloud, "dev") && left(t, m.cloud, "shop"), "nothing is left")
}
