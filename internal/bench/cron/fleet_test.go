package main

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
)

// TestMain makes this program a runner where it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "-runner" {
		be(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// The short form of the chaos: runners and servers fail in every way but the longest ones, and no instant is run twice or missed.
func TestChaos(t *testing.T) {
	s, err := measure(t.Context(), options{
		Runners: 4, Jobs: 12, For: 12 * time.Second, Every: 2 * time.Second, Takes: 200 * time.Millisecond, Timeout: 2 * time.Second,
		Faults: "kill,die,stop,cut,answers,skew,step,leader,follower",
	}, testenv.ZooKeeper(t, 3))
	require.NoError(t, err)
	t.Logf("%+v", s)
	require.Zero(t, s.Doubles, "doubles")
	require.Zero(t, s.Misses, "misses")
	require.Zero(t, s.PastDeadline, "steps of work past its deadline")
	require.Zero(t, s.Tokens, "fallen tokens")
	require.Zero(t, s.Orphans, "orphans")
	require.NotZero(t, s.Instants)
	require.NotEmpty(t, s.Faults)
}

// The judge sees doubles, fallen tokens and work that went on after the run was given away.
func TestWeigh(t *testing.T) {
	o := options{Jobs: 2, Every: 10 * time.Second}
	at := time.Date(2026, 1, 1, 0, 0, 10, 0, time.UTC)
	say := func(kind, job string, attempt int, token uint64, after time.Duration) line {
		return line{Kind: kind, Run: job + "@2026-01-01T00:00:10Z", Attempt: attempt, Token: token, At: at, Time: at.Add(after)}
	}
	weigh := func(lines ...line) (s summary) {
		f := &fleet{options: o, began: at.Add(-time.Second), lines: lines}
		f.weigh(&s, o.jobs(nil))
		return s
	}
	// job-00000 is run at least once, job-00001 at most once.
	s := weigh(say("start", "job-00000", 1, 5, time.Second), say("step", "job-00000", 1, 5, 2*time.Second), say("start", "job-00000", 2, 6, 3*time.Second))
	require.Zero(t, s.Doubles+s.PastDeadline+s.Tokens)
	require.EqualValues(t, 1000, s.TakeoverMS)
	s = weigh(say("start", "job-00001", 1, 5, time.Second), say("start", "job-00001", 2, 6, 3*time.Second))
	require.Equal(t, 1, s.Doubles)
	s = weigh(say("start", "job-00000", 1, 5, time.Second), say("start", "job-00000", 1, 5, 3*time.Second))
	require.Equal(t, 1, s.Doubles)
	s = weigh(say("start", "job-00000", 1, 7, time.Second), say("start", "job-00000", 2, 6, 3*time.Second))
	require.Equal(t, 1, s.Tokens)
	s = weigh(say("start", "job-00000", 1, 5, time.Second), say("start", "job-00000", 2, 6, 3*time.Second), say("step", "job-00000", 1, 5, 4*time.Second))
	require.Equal(t, 1, s.PastDeadline)
}
