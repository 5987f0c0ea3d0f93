package mysql_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A server that cannot open its relay log says of no file that it is not there: a look ends, says so, and it is made to follow again.
func TestRelayLogThatCannotBeOpened(t *testing.T) {
	for _, what := range []string{"relay.index", "relay.0*"} {
		e, primary, replica := pair(t)
		dir := one(t, replica.admin(t), "SELECT @@datadir")
		require.NoError(t, replica.Kill(t.Context()))
		files, err := filepath.Glob(filepath.Join(dir, what))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, f := range files {
			require.NoError(t, os.Remove(f))
		}
		require.NoError(t, replica.Start(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		st, err := e.Observe(ctx, replica.Member)
		cancel()
		require.NoError(t, err)
		require.Contains(t, st.Error, "its relay logs are not where the server looks for them")
		exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
		require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member))
		caughtUp(t, e, replica, primary)
		require.Equal(t, checksums(t, primary), checksums(t, replica))
	}
}
