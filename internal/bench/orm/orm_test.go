// Package orm tries the pool under an ORM and under sqlx, in a module of its own, so that neither is a dependency of the
// library.
package orm

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
	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	gormmysql "gorm.io/driver/mysql"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
	"github.com/scalr-go/scalr/replication/pool"
)

// set runs a replicated MariaDB, and gives its Manager and a pool over it.
func set(t *testing.T) (*replication.Manager, *pool.DB) {
	config := mysql.Config{User: "scalr", Password: "admin-pass", ReplicationUser: "scalr_repl", ReplicationPassword: "repl-pass"}
	servers := testenv.MariaDBWith(t, 3, local.MariaDB{
		User: config.User, Password: config.Password,
		Config: func(m local.Machine) string {
			return mysql.ServerConf(mysql.Server{Bind: m.Addr.String(), More: []string{"sync_binlog = 0", "innodb_flush_log_at_trx_commit = 2"}})
		},
		SQL: append(strings.Split(strings.TrimRight(mysql.BootstrapSQL(config), ";\n"), ";\n"),
			"CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY 'app-pass'", "GRANT ALL PRIVILEGES ON app.* TO app@'%'"),
	})
	engine, err := mysql.New(config)
	require.NoError(t, err)
	manager, err := replication.New(replication.Config{Name: "orm/db", Engine: engine})
	require.NoError(t, err)
	var members []replication.Member
	for i, s := range servers {
		members = append(members, replication.Member{ID: fmt.Sprintf("db-%d", i+1), Addr: s.Addr, Machine: s.ID, Fence: s.Stop})
	}
	manager.SetMembers(members, len(members))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- manager.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.ParseTime = "app", "app-pass", true
	client, err := mysql.NewClient(c)
	require.NoError(t, err)
	db, err := pool.Open(pool.Config{Driver: client, Manager: manager})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.Writer.Exec("CREATE SCHEMA app")
	require.NoError(t, err)
	return manager, db
}

// Item is a row as an application has it.
type Item struct {
	ID      uint64 `db:"id"`
	Name    string `db:"name" gorm:"size:100;uniqueIndex"`
	Price   int    `db:"price"`
	Created time.Time
}

func (Item) TableName() string { return "app.items" }

// An ORM and sqlx work over the pool as over any *sql.DB. While the primary changes as planned they see no error, but for a transaction
// that has written and does not end within the moment that it is given.
func TestORMAndSqlxHoldThroughASwitchover(t *testing.T) {
	manager, db := set(t)
	open := func(conn gorm.ConnPool) *gorm.DB {
		g, err := gorm.Open(gormmysql.New(gormmysql.Config{Conn: conn}), &gorm.Config{Logger: logger.Discard, TranslateError: true})
		require.NoError(t, err)
		return g
	}
	writer, reader := open(db.Writer), open(db.Reader)
	require.NoError(t, writer.AutoMigrate(&Item{}))
	x := sqlx.NewDb(db.Writer, "mysql")
	xr := sqlx.NewDb(db.Reader, "mysql")

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var users sync.WaitGroup
	var rounds, unlucky, rejected atomic.Int64
	use := func(who string, work func(ctx context.Context, name string) error) {
		users.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				// A write whose connection is cut in that instant is the one thing that a pool cannot make good.
				switch err := work(pool.WithSession(ctx, pool.NewSession("")), fmt.Sprint(who, "-", i)); {
				case errors.Is(err, pool.ErrAmbiguous):
					unlucky.Add(1)
				case err != nil && ctx.Err() == nil:
					t.Errorf("%s: %v", who, err)
					return
				}
				rounds.Add(1)
			}
		})
	}
	// A transaction that has written and is open when its server becomes read-only is the caller's to run again. Gorm makes one of each
	// write, and on a slow machine it may take its time.
	again := func(transaction func() error) error {
		err := transaction()
		if errors.Is(err, pool.ErrRejected) {
			rejected.Add(1)
			err = transaction()
		}
		return err
	}
	use("gorm", func(ctx context.Context, name string) error {
		var item Item
		err := again(func() error {
			item = Item{Name: name, Price: 1, Created: time.Now()}
			return writer.WithContext(ctx).Create(&item).Error
		})
		if err != nil {
			return err
		}
		err = again(func() error {
			return writer.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
				return tx.Model(&Item{}).Where("id = ?", item.ID).Update("price", 2).Error
			})
		})
		if err != nil {
			return err
		}
		var read Item
		if err := reader.WithContext(ctx).First(&read, item.ID).Error; err != nil {
			return err
		}
		if read.Name != name || read.Price != 2 {
			return fmt.Errorf("read %+v after it was written", read)
		}
		return nil
	})
	use("sqlx", func(ctx context.Context, name string) error {
		if _, err := x.NamedExecContext(ctx, "INSERT INTO app.items (name, price, created) VALUES (:name, :price, NOW())", Item{Name: name, Price: 1}); err != nil {
			return err
		}
		var list []Item
		if err := xr.SelectContext(ctx, &list, "SELECT id, name, price FROM app.items WHERE name = ?", name); err != nil {
			return err
		}
		if len(list) != 1 {
			return fmt.Errorf("read %d rows after one was written", len(list))
		}
		return nil
	})
	worked := func() {
		for before, end := rounds.Load(), time.Now().Add(time.Minute); rounds.Load() < before+40 && !t.Failed(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nobody works")
			}
		}
	}
	for range 3 {
		worked()
		whole(t, manager)
		require.NoError(t, manager.Switchover(t.Context(), ""))
	}
	worked()
	cancel()
	users.Wait()
	require.LessOrEqual(t, unlucky.Load(), int64(3))
	t.Logf("%d of %d rounds met a transaction that was rejected", rejected.Load(), rounds.Load())
	require.LessOrEqual(t, rejected.Load(), int64(3), "one transaction was under way at each of three changes")

	require.ErrorIs(t, writer.Create(&Item{Name: "gorm-0", Created: time.Now()}).Error, gorm.ErrDuplicatedKey, "the server's errors are its driver's")
	require.ErrorIs(t, reader.First(&Item{}, "name = ?", "no such").Error, gorm.ErrRecordNotFound)
}

// whole waits until every member serves.
func whole(t *testing.T, m *replication.Manager) {
	t.Helper()
	for end := time.After(time.Minute); ; {
		top, changed := m.Topology()
		serve := 0
		for _, x := range top.Members {
			if x.Serves {
				serve++
			}
		}
		if top.Primary != "" && serve == len(top.Members) {
			return
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("the set is not whole: %+v", top)
		}
	}
}
