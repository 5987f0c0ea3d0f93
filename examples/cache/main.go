// Cache shows what a cache does to the load of a database. A page that takes a slow query is read by many callers, first from
// a real MariaDB each time, then through cache.Query with a real memcached; both while the table is being written. It prints
// pages served and queries run, side by side, and that no page was out of date.
//
//	go run ./examples/cache
//
// It needs mariadbd and memcached, which it does not install: without them it says which packages to install, and exits 2.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

var errMissing = errors.New("real servers are missing")

const readers = 16

func main() {
	length := flag.Duration("for", 4*time.Second, "how long each half takes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, *length)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "cache:", err)
	if errors.Is(err, errMissing) {
		os.Exit(2)
	}
	os.Exit(1)
}

func run(ctx context.Context, length time.Duration) (err error) {
	password := rand.Text()
	s, err := startServers(ctx, password)
	if s != nil {
		defer func() { err = errors.Join(err, s.end()) }()
	}
	if err != nil {
		return err
	}
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr = "shop", password, "tcp", net.JoinHostPort(s.database, "3306")
	config.DBName, config.Timeout = "shop", 10*time.Second
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	db.SetMaxOpenConns(readers + 4)
	db.SetMaxIdleConns(readers + 4)
	if err := fill(ctx, db); err != nil {
		return err
	}
	client, err := memcached.New(memcached.Options{Servers: []cache.Server{{Slot: "cache-1", Addr: net.JoinHostPort(s.cache, "11211")}}})
	if err != nil {
		return err
	}
	defer client.Close()

	page := &cache.Query[product]{
		DB:  db,
		SQL: "SELECT name, COUNT(*), MAX(revision) FROM sales JOIN products USING (product) WHERE product = ? GROUP BY name",
		Scan: func(r *sql.Rows) (p product, err error) {
			err = r.Scan(&p.Name, &p.Sold, &p.Revision)
			return p, err
		},
		Cache: &cache.Of[[]product]{Store: client, Prefix: "sql:", TTL: time.Minute, Tags: cache.Tables("products", "sales")},
	}
	var halves []half
	for _, cached := range []bool{false, true} {
		h, err := measure(ctx, db, page, cached, length)
		if err != nil {
			return err
		}
		halves = append(halves, h)
	}
	report(halves[0], halves[1])
	if n := halves[1].old.Load(); n > 0 {
		return fmt.Errorf("%d pages were out of date", n)
	}
	return nil
}

type product struct {
	Name     string
	Sold     int
	Revision int64
}

func fill(ctx context.Context, db *sql.DB) error {
	for _, statement := range []string{
		"CREATE TABLE products (product INT PRIMARY KEY, name VARCHAR(40), revision BIGINT)",
		"CREATE TABLE sales (id INT PRIMARY KEY, product INT)",
		"INSERT INTO products SELECT seq, CONCAT('product ', seq), 0 FROM seq_1_to_50",
		"INSERT INTO sales SELECT seq, 1 + seq % 50 FROM seq_1_to_20000", // without an index on product: the query is slow
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// half is what was seen with the cache, or without it.
type half struct {
	seconds float64
	pages   int
	queries int // of the server, by its own count
	writes  int
	p50     time.Duration
	p99     time.Duration
	old     *atomic.Int64
}

// measure lets readers read pages as fast as they can, while one product is changed twice a second.
func measure(ctx context.Context, db *sql.DB, page *cache.Query[product], cached bool, length time.Duration) (h half, err error) {
	h.old = new(atomic.Int64)
	before, err := selects(ctx, db)
	if err != nil {
		return h, err
	}
	start := time.Now()
	timed, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var revision atomic.Int64 // as of the latest Invalidate that was acknowledged
	var failed atomic.Pointer[error]
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			var mine []time.Duration
			for n := i; timed.Err() == nil; n++ {
				number, least, at := 1+n%50, revision.Load(), time.Now()
				rows, err := read(ctx, page, cached, number)
				if err != nil {
					failed.Store(&err)
					cancel()
					break
				}
				mine = append(mine, time.Since(at))
				if number == 1 && (len(rows) != 1 || rows[0].Revision < least) {
					h.old.Add(1)
				}
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	for timed.Err() == nil {
		var next int64
		if _, err = db.ExecContext(ctx, "UPDATE products SET revision = revision + 1 WHERE product = 1"); err == nil {
			err = db.QueryRowContext(ctx, "SELECT revision FROM products WHERE product = 1").Scan(&next)
		}
		if err == nil && cached {
			err = cache.Invalidate(ctx, page.Cache.Store, "products")
		}
		if err != nil {
			cancel()
			break
		}
		revision.Store(next)
		h.writes++
		select {
		case <-timed.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	wg.Wait()
	if p := failed.Load(); p != nil {
		err = *p
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return h, err
	}
	after, err := selects(ctx, db)
	slices.Sort(took)
	h.seconds, h.pages, h.queries = time.Since(start).Seconds(), len(took), after-before
	h.p50, h.p99 = took[len(took)/2], took[len(took)*99/100]
	return h, err
}

func read(ctx context.Context, page *cache.Query[product], cached bool, number int) ([]product, error) {
	if cached {
		return page.Rows(ctx, number)
	}
	rows, err := page.DB.QueryContext(ctx, page.SQL, number)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []product
	for rows.Next() {
		p, err := page.Scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, rows.Err()
}

// selects is how many SELECT statements the server has run.
func selects(ctx context.Context, db *sql.DB) (n int, err error) {
	var name string
	err = db.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Com_select'").Scan(&name, &n)
	return n, err
}

func report(without, with half) {
	row := func(what, format string, of func(half) any) {
		fmt.Printf("%-28s %14s %14s\n", what, fmt.Sprintf(format, of(without)), fmt.Sprintf(format, of(with)))
	}
	fmt.Printf("%-28s %14s %14s\n", "", "without cache", "with cache")
	row("pages served per second", "%.0f", func(h half) any { return float64(h.pages) / h.seconds })
	row("MariaDB SELECTs per second", "%.0f", func(h half) any { return float64(h.queries) / h.seconds })
	row("SELECTs per 1000 pages", "%.1f", func(h half) any { return 1000 * float64(h.queries) / float64(h.pages) })
	row("page, median", "%v", func(h half) any { return h.p50.Round(time.Microsecond) })
	row("page, 99th percentile", "%v", func(h half) any { return h.p99.Round(time.Microsecond) })
	row("writes to the table", "%d", func(h half) any { return h.writes })
	row("pages out of date", "%d", func(h half) any { return h.old.Load() })
}
