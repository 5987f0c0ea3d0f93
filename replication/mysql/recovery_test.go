package mysql_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// A dead primary that is started as a replica (see the package doc) has rolled back what no replica has acknowledged, and
// follows without more; one that is started as it was has made it its own.
func TestStartedAsAReplica(t *testing.T) {
	for _, role := range []string{"MASTER", "SLAVE"} {
		t.Run(role, func(t *testing.T) {
			later := filepath.Join(t.TempDir(), "later.cnf")
			require.NoError(t, os.WriteFile(later, []byte("[mysqld]\n"), 0o600))
			nodes := start(t, 2, "!include "+later)
			old, primary := nodes[0], nodes[1]
			e := engine(t, config, nodes...)
			require.NoError(t, e.Promote(t.Context(), old.Member, false))
			app := old.app(t)
			exec(t, app, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1)")
			require.NoError(t, e.Follow(t.Context(), primary.Member, old.Member))
			caughtUp(t, e, primary, old)
			require.NoError(t, e.SetSemiSync(t.Context(), old.Member, true))
			exec(t, app, "INSERT INTO app.t VALUES (2)")
			caughtUp(t, e, primary, old)
			_, err := e.Drain(t.Context(), primary.Member)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			waiting := make(chan error, 1)
			go func() {
				_, err := app.ExecContext(ctx, "INSERT INTO app.t VALUES (3)")
				waiting <- err
			}()
			within(t, "a commit waits for an acknowledgement", func() bool { return observe(t, e, old).Unacked == 1 })
			require.NoError(t, old.Kill(t.Context()))
			require.Error(t, <-waiting)
			require.NoError(t, e.Promote(t.Context(), primary.Member, false))
			require.NoError(t, os.WriteFile(later, []byte("[mysqld]\nloose_init_rpl_role = "+role+"\n"), 0o600))
			require.NoError(t, old.Start(t.Context()))

			err = e.Follow(t.Context(), old.Member, primary.Member)
			if role == "MASTER" {
				require.ErrorIs(t, err, replication.ErrDiverged)
				return
			}
			require.NoError(t, err)
			exec(t, primary.app(t), "INSERT INTO app.t VALUES (4)")
			caughtUp(t, e, old, primary)
			require.Equal(t, checksums(t, primary), checksums(t, old))
			require.Equal(t, "1,2,4", one(t, old.admin(t), "SELECT GROUP_CONCAT(i ORDER BY i) FROM app.t"))
		})
	}
}
