package clouds

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// marias makes farms of MariaDB servers on this machine.
type marias struct {
	t      *testing.T
	cloud  *local.Cloud
	images map[string]local.Image
	events func(scalr.Event) // of the databases' Managers
}

func onMariaDB(t *testing.T) marias {
	testenv.Need(t, "mariadbd", "mariadb-install-db")
	twin, err := local.MariaDB{User: twinConfig.User, Password: twinConfig.Password,
		SQL: strings.Split(strings.TrimRight(mysql.BootstrapSQL(twinConfig), ";\n"), ";\n"),
		Config: func(m local.Machine) string {
			return mysql.ServerConf(mysql.Server{Bind: m.Addr.String(), Port: 3306, BufferPool: 16 << 20})
		}}.Image()
	require.NoError(t, err)
	image, err := local.MariaDB{User: "scalr", Password: "secret", Config: func(m local.Machine) string {
		return mysql.ServerConf(mysql.Server{Bind: m.Addr.String(), Port: 3306, BufferPool: 16 << 20})
	}}.Image()
	require.NoError(t, err)
	images := map[string]local.Image{"mariadb": image, "mariadb-2": image, "twin": twin}
	return marias{t: t, cloud: testenv.Cloud(t, images), images: images}
}

// config is what a farm is made with; its database is its own.
func (m marias) config(name string) farm.Config {
	engine, err := mysql.New(mysql.Config{User: "scalr", Password: "secret", ReplicationUser: "replica", ReplicationPassword: "secret2"})
	require.NoError(m.t, err)
	manager, err := replication.New(replication.Config{Name: name + "/db", Engine: engine, Events: m.events})
	require.NoError(m.t, err)
	config := quick(farm.Pool{Name: "local", Provider: m.cloud})
	config.Databases, config.Interval = map[string]*replication.Manager{"db": manager}, 200*time.Millisecond
	return config
}

func databases(name string, n int, v farm.Volume) farm.Spec {
	v.SizeGB = 1
	return farm.Spec{Name: name, Roles: []farm.Role{{Name: "db", Serves: farm.Database, Image: "mariadb", Min: n, Max: n, Volume: &v}}}
}

// rows counts the rows that a member has, or gives -1 and the error.
func rows(ctx context.Context, s farm.Server) (n int, err error) {
	db, err := open(s)
	if err != nil {
		return -1, err
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM shop.orders").Scan(&n); err != nil {
		return -1, err
	}
	return n, nil
}

// has waits until a farm has so many databases, all of which serve and have at least so many rows.
func has(t *testing.T, shop *farm.Farm, servers, want int) {
	t.Helper()
	require.Eventually(t, func() bool {
		all := shop.Servers("db")
		for _, s := range all {
			if n, err := rows(t.Context(), s); !s.Ready || err != nil || n < want {
				return false
			}
		}
		return len(all) == servers
	}, patience, 50*time.Millisecond)
}

// on runs statements on the primary, again and again until it takes them all.
func on(t *testing.T, shop *farm.Farm, statements ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, s := range shop.Servers("db") {
			if s.Ready && s.Primary {
				db, err := open(s)
				require.NoError(t, err)
				defer db.Close()
				for _, q := range statements {
					if _, err := db.ExecContext(t.Context(), q); err != nil {
						return false
					}
				}
				return true
			}
		}
		return false
	}, patience, 50*time.Millisecond)
}

func open(s farm.Server) (*sql.DB, error) { return openAs(s, "scalr", "secret") }

func openAs(s farm.Server, user, password string) (*sql.DB, error) {
	c := driver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.Logger = user, password, "tcp", fmt.Sprintf("%s:%d", s.Private, s.Port), &driver.NopLogger{}
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// TestADrillWithMariaDB copies the volume of a running replica, while rows are written to the primary, and lets a drill start
// servers from the copy: they recover, one becomes the primary, the other follows it, and both have every row that the replica had.
func TestADrillWithMariaDB(t *testing.T) {
	m := onMariaDB(t)
	spec := databases("shop", 2, farm.Volume{Snapshots: &farm.Snapshots{Every: 3 * time.Second, Keep: 1}})
	shop, err := farm.New(spec, m.config("shop"))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- shop.Run(ctx) }()
	defer func() { stop(); <-ran }()

	var primary, replica farm.Server
	require.Eventually(t, func() bool {
		primary, replica = farm.Server{}, farm.Server{}
		for _, s := range shop.Servers("db") {
			switch {
			case s.Ready && s.Primary:
				primary = s
			case s.Ready:
				replica = s
			}
		}
		return primary.ID != "" && replica.ID != ""
	}, patience, 50*time.Millisecond)
	db, err := open(primary)
	require.NoError(t, err)
	defer db.Close()
	for _, q := range []string{"CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY) ENGINE=InnoDB"} {
		_, err := db.ExecContext(t.Context(), q)
		require.NoError(t, err)
	}
	written := 0
	insert := func() error {
		written++
		_, err := db.ExecContext(t.Context(), "INSERT INTO shop.orders VALUES (?)", written)
		return err
	}
	for range 100 {
		require.NoError(t, insert())
	}
	require.Eventually(t, func() bool { n, _ := rows(t.Context(), replica); return n >= 100 }, patience, 20*time.Millisecond)
	since := time.Now()
	var copied provider.Snapshot
	require.Eventually(t, func() bool {
		_ = insert() // the copy is of a server at work; while one is frozen for it, an acknowledgement may fail
		for _, list := range copies(t, m.cloud, "shop") {
			for _, x := range list {
				if x.Ready && x.Created.After(since) && x.Tags[farm.TagIndex] == fmt.Sprint(replica.Index) {
					copied = x
				}
			}
		}
		return copied.ID != ""
	}, patience, 20*time.Millisecond)
	stop()
	ran <- <-ran

	drill := databases("drill-shop", 2, farm.Volume{From: &farm.Source{Farm: "shop"}})
	report, err := farm.Drill{Spec: drill, Config: m.config("drill-shop"), Timeout: patience, Check: func(ctx context.Context, f *farm.Farm) error {
		for _, s := range f.Servers("db") {
			n, err := rows(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			if n < 100 || n > written {
				return fmt.Errorf("%s has %d rows, want 100 to %d", s.Name, n, written)
			}
			t.Logf("%s has %d of %d rows, primary: %v", s.Name, n, written, s.Primary)
		}
		return nil
	}}.Run(t.Context())
	require.NoError(t, err, "%+v", report)
	require.Len(t, report.Restored, 2)
	t.Logf("%+v", report)

	shop, err = farm.New(spec, m.config("shop"))
	require.NoError(t, err)
	require.NoError(t, shop.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true}))
	for _, name := range []string{"shop", "drill-shop"} {
		require.True(t, left(t, m.cloud, name), "nothing is left of %s", name)
	}
}

// left reports whether a farm has neither machines, volumes nor snapshots.
func left(t *testing.T, c *local.Cloud, name string) bool {
	t.Helper()
	tags := map[string]string{farm.TagFarm: name}
	instances, err := c.Instances(t.Context(), tags)
	require.NoError(t, err)
	volumes, err := c.Volumes(t.Context(), tags)
	require.NoError(t, err)
	instances = slices.DeleteFunc(instances, func(i provider.Instance) bool { return i.State.Gone() })
	return len(instances)+len(volumes)+len(copies(t, c, name)) == 0
}
