package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rowBytes is about what one row takes.
const rowBytes = 1024

// load fills the parent's database and waits until its replica has all of it.
func (s *site) load(ctx context.Context, gb float64) (rows int, err error) {
	_, primary := s.members()
	db := s.admin(primary)
	defer db.Close()
	rows = max(1000, int(gb*1e9/rowBytes))
	for _, statement := range []string{"CREATE SCHEMA app",
		"CREATE TABLE app.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT NOT NULL DEFAULT 0, pad VARBINARY(1000) NOT NULL)",
		"CREATE TABLE app.people (id INT PRIMARY KEY, email VARCHAR(100))",
		"CREATE VIEW app.addresses AS SELECT email FROM app.people",
		"INSERT INTO app.people SELECT seq, CONCAT('name-', seq, '@customer.example') FROM app.seq_1_to_1000"} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return 0, err
		}
	}
	const chunk = 10000
	for from := 1; from <= rows; from += chunk {
		to := min(from+chunk-1, rows)
		// 64 characters of hash fifteen times over: no two rows are alike.
		if _, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO app.t (id, pad) SELECT seq, REPEAT(SHA2(seq, 256), 15) FROM app.seq_%d_to_%d", from, to)); err != nil {
			return 0, err
		}
	}
	return rows, until(ctx, "the replica has the data", time.Hour, func() bool {
		all, _ := s.members()
		first, err := s.engine.Observe(ctx, all[0])
		if err != nil {
			return false
		}
		second, err := s.engine.Observe(ctx, all[1])
		return err == nil && first.Applied == second.Applied && len(all) == 2
	})
}

// commit is a change of one row that was acknowledged.
type commit struct {
	row      int64
	inserted bool
	seq      uint64 // of its GTID; the parent has one domain and one primary throughout
	at       time.Time
}

// traffic is the parent's writers.
type traffic struct {
	mu      sync.Mutex
	commits []commit
	err     error
	end     context.CancelFunc
	writers sync.WaitGroup
}

// write changes and adds rows until stop is called. Each writer pauses for a millisecond after each commit.
func (s *site) write(ctx context.Context, writers, rows int) *traffic {
	_, primary := s.members()
	t := new(traffic)
	ctx, t.end = context.WithCancel(ctx)
	for range writers {
		t.writers.Go(func() {
			db := connect("app", s.w.apps[0], primary.Addr)
			defer db.Close()
			conn, err := db.Conn(ctx)
			if err == nil {
				defer conn.Close()
			}
			for ctx.Err() == nil && err == nil {
				var c commit
				if c, err = change(ctx, conn, rows); err == nil {
					t.mu.Lock()
					t.commits = append(t.commits, c)
					t.mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			}
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.err == nil && ctx.Err() == nil {
				t.err = err
			}
		})
	}
	return t
}

// change makes one commit. A context that ends does not cut it off: its fate must be known.
func change(ctx context.Context, conn *sql.Conn, rows int) (c commit, err error) {
	ctx = context.WithoutCancel(ctx)
	if rand.IntN(4) == 0 {
		var r sql.Result
		if r, err = conn.ExecContext(ctx, "INSERT INTO app.t (v, pad) VALUES (1, 'added')"); err == nil {
			c.inserted = true
			c.row, err = r.LastInsertId()
		}
	} else {
		c.row = 1 + rand.Int64N(int64(rows))
		_, err = conn.ExecContext(ctx, "UPDATE app.t SET v = v + 1 WHERE id = ?", c.row)
	}
	c.at = time.Now()
	if err != nil {
		return c, err
	}
	var gtid string
	if err := conn.QueryRowContext(ctx, "SELECT @@last_gtid").Scan(&gtid); err != nil {
		return c, err
	}
	c.seq = sequence(gtid)
	return c, check(c.seq > 0, "the GTID of a commit is %q", gtid)
}

// sequence is the highest number in a list of GTIDs.
func sequence(position string) (highest uint64) {
	for g := range strings.SplitSeq(position, ",") {
		n, _ := strconv.ParseUint(strings.TrimRight(g[strings.LastIndexByte(g, '-')+1:], "+"), 10, 64)
		highest = max(highest, n)
	}
	return highest
}

func (t *traffic) stop() {
	t.end()
	t.writers.Wait()
}

// longest is the longest time without an acknowledgement between two moments, in ms, and how many there were.
func (t *traffic) longest(from, to time.Time) (ms float64, n int) {
	var at []time.Time
	for _, c := range t.commits {
		at = append(at, c.at)
	}
	return longest(at, from, to)
}

func longest(at []time.Time, from, to time.Time) (ms float64, n int) {
	times := []time.Time{from, to}
	for _, at := range at {
		if at.After(from) && at.Before(to) {
			times = append(times, at)
			n++
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 1; i < len(times); i++ {
		ms = max(ms, float64(times[i].Sub(times[i-1]).Microseconds())/1000)
	}
	return ms, n
}

// at gives the value of each row that had been changed or added at a position.
func (t *traffic) at(position string) map[int64]int {
	rows := map[int64]int{}
	for _, c := range t.commits {
		if c.seq <= sequence(position) {
			rows[c.row]++ // an added row begins with 1
		}
	}
	return rows
}
