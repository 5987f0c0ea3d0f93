package mysql_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

type runner = func(context.Context, replication.Member, []string, io.Reader, io.Writer) (int, []byte, error)

// machines runs programs on the nodes' machines.
func machines(t testing.TB, nodes ...*node) mysql.Machines {
	t.Helper()
	testenv.Need(t, "mariadb-backup", "mbstream")
	stop, start := local.MariaDB{}.Service()
	return mysql.Machines{Stop: stop, Start: start, Run: on(nodes)}
}

func on(nodes []*node) runner {
	return func(ctx context.Context, m replication.Member, args []string, stdin io.Reader, stdout io.Writer) (int, []byte, error) {
		i := slices.IndexFunc(nodes, func(n *node) bool { return n.Member.Machine == m.Machine })
		r, err := nodes[i].Cloud.RunCommand(ctx, m.Machine, provider.Command{Args: args, Stdin: stdin, Stdout: stdout})
		return r.Exit, r.Output, err
	}
}

// byFiles makes an engine that copies files, by the runner that wrap makes of the real one.
func byFiles(t testing.TB, wrap func(runner) runner, nodes ...*node) *mysql.Engine {
	t.Helper()
	c := config
	c.Machines = machines(t, nodes...)
	if wrap != nil {
		c.Machines.Run = wrap(c.Machines.Run)
	}
	return engine(t, c, nodes...)
}

// dataDir is where the server's data is.
func (n *node) dataDir() string { return filepath.Join(n.Cloud.Dir(n.Volume), "mysql") }

// alone fails if anything is beside the data directory.
func (n *node) alone(t testing.TB) {
	t.Helper()
	files, err := os.ReadDir(filepath.Dir(n.dataDir()))
	require.NoError(t, err)
	require.Len(t, files, 1, "%v", files)
}

// writing writes to app.w by several sessions until it is stopped, and gives the longest that a commit took.
func writing(t testing.TB, n *node) (stop func() time.Duration) {
	t.Helper()
	exec(t, n.app(t), "CREATE TABLE IF NOT EXISTS app.w (i INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100))")
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var longest, rows atomic.Int64
	for range 3 {
		db := n.app(t)
		group.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				if _, err := db.ExecContext(context.Background(), "INSERT INTO app.w (v) VALUES (REPEAT('x', 50))"); err != nil {
					return
				}
				rows.Add(1)
				longest.Store(max(longest.Load(), int64(time.Since(began))))
			}
		})
	}
	within(t, "writers write", func() bool { return rows.Load() > 50 })
	stop = sync.OnceValue(func() time.Duration {
		cancel()
		group.Wait()
		return time.Duration(longest.Load())
	})
	t.Cleanup(func() { stop() })
	return stop
}

// small is a primary with some rows, and a server without any.
func small(t testing.TB) (source, target *node) {
	t.Helper()
	nodes := start(t, 2)
	require.NoError(t, engine(t, config, nodes...).Promote(t.Context(), nodes[0].Member, false))
	exec(t, nodes[0].app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY, v VARCHAR(100), KEY (v))",
		"INSERT INTO app.t SELECT seq, MD5(seq) FROM app.seq_1_to_1000")
	return nodes[0], nodes[1]
}

// A replica is seeded by files from a primary that is written to, then another one from that replica.
func TestSeedByFiles(t *testing.T) {
	_, source, target := seeded(t)
	exec(t, source.admin(t), "DROP TABLE app.mem")
	third := start(t, 1)[0]
	third.Member.ID = "db-3"
	var mu sync.Mutex
	var lines []string
	e := byFiles(t, func(run runner) runner {
		return func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
			mu.Lock()
			lines = append(lines, strings.Join(args, " "))
			mu.Unlock()
			return run(ctx, m, args, in, out)
		}
	}, source, target, third)
	exec(t, target.admin(t), "SET sql_log_bin=0; CREATE USER stale@'%' IDENTIFIED BY 's'; CREATE SCHEMA stale; CREATE TABLE stale.t (i INT)")
	id := one(t, target.admin(t), "SELECT @@server_id")
	stop := writing(t, source)
	var steps []replication.Progress
	at, err := e.Seed(t.Context(), target.Member, source.Member, func(p replication.Progress) {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, p)
	})
	require.NoError(t, err)
	st := observe(t, e, target)
	require.True(t, !st.Empty && !st.Writable && st.Source == "" && st.Applied == at, "%+v", st)
	require.Equal(t, replication.Behind, e.Compare(at, observe(t, e, source).Applied))
	require.Equal(t, id, one(t, target.admin(t), "SELECT @@server_id"))
	require.Equal(t, "SLAVESIDE_DISABLED", one(t, target.admin(t), "SELECT status FROM mysql.event WHERE name='ev'"))
	require.Equal(t, "0", one(t, target.admin(t), "SELECT COUNT(*) FROM mysql.user WHERE user='stale'"))
	target.alone(t)
	require.NoError(t, e.Follow(t.Context(), target.Member, source.Member))
	for _, p := range steps {
		require.True(t, p.Unit == "bytes" && p.Done <= p.Total && p.Total > 1<<20 && !strings.Contains(p.What, "not by"), "%+v", p)
	}
	require.Greater(t, len(steps), 5)
	require.NotContains(t, strings.Join(lines, "\n"), "adm", "a password is on a command line")

	// From a replica that applies meanwhile.
	_, err = e.Seed(t.Context(), third.Member, target.Member, nil)
	require.NoError(t, err)
	require.NoError(t, e.Follow(t.Context(), third.Member, source.Member))
	t.Logf("the longest commit took %v", stop())
	for _, n := range []*node{target, third} {
		caughtUp(t, e, n, source)
		require.Equal(t, checksums(t, source), checksums(t, n))
		n.alone(t)
	}
	// The copy lives on its own.
	require.NoError(t, source.Kill(t.Context()))
	_, err = e.Drain(t.Context(), target.Member)
	require.NoError(t, err)
	require.NoError(t, e.Promote(t.Context(), target.Member, false))
	exec(t, target.db(t, `we'ird us\er`, `p'w\d ü`, ""), "INSERT INTO app.log (v) VALUES ('after')")
	require.NoError(t, e.Follow(t.Context(), third.Member, target.Member))
	caughtUp(t, e, third, target)
	require.Equal(t, checksums(t, target), checksums(t, third))
}

// Wherever it breaks off, the target is empty for everybody and its server runs, and the next seed makes it whole.
func TestSeedByFilesThatBreaksOff(t *testing.T) {
	source, target := small(t)
	want := checksums(t, source)
	e := engine(t, config, source, target)
	broke := 0
	for budget := int64(3); ; budget++ { // before, it only looks whether it can
		ctx, cancel := context.WithCancel(t.Context())
		var begun atomic.Int64
		broken := byFiles(t, func(run runner) runner {
			return func(c context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
				if begun.Add(1) == budget {
					if out != nil { // in the middle of the stream
						out = writer(func(p []byte) (int, error) { cancel(); return len(p), nil })
					} else if in == nil {
						defer cancel()
					}
				}
				return run(c, m, args, in, out)
			}
		}, source, target)
		_, err := broken.Seed(ctx, target.Member, source.Member, nil)
		cancel()
		require.NoError(t, broken.Close(target.Member))
		require.NoError(t, broken.Close(source.Member))
		if begun.Load() < budget {
			require.NoError(t, err)
			break
		}
		if err == nil {
			continue
		}
		broke++
		within(t, "its server runs", func() bool { _, err := e.Observe(t.Context(), target.Member); return err == nil })
		st := observe(t, e, target)
		require.True(t, st.Empty && !st.Writable && st.Source == "" && st.Applied == "", "after %d: %+v (%v)", budget, st, err)
	}
	require.Greater(t, broke, 5)
	require.Equal(t, want, checksums(t, source))
	require.Equal(t, want, checksums(t, target))
	target.alone(t)
	require.NoError(t, e.Follow(t.Context(), target.Member, source.Member))
	caughtUp(t, e, target, source)
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// What keeps files from being copied is told, and the copy goes over SQL.
func TestSeedByFilesFallsBack(t *testing.T) {
	source, target := small(t)
	want := checksums(t, source)
	// instead of what has the word, run that, before or after it
	spoil := func(word string, instead func(m replication.Member, args []string) []string) func(runner) runner {
		return func(run runner) runner {
			return func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
				if slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, word) }) {
					args = instead(m, args)
				}
				return run(ctx, m, args, in, out)
			}
		}
	}
	for name, c := range map[string]struct {
		wrap func(runner) runner
		want string
	}{
		"not installed": {spoil("command -v", func(_ replication.Member, args []string) []string {
			return append([]string{"/usr/bin/env", "PATH=/nowhere"}, args...)
		}), "mariadb-backup is not installed (Debian package mariadb-backup)"},
		"wrong password": {spoil("--backup", func(_ replication.Member, args []string) []string {
			return append([]string{"/bin/sh", "-c", `read -r p; echo wrong | "$@"`, "x"}, args...)
		}), "Access denied for user 'scalr'@'localhost'"},
		"target fails": {spoil("mbstream", func(m replication.Member, args []string) []string {
			if args[0] == "mbstream" {
				return []string{"/bin/sh", "-c", "head -c 100000 >/dev/null; echo no space left; exit 1"}
			}
			return args
		}), "mbstream on the machine of db-2: status 1: no space left"},
		"does not start": {spoil("--prepare", func(_ replication.Member, args []string) []string {
			return append([]string{"/bin/sh", "-c", `"$@" && dir=${4#*=} && rm -f "$dir/ib_logfile0" && : >"$dir/ibdata1" && echo spoilt >"$dir/ibdata1"`}, append([]string{args[0]}, args...)...)
		}), "the server does not start on the copy; it has what it had"},
		"rows in memory": {nil, "table app.mem is of the engine MEMORY"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.wrap == nil {
				exec(t, source.app(t), "CREATE TABLE app.mem (i INT) ENGINE=MEMORY", "INSERT INTO app.mem VALUES (1)")
				defer func() { exec(t, source.app(t), "DROP TABLE app.mem") }()
				want := checksums(t, source)
				defer func() { require.Equal(t, want, checksums(t, target)) }()
			}
			e := byFiles(t, c.wrap, source, target)
			var mu sync.Mutex
			told := map[string]bool{}
			_, err := e.Seed(t.Context(), target.Member, source.Member, func(p replication.Progress) {
				mu.Lock()
				defer mu.Unlock()
				if p.Unit == "rows" {
					told[p.What] = true
				}
			})
			require.NoError(t, err)
			if c.wrap != nil {
				require.Equal(t, want, checksums(t, target))
			}
			target.alone(t)
			require.NotEmpty(t, told)
			for what := range told {
				require.Contains(t, what, "not by mariadb-backup: ")
				require.Contains(t, what, c.want)
				require.NotContains(t, what, config.Password)
			}
		})
	}
}

// A commit that waits for a replica would keep the backup waiting, and the backup everybody else.
func TestSeedByFilesWhileACommitWaits(t *testing.T) {
	nodes := start(t, 2)
	source, target := nodes[0], nodes[1]
	e := byFiles(t, nil, nodes...)
	require.NoError(t, e.Promote(t.Context(), source.Member, false))
	exec(t, source.app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT)")
	require.NoError(t, e.SetSemiSync(t.Context(), source.Member, true))
	acked := make(chan error, 1)
	app := source.app(t)
	go func() {
		_, err := app.ExecContext(context.Background(), "INSERT INTO app.t VALUES (1)")
		acked <- err
	}()
	within(t, "the commit waits", func() bool {
		return one(t, source.admin(t), "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for semi-sync ACK%'") == "1"
	})
	var last replication.Progress
	_, err := e.Seed(t.Context(), target.Member, source.Member, func(p replication.Progress) { last = p })
	require.NoError(t, err)
	require.Contains(t, last.What, "has waited too long for other sessions (BACKUP STAGE BLOCK_COMMIT)")
	require.NoError(t, e.Follow(t.Context(), target.Member, source.Member))
	require.NoError(t, <-acked)
	caughtUp(t, e, target, source)
}

// A server that dies in the middle ends the seed, and the source keeps what it has.
func TestSeedByFilesLosesAServer(t *testing.T) {
	source, target := small(t)
	want := checksums(t, source)
	for name, n := range map[string]*node{"source": source, "target": target} {
		t.Run(name, func(t *testing.T) {
			var once sync.Once
			e := byFiles(t, func(run runner) runner {
				return func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
					if out != nil {
						to := out
						out = writer(func(p []byte) (int, error) {
							once.Do(func() { require.NoError(t, n.Kill(context.Background())) })
							return to.Write(p)
						})
					}
					return run(ctx, m, args, in, out)
				}
			}, source, target)
			_, err := e.Seed(t.Context(), target.Member, source.Member, nil)
			require.Error(t, err)
			t.Log(err)
			require.NoError(t, n.Start(t.Context()))
			require.True(t, observe(t, e, target).Empty)
			require.Equal(t, want, checksums(t, source))
		})
	}
}

// A member without data joins a Manager's set by files.
func TestManagerSeedsByFiles(t *testing.T) {
	nodes := start(t, 3)
	c := config
	c.Machines = machines(t, nodes...)
	var mu sync.Mutex
	ran := map[string]int{}
	run := c.Machines.Run
	c.Machines.Run = func(ctx context.Context, m replication.Member, args []string, in io.Reader, out io.Writer) (int, []byte, error) {
		mu.Lock()
		ran[args[0]]++
		mu.Unlock()
		return run(ctx, m, args, in, out)
	}
	s := manageWith(t, nodes[:2], c, replication.Config{})
	stop := s.write(2)
	defer stop()
	within(t, "writers write", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.acked) > 200 })
	within(t, "the Manager knows that there is data", func() bool {
		top, _ := s.manager.Topology()
		return top.Members[0].Position != ""
	})
	late := nodes[2]
	s.nodes = nodes
	t.Cleanup(func() { require.NoError(t, s.engine.Close(late.Member)) })
	s.manager.SetMembers([]replication.Member{nodes[0].Member, nodes[1].Member, late.Member}, 3)
	s.whole(t)
	stop()
	s.equal(t)
	require.Zero(t, s.lost(t))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, 1, ran["mbstream"], "%v", ran)
}

// BenchmarkSeedByFiles measures a copy of SEED_MB megabytes by files and over SQL.
func BenchmarkSeedByFiles(b *testing.B) {
	size := 64
	if s := os.Getenv("SEED_MB"); s != "" {
		_, err := fmt.Sscan(s, &size)
		require.NoError(b, err)
	}
	nodes := start(b, 2, "innodb_buffer_pool_size = 256M", "innodb_log_file_size = 256M")
	source, target := nodes[0], nodes[1]
	e := byFiles(b, nil, nodes...)
	require.NoError(b, e.Promote(b.Context(), source.Member, false))
	exec(b, source.admin(b), "SET GLOBAL max_allowed_packet = 67108864", "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(64), b VARCHAR(200), KEY (a))")
	db := source.admin(b)
	for n := 0; n < size*3400; n += 100000 {
		_, err := db.Exec(fmt.Sprintf("INSERT INTO app.t (a, b) SELECT MD5(seq), REPEAT(MD5(RAND()), 6) FROM app.seq_1_to_%d", min(100000, size*3400-n)))
		require.NoError(b, err)
	}
	b.Logf("%s bytes", one(b, source.admin(b), "SELECT SUM(file_size) FROM information_schema.innodb_sys_tablespaces"))
	for _, way := range []struct {
		name string
		e    *mysql.Engine
	}{{"files", e}, {"sql", engine(b, config, nodes...)}} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				stop := writing(b, source)
				began := time.Now()
				_, err := way.e.Seed(context.Background(), target.Member, source.Member, func(p replication.Progress) {
					if strings.Contains(p.What, "not by") {
						b.Error(p.What)
					}
				})
				b.ReportMetric(time.Since(began).Seconds(), "s")
				b.ReportMetric(float64(stop().Milliseconds()), "pause-ms")
				require.NoError(b, err)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// A replica on which several threads apply is copied over SQL, while it applies: its files would have more than the position says.
func TestSeedFromAReplicaWithWorkers(t *testing.T) {
	nodes := start(t, 3, "slave_parallel_threads = 8", "slave_parallel_mode = conservative")
	e := byFiles(t, nil, nodes...)
	require.NoError(t, e.Promote(t.Context(), nodes[0].Member, false))
	exec(t, nodes[0].app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY, v VARCHAR(100), KEY (v))",
		"INSERT INTO app.t SELECT seq, MD5(seq) FROM app.seq_1_to_100000")
	require.NoError(t, e.Follow(t.Context(), nodes[1].Member, nodes[0].Member))
	stop := writing(t, nodes[0])
	admin := nodes[1].admin(t)
	within(t, "the replica has the writer's table", func() bool {
		return one(t, admin, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'app' AND table_name = 'w'") == "1"
	})
	what := ""
	_, err := e.Seed(t.Context(), nodes[2].Member, nodes[1].Member, func(p replication.Progress) { what = p.What })
	require.NoError(t, err)
	require.Contains(t, what, "it applies with 8 threads (slave_parallel_threads)")
	var backup bytes.Buffer
	_, err = e.Backup(t.Context(), nodes[1].Member, &backup, func(p replication.Progress) { what = p.What })
	require.NoError(t, err)
	require.Contains(t, what, "it applies with 8 threads (slave_parallel_threads)")
	require.NoError(t, e.Follow(t.Context(), nodes[2].Member, nodes[0].Member))
	stop()
	for _, n := range nodes[1:] {
		caughtUp(t, e, n, nodes[0])
		require.Equal(t, checksums(t, nodes[0]), checksums(t, n))
	}
}
