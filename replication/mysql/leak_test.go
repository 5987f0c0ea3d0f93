package mysql_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// An old primary that wakes and that an account writes to, though it is read-only, is stopped through its provider. As long as that
// fails it is not told to follow.
func TestOldPrimaryThatAnAccountWritesToIsStopped(t *testing.T) {
	nodes := start(t, 3)
	old := nodes[0]
	var works, stopped atomic.Bool
	old.Member.Fence = func(ctx context.Context) error {
		if !works.Load() {
			return errors.New("quota")
		}
		defer stopped.Store(true)
		return old.Stop(ctx)
	}
	s := manageOn(t, nodes, replication.Config{Unfenced: replication.UnfencedGoOn})
	require.Equal(t, "db-1", s.primary())
	exec(t, old.admin(t), "CREATE USER boss@'127.0.0.%' IDENTIFIED BY 'b'", "GRANT ALL PRIVILEGES ON *.* TO boss@'127.0.0.%'")
	exec(t, old.db(t, "boss", "b", ""), "INSERT INTO app.t VALUES (1, '')")
	s.equal(t)
	require.NoError(t, old.Hang(t.Context()))
	heir := s.takesOver(t, "db-1")
	require.NoError(t, old.Resume(t.Context()))
	const refused = "refused as unsafe: it is read-only"
	within(t, "it is to be stopped", func() bool { return s.said(replication.KindStepFailed, refused) > 1 })
	require.Zero(t, s.said(replication.KindStep, "follow db-1 ->"))
	works.Store(true)
	within(t, "it is stopped", stopped.Load)
	require.NoError(t, old.Start(t.Context()))
	s.equal(t)
	require.Equal(t, heir, s.primary())
}
