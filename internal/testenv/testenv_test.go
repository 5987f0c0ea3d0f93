//go:build linux

package testenv_test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMariaDB(t *testing.T) {
	began := time.Now()
	servers := testenv.MariaDB(t, 3)
	t.Logf("3 servers in %s", time.Since(began))
	ids := map[int]bool{}
	for _, s := range servers {
		db, err := sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(%s)/", s.User, s.Password, s.Addr))
		require.NoError(t, err)
		defer db.Close()
		var id int
		var readOnly, binlog bool
		var gtid string
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT @@server_id, @@read_only, @@log_bin, @@gtid_current_pos").Scan(&id, &readOnly, &binlog, &gtid))
		ids[id] = true
		assert.False(t, readOnly)
		assert.True(t, binlog)
		assert.Empty(t, gtid, "nothing has been written")
		var databases string
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT GROUP_CONCAT(SCHEMA_NAME ORDER BY 1) FROM information_schema.SCHEMATA").Scan(&databases))
		assert.Equal(t, "information_schema,mysql,performance_schema,sys", databases)
	}
	assert.Len(t, ids, 3, "each has a server_id of its own")
}

func TestServerStopsAndStarts(t *testing.T) {
	s := testenv.Memcached(t, 1)[0]
	dial := func() error {
		conn, err := net.Dial("tcp", s.Addr)
		if err == nil {
			conn.Close()
		}
		return err
	}
	require.NoError(t, dial())
	for _, off := range []func(context.Context) error{s.Stop, s.Kill} {
		require.NoError(t, off(t.Context()))
		require.ErrorIs(t, dial(), syscall.ECONNREFUSED)
		require.NoError(t, s.Start(t.Context()))
		require.NoError(t, dial())
	}
}

func TestNothingIsLeft(t *testing.T) {
	testenv.Need(t, "memcached")
	var s *testenv.Server
	t.Run("test", func(t *testing.T) {
		s = testenv.Memcached(t, 1)[0]
		require.Len(t, testenv.Processes(s.ID), 2, "the server and its supervisor")
	})
	assert.Empty(t, testenv.Processes(s.ID))
	assert.NoDirExists(t, filepath.Dir(s.Dir))
}

func TestMissing(t *testing.T) {
	for ci, want := range map[string]string{"true": "--- FAIL: TestNeedsNothing", "": "--- SKIP: TestNeedsNothing"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestNeedsNothing$")
		cmd.Env = append(os.Environ(), "CI="+ci, "SCALR_TEST_MISSING=1")
		out, err := cmd.CombinedOutput()
		assert.Equal(t, ci == "true", err != nil)
		assert.Contains(t, string(out), want)
		assert.Contains(t, string(out), "scalr-no-such-program is not installed (Debian package scalr-no-such-program)")
	}
}

func TestNeedsNothing(t *testing.T) {
	if os.Getenv("SCALR_TEST_MISSING") != "" {
		testenv.Need(t, "scalr-no-such-program")
	}
}

// A test program that dies without cleaning up leaves nothing either.
func TestDeathOfTheTest(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestDies$")
	cmd.Env = append(os.Environ(), "SCALR_TEST_DIES=1")
	out, err := cmd.Output()
	require.Error(t, err)
	_, rest, ok := strings.Cut(string(out), "instance ")
	require.True(t, ok, string(out))
	var id, dir string
	_, err = fmt.Sscan(rest, &id, &dir)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return len(testenv.Processes(id)) == 0 && os.IsNotExist(err)
	}, time.Minute, 10*time.Millisecond)
}

func TestDies(t *testing.T) {
	if os.Getenv("SCALR_TEST_DIES") == "" {
		return
	}
	c := testenv.Cloud(t, map[string]local.Image{"it": {
		Command: func(local.Machine) local.Command { return local.Command{Args: []string{"sleep", "3600"}} },
	}})
	i, err := c.Launch(t.Context(), provider.Launch{Token: "t", Image: "it"})
	require.NoError(t, err)
	fmt.Println("instance", i.ID, filepath.Dir(c.Dir(i.ID)))
	require.NotEmpty(t, testenv.Processes(i.ID))
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
