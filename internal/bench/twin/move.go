package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/replication/mysql"
	"github.com/scalr-go/scalr/replication/pool"
)

// Moved is what came of a move.
type Moved struct {
	MoveMs      int64   `json:"move_ms"` // until nothing was left where the farm was
	MovePauseMs float64 `json:"move_pause_ms"`
	SwitchMs    float64 `json:"switch_pause_ms"` // the longest within 5 s of the change of primary: the rest is what copies cost
	MoveWritten int     `json:"move_written"`    // rows that were acknowledged meanwhile
	MoveReads   int     `json:"move_reads"`
	Lost        int     `json:"lost"`
	FailedReads int     `json:"failed_reads"`
}

// clients use a database while it moves.
type clients struct {
	s    *site
	zone string
	pool *pool.DB
	end  context.CancelFunc
	all  sync.WaitGroup

	mu     sync.Mutex
	rows   []int64 // that were acknowledged
	acks   []time.Time
	reads  int
	failed []string // reads

	failedWrites []string
}

// move takes the farm to the other cloud while clients use it.
func (s *site) move(ctx context.Context, writers int) (m Moved, err error) {
	_, primary := s.members()
	admin := s.admin(primary)
	_, err = admin.ExecContext(ctx, "CREATE TABLE app.moved (id BIGINT PRIMARY KEY)")
	if admin.Close(); err != nil {
		return m, err
	}
	c, err := s.use(ctx, writers)
	if err != nil {
		return m, err
	}
	defer c.stop()
	time.Sleep(2 * time.Second)
	spec, err := s.spec.Move(farm.MoveOptions{Pools: []string{"there"}, Move: farm.Move{DeleteVolumes: true}})
	if err != nil {
		return m, err
	}
	began := time.Now()
	if err := s.run(spec); err != nil {
		return m, err
	}
	err = until(ctx, "the farm has moved", 2*time.Hour, func() bool {
		n := 0
		for _, x := range s.farm.Servers("db") {
			if x.Ready && x.Pool == "there" {
				n++
			}
		}
		here, err1 := s.w.cloud.Instances(ctx, map[string]string{farm.TagFarm: s.spec.Name})
		volumes, err2 := s.w.cloud.Volumes(ctx, map[string]string{farm.TagFarm: s.spec.Name})
		gone := 0
		for _, in := range here {
			if in.State.Gone() {
				gone++
			}
		}
		return err1 == nil && err2 == nil && gone == len(here) && len(volumes) == 0 && n == spec.Roles[0].Min
	})
	if err != nil {
		p, _ := s.farm.Plan(ctx)
		return m, fmt.Errorf("%w\n%s", err, p)
	}
	ended := time.Now()
	time.Sleep(2 * time.Second) // for those who still have an old answer
	stopped := time.Now()
	c.stop()
	if len(c.failedWrites) > 0 {
		return m, fmt.Errorf("%d writes failed, the first: %s", len(c.failedWrites), c.failedWrites[0])
	}
	for i, f := range c.failed {
		if i < 5 {
			fmt.Fprintln(os.Stderr, "a read failed:", f)
		}
	}
	m.MoveMs, m.MoveReads, m.FailedReads = ended.Sub(began).Milliseconds(), c.reads, len(c.failed)
	m.MovePauseMs, m.MoveWritten = longest(c.acks, began, stopped)
	if at := s.switched(); at.After(began) {
		to := at.Add(5 * time.Second)
		if to.After(stopped) {
			to = stopped
		}
		m.SwitchMs, _ = longest(c.acks, at.Add(-5*time.Second), to)
	}
	m.Lost, err = c.lost(ctx)
	return m, err
}

// use makes clients use the database until stop is called.
func (s *site) use(ctx context.Context, writers int) (*clients, error) {
	config := sqldriver.NewConfig()
	config.User, config.Passwd, config.InterpolateParams = "app", s.w.apps[s.which], true
	client, err := mysql.NewClient(config)
	if err != nil {
		return nil, err
	}
	c := &clients{s: s, zone: s.spec.Zone}
	if c.pool, err = pool.Open(pool.Config{Driver: client, Manager: s.manager}); err != nil {
		return nil, err
	}
	c.pool.Writer.SetMaxIdleConns(writers)
	ctx, c.end = context.WithCancel(ctx)
	for range writers {
		c.all.Go(func() { c.write(ctx) })
		c.all.Go(func() { c.read(ctx, c.pool.Reader) })
	}
	for _, name := range []string{"sql", "db-replicas"} {
		c.all.Go(func() { c.readByName(ctx, name+"."+c.zone) })
	}
	return c, nil
}

func (c *clients) stop() {
	c.end()
	c.all.Wait()
	c.pool.Close()
}

func (c *clients) write(ctx context.Context) {
	for ctx.Err() == nil {
		row := rand.Int64()
		_, err := c.pool.Writer.ExecContext(context.WithoutCancel(ctx), "INSERT INTO app.moved VALUES (?)", row)
		c.mu.Lock()
		if err == nil {
			c.rows, c.acks = append(c.rows, row), append(c.acks, time.Now())
		} else {
			c.failedWrites = append(c.failedWrites, err.Error())
		}
		c.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
}

// read reads one row after another.
func (c *clients) read(ctx context.Context, db *sql.DB) {
	for ctx.Err() == nil {
		c.readOnce(ctx, db, "through the pool", false)
		time.Sleep(5 * time.Millisecond)
	}
}

// readOnce reads a row. Again: a connection that is cut is made once more, to the same address.
func (c *clients) readOnce(ctx context.Context, db *sql.DB, from string, again bool) {
	var v int
	query := func() error {
		return db.QueryRowContext(context.WithoutCancel(ctx), "SELECT v FROM app.t WHERE id = ?", 1+rand.IntN(1000)).Scan(&v)
	}
	err := query()
	if again && errors.Is(err, sqldriver.ErrInvalidConn) {
		err = query()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reads++; err != nil {
		c.failed = append(c.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), from, err))
	}
}

// readByName reads from an address that a name led to, over a connection of its own, for as long as the answer may be kept.
func (c *clients) readByName(ctx context.Context, name string) {
	a := &answer{w: c.s.w, zone: c.zone, name: name}
	for ctx.Err() == nil {
		addr := net.JoinHostPort(a.addr(ctx), "3306")
		db := connect("app", c.s.w.apps[c.s.which], addr)
		c.readOnce(ctx, db, name+" at "+addr, strings.HasPrefix(name, "sql."))
		db.Close()
		time.Sleep(10 * time.Millisecond)
	}
}

// answer is what a name server has said of a name, kept for as long as it may be.
type answer struct {
	w          *world
	zone, name string
	addrs      []string
	until      time.Time
}

// addr gives one of the addresses, or words that are none.
func (a *answer) addr(ctx context.Context) string {
	if time.Now().After(a.until) {
		if records, err := a.w.names.Records(ctx, a.zone); err == nil {
			a.addrs = nil
			for _, r := range records {
				if r.Name == a.name && r.Type == "A" {
					a.addrs, a.until = slices.Clone(r.Values), time.Now().Add(r.TTL)
				}
			}
		}
	}
	if len(a.addrs) == 0 {
		return "no address"
	}
	return a.addrs[rand.IntN(len(a.addrs))]
}

// switched is when the primary was switched over.
func (s *site) switched() (at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == scalr.Kind(farm.SwitchOver) {
			at = e.Time
		}
	}
	return at
}

// lost counts the acknowledged rows that are not there.
func (c *clients) lost(ctx context.Context) (int, error) {
	_, primary := c.s.members()
	db := c.s.admin(primary)
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id FROM app.moved")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	there := map[int64]bool{}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return 0, err
		}
		there[id] = true
	}
	lost := 0
	for _, id := range c.rows {
		if !there[id] {
			lost++
		}
	}
	return lost, rows.Err()
}
