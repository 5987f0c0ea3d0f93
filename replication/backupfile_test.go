package replication_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// A file that is torn or altered anywhere is refused, or gives the same data: some bits of gzip's own mean nothing.
func TestBackupFileIsWholeOrRefused(t *testing.T) {
	dir := t.TempDir()
	var path string
	bubble(t, 1, replication.Config{Backups: &replication.Backups{Dir: dir, Every: time.Hour, Keep: 1}}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		for i := range 20 {
			w.write("db-1", fmt.Sprint("row", i))
		}
		w.until("there is a backup", time.Minute, func(t replication.Topology) bool { return !t.Backup.IsZero() })
		files, _ := backups(t, dir)
		path = files[0]
	})
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	want := restored(t, path)
	other := filepath.Join(dir, "other")
	refused := 0
	try := func(text []byte, what string) {
		t.Helper()
		require.NoError(t, os.WriteFile(other, text, 0o600))
		if _, err := replication.CheckBackup(t.Context(), other); err != nil {
			require.ErrorContains(t, err, "the backup "+other+": it is no whole backup: ", what)
			refused++
			return
		}
		require.Equal(t, want, restored(t, other), what)
	}
	for n := range whole {
		before := refused
		try(whole[:n], fmt.Sprintf("the first %d bytes", n))
		require.Greater(t, refused, before, "the first %d bytes are no whole backup", n)
		altered := bytes.Clone(whole)
		altered[n] ^= 1 << (n % 8)
		try(altered, fmt.Sprintf("altered at %d", n))
	}
	require.Greater(t, refused, len(whole)*3/2)
	before := refused
	try(append(bytes.Clone(whole), 'x'), "something follows")
	var more bytes.Buffer
	z := gzip.NewWriter(&more)
	_, err = io.WriteString(z, "more")
	require.NoError(t, err)
	require.NoError(t, z.Close())
	try(append(bytes.Clone(whole), more.Bytes()...), "another member follows")
	try(nil, "it is empty")
	require.Equal(t, before+3, refused)

	// What was altered with care, so that gzip finds no fault with it.
	r := bytes.NewReader(whole)
	var members []string
	zr, err := gzip.NewReader(r)
	for err == nil {
		zr.Multistream(false)
		text, readErr := io.ReadAll(zr)
		require.NoError(t, readErr)
		members = append(members, string(text))
		err = zr.Reset(r)
	}
	require.Len(t, members, 2)
	for _, c := range []struct{ what, data, info string }{
		{"a row has another value", strings.Replace(members[0], `"value":"row7"`, `"value":"row8"`, 1), members[1]},
		{"it is of another position", members[0], strings.Replace(members[1], `"position":"m1:20"`, `"position":"m1:21"`, 1)},
		{"it is of another set", members[0], strings.Replace(members[1], "shop/db", "shop/dc", 1)},
		{"it is shorter", "", members[1]},
	} {
		require.NotEqual(t, members, []string{c.data, c.info}, c.what)
		var w bytes.Buffer
		for _, text := range []string{c.data, c.info} {
			zw := gzip.NewWriter(&w)
			_, err := io.WriteString(zw, text)
			require.NoError(t, err)
			require.NoError(t, zw.Close())
		}
		before := refused
		try(w.Bytes(), c.what)
		require.Equal(t, before+1, refused, c.what)
	}

	_, err = replication.CheckBackup(t.Context(), filepath.Join(dir, "nowhere"))
	require.ErrorIs(t, err, os.ErrNotExist)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = replication.CheckBackup(ctx, path)
	require.ErrorIs(t, err, context.Canceled)
	_, err = replication.LatestBackup(dir, "shop/other")
	require.ErrorContains(t, err, `has no backup of the set "shop/other"`)
}
