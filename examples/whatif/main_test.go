package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/simulate"
)

func TestWhatIf(t *testing.T) {
	dir := t.TempDir()
	csv, picture := filepath.Join(dir, "load.csv"), filepath.Join(dir, "load.svg")
	require.NoError(t, os.WriteFile(csv, []byte("t_s,requests\n0,600\n60,900\n120,1200\n180,800\n240,700\n300,600\n360,600\n"), 0o600))
	var out bytes.Buffer
	require.NoError(t, run(&out, csv, 5, 0.01, simulate.Cloud{Boot: time.Minute}, picture))
	require.Contains(t, out.String(), "forecast")
	data, err := os.ReadFile(picture)
	require.NoError(t, err)
	require.Contains(t, string(data), "<svg")

	require.ErrorIs(t, run(&out, filepath.Join(dir, "none.csv"), 5, 0.01, simulate.Cloud{}, ""), os.ErrNotExist)
}
