package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
)

func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], "-serve") {
		fmt.Fprintln(os.Stderr, serveWeb())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Twelve minutes in which the load rises, in as many seconds: every request is answered, the farm grows, and nothing is left.
func TestReplay(t *testing.T) {
	testenv.Need(t, "haproxy")
	s, err := play(t.Context(), options{From: 130, Minutes: 12, Speed: 60, Peak: 200}, json.NewEncoder(io.Discard))
	require.NoError(t, err)
	t.Logf("%+v", s)
	require.Greater(t, s.Requests, 500)
	require.Zero(t, s.Failed)
	require.GreaterOrEqual(t, s.Most, 2)
	require.Zero(t, s.LeftOver)
}
