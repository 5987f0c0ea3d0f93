package mysql_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

func BenchmarkObserve(b *testing.B) {
	e, primary, replica := pair(b)
	for name, n := range map[string]*node{"primary": primary, "replica": replica} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, err := e.Observe(b.Context(), n.Member)
				require.NoError(b, err)
			}
		})
	}
}

// BenchmarkSteps measures the parts of a change of primary, in ms: the medians.
func BenchmarkSteps(b *testing.B) {
	e, primary, replica := pair(b)
	took := map[string][]float64{}
	measure := func(name string, step func() error) {
		began := time.Now()
		require.NoError(b, step())
		took[name] = append(took[name], float64(time.Since(began).Microseconds())/1000)
	}
	for b.Loop() {
		exec(b, primary.app(b), "INSERT INTO app.t (v) VALUES ('x')")
		measure("fence-ms", func() error { return e.Fence(b.Context(), primary.Member) })
		caughtUp(b, e, replica, primary)
		measure("drain-ms", func() error { _, err := e.Drain(b.Context(), replica.Member); return err })
		measure("promote-ms", func() error { return e.Promote(b.Context(), replica.Member, true) })
		measure("follow-ms", func() error { return e.Follow(b.Context(), primary.Member, replica.Member) })
		within(b, "it receives", func() bool { return observe(b, e, primary).Receives })
		primary, replica = replica, primary
	}
	for name, values := range took {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], name)
	}
	b.ReportMetric(0, "ns/op")
}

// bulk gives a primary with 400,000 rows and their size, and its replica.
func bulk(b *testing.B) (e *mysql.Engine, source, target *node, size int64) {
	b.Helper()
	e, source, target = pair(b)
	db := source.admin(b)
	exec(b, db, "CREATE TABLE app.s (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(50), b INT, c DATETIME, d TEXT, KEY (b))")
	for range 40 {
		exec(b, db, "INSERT INTO app.s (a, b, c, d) SELECT MD5(seq), seq, NOW(), REPEAT(MD5(seq), 8) FROM app.seq_1_to_10000")
	}
	_, err := fmt.Sscan(one(b, db, "SELECT CAST(SUM(LENGTH(a)+LENGTH(d)+17) AS SIGNED) FROM app.s"), &size)
	require.NoError(b, err)
	return e, source, target, size
}

func BenchmarkSeed(b *testing.B) {
	e, source, target, size := bulk(b)
	b.SetBytes(size)
	for b.Loop() {
		_, err := e.Seed(b.Context(), target.Member, source.Member, func(replication.Progress) {})
		require.NoError(b, err)
	}
}

// BenchmarkSeedTables measures a copy of four tables over one session, which a commit before each snapshot leaves it, and over four.
func BenchmarkSeedTables(b *testing.B) {
	e, source, target := pair(b)
	db, app := source.admin(b), source.app(b)
	var size int64
	for _, table := range []string{"a", "b", "c", "d"} {
		exec(b, db, "CREATE TABLE app."+table+" (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(50), b INT, c DATETIME, d TEXT, KEY (b))")
		for range 20 {
			exec(b, db, "INSERT INTO app."+table+" (a, b, c, d) SELECT MD5(seq), seq, NOW(), REPEAT(MD5(seq), 8) FROM app.seq_1_to_10000")
		}
		var n int64
		_, err := fmt.Sscan(one(b, db, "SELECT CAST(SUM(LENGTH(a)+LENGTH(d)+17) AS SIGNED) FROM app."+table), &n)
		require.NoError(b, err)
		size += n
	}
	c := config
	c.DialContext = between(source, func(int) { exec(b, app, "INSERT INTO app.t (v) VALUES ('x')") })
	for _, run := range []struct {
		name string
		e    *mysql.Engine
	}{{"one", engine(b, c, source, target)}, {"several", e}} {
		b.Run(run.name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				_, err := run.e.Seed(b.Context(), target.Member, source.Member, nil)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkBackup(b *testing.B) {
	e, source, target, size := bulk(b)
	var w bytes.Buffer
	b.Run("backup", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			w.Reset()
			_, err := e.Backup(b.Context(), source.Member, &w, nil)
			require.NoError(b, err)
		}
	})
	b.Run("restore", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			_, err := e.Restore(b.Context(), target.Member, bytes.NewReader(w.Bytes()), nil, nil)
			require.NoError(b, err)
		}
	})
}

// BenchmarkApply measures how fast a replica applies what eight writers have committed one row at a time, relative to how fast
// they did: a replica below 1 is left behind by a primary that is written to at full speed.
func BenchmarkApply(b *testing.B) {
	for name, more := range map[string][]string{
		"default":      nil,
		"conservative": {"slave_parallel_threads = 8", "slave_parallel_mode = conservative"},
		"optimistic":   {"slave_parallel_threads = 8", "slave_parallel_mode = optimistic"},
	} {
		b.Run(name, func(b *testing.B) {
			nodes := start(b, 2, more...)
			e := engine(b, config, nodes...)
			primary, replica := nodes[0], nodes[1]
			require.NoError(b, e.Promote(b.Context(), primary.Member, false))
			exec(b, primary.admin(b), "CREATE DATABASE app", "CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200))")
			require.NoError(b, e.Follow(b.Context(), replica.Member, primary.Member))
			caughtUp(b, e, replica, primary)
			app, rows := primary.app(b), 0
			var wrote, applied time.Duration
			for b.Loop() {
				exec(b, replica.admin(b), "STOP SLAVE SQL_THREAD")
				began := time.Now()
				var writers sync.WaitGroup
				for range 8 {
					writers.Go(func() {
						for range 250 {
							exec(b, app, "INSERT INTO app.t (v) VALUES (REPEAT('x', 200))")
						}
					})
				}
				writers.Wait()
				wrote += time.Since(began)
				rows += 2000
				began = time.Now()
				exec(b, replica.admin(b), "START SLAVE SQL_THREAD")
				caughtUp(b, e, replica, primary)
				applied += time.Since(began)
			}
			b.ReportMetric(float64(rows)/applied.Seconds(), "rows/s")
			b.ReportMetric(wrote.Seconds()/applied.Seconds(), "times-the-writers")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkAttach measures how long commits on a new primary wait for its first replica, where the primary has written so many
// transactions to its binary log as a replica.
func BenchmarkAttach(b *testing.B) {
	for _, transactions := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(transactions), func(b *testing.B) {
			nodes := start(b, 3, "sync_binlog = 0", "innodb_flush_log_at_trx_commit = 2")
			e := engine(b, config, nodes...)
			primary, heir, other := nodes[0], nodes[1], nodes[2]
			require.NoError(b, e.Promote(b.Context(), primary.Member, false))
			exec(b, primary.admin(b), "CREATE DATABASE app", "CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200))")
			require.NoError(b, e.Follow(b.Context(), heir.Member, primary.Member))
			require.NoError(b, e.Follow(b.Context(), other.Member, primary.Member))
			exec(b, primary.admin(b), fmt.Sprintf("BEGIN NOT ATOMIC FOR i IN 1..%d DO INSERT INTO app.t (v) VALUES ('x'); END FOR; END", transactions))
			for deadline := time.Now().Add(5 * time.Minute); e.Compare(observe(b, e, heir).Applied, observe(b, e, primary).Applied) != replication.Equal ||
				e.Compare(observe(b, e, other).Applied, observe(b, e, primary).Applied) != replication.Equal; time.Sleep(20 * time.Millisecond) {
				require.True(b, time.Now().Before(deadline), "the replicas have not caught up")
			}
			var took []float64
			for b.Loop() {
				require.NoError(b, e.Fence(b.Context(), primary.Member))
				for _, n := range []*node{heir, other} {
					_, err := e.Drain(b.Context(), n.Member)
					require.NoError(b, err)
				}
				began := time.Now()
				require.NoError(b, e.Promote(b.Context(), heir.Member, true))
				require.NoError(b, e.Follow(b.Context(), other.Member, heir.Member))
				exec(b, heir.admin(b), "INSERT INTO app.t (v) VALUES ('y')")
				took = append(took, float64(time.Since(began).Microseconds())/1000)
				require.NoError(b, e.Follow(b.Context(), primary.Member, heir.Member))
				caughtUp(b, e, primary, heir)
				primary, heir = heir, primary
			}
			b.ReportMetric(took[0], "first-ms") // the file is long then
			b.ReportMetric(0, "ns/op")
		})
	}
}
