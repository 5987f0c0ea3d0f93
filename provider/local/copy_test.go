//go:build linux

package local

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	in := func(name string) string { return filepath.Join(from, name) }
	require.NoError(t, os.MkdirAll(in("dir/empty"), 0o750))
	require.NoError(t, os.WriteFile(in("dir/file"), []byte("data"), 0o640))
	require.NoError(t, os.WriteFile(in("none"), nil, 0o600))
	require.NoError(t, os.Chmod(in("dir/file"), 0o666)) // more than the umask lets through
	require.NoError(t, os.Symlink("dir/file", in("link")))
	require.NoError(t, os.Symlink("/nowhere", in("dangling")))
	require.NoError(t, syscall.Mkfifo(in("pipe"), 0o600))
	l, err := net.Listen("unix", in("socket"))
	require.NoError(t, err)
	defer l.Close()
	sparse, err := os.Create(in("sparse"))
	require.NoError(t, err)
	for _, at := range []int64{4096, 64 << 20, 96 << 20} {
		_, err = sparse.WriteAt([]byte("data"), at)
		require.NoError(t, err)
	}
	require.NoError(t, sparse.Truncate(128<<20))
	require.NoError(t, sparse.Close())
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(in("dir/file"), 12345, 54321))
		require.NoError(t, os.Lchown(in("dangling"), 12345, 54321))
	}

	require.NoError(t, copyTree(t.Context(), from, to))
	require.NoError(t, syncTree(t.Context(), to))

	for _, name := range []string{"dir", "dir/empty", "dir/file", "none", "link", "dangling", "sparse"} {
		a, err := os.Lstat(in(name))
		require.NoError(t, err)
		b, err := os.Lstat(filepath.Join(to, name))
		require.NoError(t, err)
		x, y := a.Sys().(*syscall.Stat_t), b.Sys().(*syscall.Stat_t)
		if !a.IsDir() {
			assert.Equal(t, a.Size(), b.Size(), name)
		}
		if a.Mode().IsRegular() {
			assert.Equal(t, a.ModTime(), b.ModTime(), name)
		}
		assert.Equal(t, a.Mode()|fs.FileMode(boolBits(a.IsDir(), 0o700)), b.Mode(), name)
		assert.Equal(t, []uint32{x.Uid, x.Gid}, []uint32{y.Uid, y.Gid}, name)
		assert.Less(t, y.Blocks*512, int64(1<<20), "holes of %s stay holes", name)
	}
	dest, err := os.Readlink(filepath.Join(to, "dangling"))
	require.NoError(t, err)
	assert.Equal(t, "/nowhere", dest)
	for _, name := range []string{"pipe", "socket"} {
		assert.NoFileExists(t, filepath.Join(to, name))
	}
	a, err := os.ReadFile(in("sparse"))
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(to, "sparse"))
	require.NoError(t, err)
	assert.True(t, bytes.Equal(a, b), "the data between holes is copied")
}

func boolBits(yes bool, bits uint32) uint32 {
	if yes {
		return bits
	}
	return 0
}
