package mysql_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// couple makes a primary with some data and its replica.
func couple(t testing.TB) (e *mysql.Engine, primary, replica *node) {
	t.Helper()
	nodes := start(t, 2)
	e = engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), nodes[0].Member, false))
	exec(t, nodes[0].app(t), "CREATE SCHEMA app",
		"CREATE TABLE app.t (i INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100), b MEDIUMBLOB, g INT AS (CHAR_LENGTH(v)) STORED, UNIQUE (v))",
		"CREATE TABLE app.nokey (a INT, d DECIMAL(20,5), j JSON, z TIMESTAMP(6) NULL)",
		"CREATE TABLE app.parent (i INT PRIMARY KEY)",
		"CREATE TABLE app.child (i INT, FOREIGN KEY (i) REFERENCES app.parent (i) ON DELETE CASCADE)",
		"INSERT INTO app.t (v, b) VALUES ('one', 'x'), ('two', REPEAT('y', 100000)), ('three', NULL)",
		"INSERT INTO app.nokey VALUES (1, 1.5, '{\"a\": 1}', '2024-02-29 12:00:00.5'), (NULL, NULL, NULL, NULL), (1, 1.5, NULL, NULL)",
		"INSERT INTO app.parent VALUES (1), (2)", "INSERT INTO app.child VALUES (1), (1), (2)")
	require.NoError(t, e.Follow(t.Context(), nodes[1].Member, nodes[0].Member))
	return e, nodes[0], nodes[1]
}

// fork promotes the replica, which lacks what the primary does last.
func fork(t testing.TB, e *mysql.Engine, primary, replica *node, surplus ...string) {
	t.Helper()
	caughtUp(t, e, replica, primary)
	_, err := e.Drain(t.Context(), replica.Member)
	require.NoError(t, err)
	exec(t, primary.admin(t), surplus...)
	require.NoError(t, e.Fence(t.Context(), primary.Member))
	require.NoError(t, e.Promote(t.Context(), replica.Member, false))
	exec(t, replica.app(t), "REPLACE INTO app.t (v) VALUES ('of the new primary')")
}

func save(t testing.TB, e *mysql.Engine, old, primary *node) (replication.Position, string) {
	t.Helper()
	var w bytes.Buffer
	at, err := e.Save(t.Context(), old.Member, primary.Member, &w)
	require.NoError(t, err)
	return at, w.String()
}

// Rows of every kind that only the old primary has are saved in words, taken back, and can be repeated elsewhere.
func TestRewind(t *testing.T) {
	e, old, primary := couple(t)
	fork(t, e, old, primary,
		"INSERT INTO app.t (v, b) VALUES ('gone', REPEAT('z', 300000)), ('gone too', NULL)",
		"UPDATE app.t SET v = 'changed', b = NULL WHERE i = 2",
		"BEGIN", "DELETE FROM app.t WHERE i = 1", "INSERT INTO app.t (i, v) VALUES (1, 'another one')", "UPDATE app.t SET i = 77 WHERE i = 1", "COMMIT",
		"FLUSH BINARY LOGS",
		"DELETE FROM app.nokey WHERE a = 1 LIMIT 1", "UPDATE app.nokey SET a = 7, z = '2025-01-01'", "INSERT INTO app.nokey SELECT * FROM app.nokey",
		"INSERT INTO app.parent VALUES (9)", "INSERT INTO app.child VALUES (9)")
	require.NoError(t, old.Kill(t.Context()))
	require.NoError(t, old.Start(t.Context()))
	require.ErrorIs(t, e.Follow(t.Context(), old.Member, primary.Member), replication.ErrDiverged)

	at, text := save(t, e, old, primary)
	require.Equal(t, observe(t, e, old).Applied, at)
	require.Regexp(t, "(?s)### INSERT INTO `app`.`t`\n### SET\n###   @1=4\n###   @2='gone'", text)
	require.NotContains(t, text, "of the new primary")
	require.NotContains(t, text, "'three'")

	var reports []replication.Progress
	require.NoError(t, e.Rewind(t.Context(), old.Member, primary.Member, at, func(p replication.Progress) { reports = append(reports, p) }))
	require.NotEmpty(t, reports)
	st := observe(t, e, old)
	require.False(t, st.Empty)
	require.Empty(t, st.Source)
	require.Equal(t, replication.Equal, e.Compare(st.Applied, observe(t, e, primary).Applied))
	require.Equal(t, checksums(t, primary), checksums(t, old))
	require.NoError(t, e.Follow(t.Context(), old.Member, primary.Member))
	caughtUp(t, e, old, primary)
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('later')", "DELETE FROM app.parent WHERE i = 1")
	caughtUp(t, e, old, primary)
	require.Equal(t, checksums(t, primary), checksums(t, old))

	// Where it does not meet other rows the file can be given to a server, without the numbers of the old transactions.
	exec(t, primary.admin(t), "DELETE FROM app.t WHERE v IN ('of the new primary', 'later')")
	host, port, _ := strings.Cut(primary.Addr, ":")
	client := osexec.CommandContext(t.Context(), "mariadb", "--no-defaults", "--binary-mode", "-h", host, "-P", port, "-u", config.User)
	client.Env = []string{"MYSQL_PWD=" + config.Password}
	client.Stdin = strings.NewReader(regexp.MustCompile(`(?m)^.*gtid_seq_no.*$`).ReplaceAllString(text, ""))
	out, err := client.CombinedOutput()
	require.NoError(t, err, "%.500s", out)
	require.Equal(t, "4", one(t, primary.admin(t), "SELECT i FROM app.t WHERE v = 'gone'"))
}

// What cannot be taken back is left as it is, or is Empty where that shows only afterwards; it has been saved all the same.
func TestRewindRefuses(t *testing.T) {
	e, old, primary := couple(t)
	for _, c := range []struct {
		name    string
		surplus []string
		saved   string
		fault   string
		empty   bool
	}{
		{"Definition", []string{"INSERT INTO app.parent VALUES (3)", "CREATE TABLE app.more (i INT)"}, "CREATE TABLE app.more", "changes more than rows", false},
		{"Account", []string{"CREATE USER somebody IDENTIFIED BY 'a secret'"}, "somebody", "changes more than rows", false},
		{"Cascade", []string{"DELETE FROM app.parent WHERE i = 1"}, "DELETE FROM `app`.`parent`", "table app.child: the copy has", true},
		{"Partly", []string{"SET binlog_row_image = MINIMAL; DELETE FROM app.t WHERE i = 1; SET binlog_row_image = FULL"},
			"DELETE FROM `app`.`t`", "table app.t: ", true},
		{"Statement", []string{"SET binlog_format = STATEMENT; INSERT INTO app.parent VALUES (3); SET binlog_format = ROW"},
			"INSERT INTO app.parent", "table app.parent: ", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fork(t, e, old, primary, c.surplus...)
			at, text := save(t, e, old, primary)
			require.Contains(t, text, c.saved)
			before := checksums(t, old)
			err := e.Rewind(t.Context(), old.Member, primary.Member, at, nil)
			require.ErrorContains(t, err, c.fault)
			require.NotContains(t, err.Error(), "a secret")
			st := observe(t, e, old)
			require.Equal(t, c.empty, st.Empty)
			if !c.empty {
				require.Equal(t, before, checksums(t, old))
				require.Equal(t, at, st.Applied)
			}
			_, err = e.Seed(t.Context(), old.Member, primary.Member, nil)
			require.NoError(t, err)
			require.Equal(t, checksums(t, primary), checksums(t, old))

			require.NoError(t, e.Fence(t.Context(), primary.Member)) // back, for the next one
			require.NoError(t, e.Promote(t.Context(), old.Member, false))
			require.NoError(t, e.Follow(t.Context(), primary.Member, old.Member))
		})
	}
}

// A Manager takes the old primary back by the gentlest way that works, and what it alone had is in a file.
func TestManagerRewinds(t *testing.T) {
	e, old, primary := couple(t)
	for _, c := range []struct {
		name, surplus, saved string
		kind                 replication.StepKind
	}{
		{"Rows", "INSERT INTO app.t (v) VALUES ('only on the old one')", "@2='only on the old one'", replication.StepRewind},
		{"Definition", "CREATE TABLE app.only_there (i INT)", "CREATE TABLE app.only_there", replication.StepSeed},
	} {
		t.Run(c.name, func(t *testing.T) {
			fork(t, e, old, primary, c.surplus)
			dir := t.TempDir()
			var mu sync.Mutex
			var last replication.StepKind
			m, err := replication.New(replication.Config{Engine: e, Salvage: dir, Events: func(event scalr.Event) {
				mu.Lock()
				defer mu.Unlock()
				t.Log(event)
				kind, _, _ := strings.Cut(event.Message, " ")
				if k := replication.StepKind(kind); event.Kind == replication.KindStep && (k == replication.StepRewind || k == replication.StepSeed) {
					last = k
				}
			}})
			require.NoError(t, err)
			m.SetMembers([]replication.Member{old.Member, primary.Member}, 2)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- m.Run(ctx) }()
			within(t, "it serves as a replica", func() bool {
				top, _ := m.Topology()
				x, ok := top.Member(old.Member.ID)
				return ok && top.Primary == primary.Member.ID && x.Role == replication.RoleReplica && x.Serves
			})
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
			require.Equal(t, c.kind, last)
			files, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, files, 1)
			info, err := files[0].Info()
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			text, err := os.ReadFile(filepath.Join(dir, files[0].Name()))
			require.NoError(t, err)
			require.Contains(t, string(text), c.saved)
			caughtUp(t, e, old, primary)
			require.Equal(t, checksums(t, primary), checksums(t, old))
			old, primary = primary, old
		})
	}
}

// The program takes the engine's way to the member, and without it nothing is saved or changed.
func TestSaveGoesWhereTheEngineGoes(t *testing.T) {
	e, old, primary := couple(t)
	fork(t, e, old, primary, "INSERT INTO app.parent VALUES (3)")
	c := config
	var dialled atomic.Int64
	c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	through := engine(t, c, old, primary)
	_, err := through.Observe(t.Context(), old.Member)
	require.NoError(t, err)
	_, err = through.Observe(t.Context(), primary.Member)
	require.NoError(t, err)
	before := dialled.Load()
	at, text := save(t, through, old, primary)
	require.Contains(t, text, "@1=3")
	require.Greater(t, dialled.Load(), before)
	require.NoError(t, through.Rewind(t.Context(), old.Member, primary.Member, at, nil))

	t.Setenv("PATH", t.TempDir())
	_, err = e.Save(t.Context(), old.Member, primary.Member, io.Discard)
	require.ErrorContains(t, err, "mariadb-binlog is not in PATH of this program: install MariaDB's client, 10.8 or later")
}
