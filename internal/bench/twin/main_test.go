package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/replication"
)

func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], "-serve") {
		if slices.Contains(os.Args[1:], "--no-such-option") {
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, serveWeb())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// A farm with a little data is cloned while it takes writes: the twin has just the rows of one moment, scrubbed, neither
// reaches the other; when its end comes it leaves snapshots, and nothing else. Then the farm moves, and is updated, with as many web
// servers as the environment's TWIN_ROLL says, and nothing is left. With TWIN_SNAPSHOT it is cloned by a snapshot.
func TestTwin(t *testing.T) {
	testenv.Need(t, "mariadbd", "mariadb-install-db", "haproxy")
	o := options{gb: 0.005, writers: 4, policy: replication.Durability, www: 3}
	if n := os.Getenv("TWIN_ROLL"); n != "" {
		var err error
		o.www, err = strconv.Atoi(n)
		require.NoError(t, err, "TWIN_ROLL")
	}
	o.volumes = os.Getenv("TWIN_SNAPSHOT") != ""
	s, err := run(t.Context(), o)
	require.NoError(t, err)
	t.Logf("%+v", s)
	require.NoError(t, s.verdict())
	require.GreaterOrEqual(t, s.Rows, 4000)
	require.NotZero(t, s.Written)
	require.True(t, s.FromReplica)
}
