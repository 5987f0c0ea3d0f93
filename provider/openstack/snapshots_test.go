package openstack

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A snapshot that Cinder gave up on never becomes ready, and says so.
func TestAFailedSnapshotSaysSo(t *testing.T) {
	for status, want := range map[string]struct{ ready, failed bool }{
		"creating": {}, "available": {ready: true}, "error": {failed: true}, "error_deleting": {failed: true},
	} {
		x := (&copied{Status: status}).snapshot()
		require.Equal(t, want.ready, x.Ready, status)
		require.Equal(t, want.failed, x.Failed, status)
		require.Equal(t, want.failed, x.Reason != "", status)
	}
}
