package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/replication"
)

// A farm with a little data is cloned while it takes writes: the twin has just the rows of one moment, scrubbed, neither
// reaches the other, and nothing is left.
func TestTwin(t *testing.T) {
	testenv.Need(t, "mariadbd", "mariadb-install-db")
	s, err := run(t.Context(), options{gb: 0.005, writers: 4, policy: replication.Durability})
	require.NoError(t, err)
	t.Logf("%+v", s)
	require.NoError(t, s.verdict())
	require.GreaterOrEqual(t, s.Rows, 4000)
	require.NotZero(t, s.Written)
	require.True(t, s.FromReplica)
}
