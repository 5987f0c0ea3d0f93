package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
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
		Runners: 4, Jobs: 12, For: 16 * time.Second, Every: 2 * time.Second, Takes: 200 * time.Millisecond, Timeout: 2 * time.Second,
		Faults: "kill,die,stop,cut,answers,skew,step,leader,follower,dst", Locks: 2, Root: "/bench",
	}, testenv.ZooKeeper(t, 3))
	require.NoError(t, err)
	t.Logf("%+v", s)
	require.Zero(t, s.Doubles, "doubles")
	require.Zero(t, s.Misses, "misses")
	require.Zero(t, s.PastDeadline, "steps of work past its deadline")
	require.Zero(t, s.Tokens, "fallen tokens")
	require.Zero(t, s.Orphans, "orphans")
	require.Zero(t, s.Early, "early starts")
	require.Empty(t, s.Unlinearizable, "histories that could not be")
	require.NotContains(t, s.Faults, crash)
	require.NotContains(t, s.Faults, leak)
	require.NotZero(t, s.Holds)
	require.NotZero(t, s.Calls)
	require.NotZero(t, s.Instants)
	for _, fault := range []string{"kill", "stop", "cut", "leader", "follower"} {
		require.Contains(t, s.Faults, fault)
	}
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
	require.Equal(t, 1, weigh(say("start", "job-00000", 1, 5, -time.Millisecond)).Early)
}

// The model takes what may be, and nothing else.
func TestRecords(t *testing.T) {
	key := cronlock.Key{Job: "j", At: time.Unix(1e9, 0).UTC()}
	claim := func(process int, runner, outcome string, token uint64) call {
		c := call{Process: process, Was: -1, Outcome: outcome, To: cronlock.Claim{Key: key, Runner: runner, Attempt: 1, Status: cronlock.Running}}
		if c.Got = c.To; outcome == done {
			c.Got.Version, c.Got.Token = 1, token
		}
		return c
	}
	change := func(was call, runner string, status cronlock.Status, attempt int, outcome string, token uint64) call {
		c := call{Process: was.Process, Was: was.Got.Version, Outcome: outcome, To: was.Got}
		c.To.Runner, c.To.Status, c.To.Attempt = runner, status, attempt
		c.Got = c.To
		c.Got.Version, c.Got.Token = was.Got.Version+1, token
		return c
	}
	// judge makes the calls one after the other.
	judge := func(list ...call) int {
		var ops []porcupine.Operation
		for i, c := range list {
			op := porcupine.Operation{ClientId: c.Process, Input: c, Call: int64(10 * i), Return: int64(10*i + 5)}
			if c.Outcome == "" {
				op.Return = 1 << 60
			}
			ops = append(ops, op)
		}
		return len(linearizable(ops)) + fallen(ops)
	}
	first := claim(1, "a", done, 5)
	require.Zero(t, judge(first, claim(2, "b", claimed, 0), change(first, "a", cronlock.Succeeded, 1, done, 5), claim(2, "b", claimed, 0)))
	require.NotZero(t, judge(first, claim(2, "b", done, 6)), "two have it")
	require.NotZero(t, judge(claim(2, "b", claimed, 0), first), "nobody has it, and it is refused")
	require.Zero(t, judge(claim(2, "b", "", 0), claim(1, "a", claimed, 0)), "a claim that was answered to nobody may be there")
	require.Zero(t, judge(claim(2, "b", "", 0), first), "or not")
	over := change(first, "b", cronlock.Running, 2, done, 7)
	require.Zero(t, judge(first, over, change(first, "a", cronlock.Succeeded, 1, claimed, 0), change(over, "b", cronlock.Succeeded, 2, done, 7)))
	require.NotZero(t, judge(first, over, change(first, "a", cronlock.Succeeded, 1, done, 5)), "a change of what was taken over")
	require.NotZero(t, judge(first, change(first, "b", cronlock.Running, 2, done, 5)), "a token that does not rise")
	other := claim(2, "b", done, 4)
	other.To.At = other.To.At.Add(time.Second)
	require.NotZero(t, judge(first, other), "nor from one run of the job to the next")
	require.NotZero(t, judge(first, claim(2, "b", busy, 0)), "what is there cannot be busy")
}

// Work under a lock ends before the next one's begins, and so does a run whose runner is gone.
func TestWeighLocksAndRunners(t *testing.T) {
	at := time.Unix(1e9, 0)
	say := func(kind string, token uint64, after time.Duration) line {
		return line{Kind: kind, Run: "l", Runner: fmt.Sprint(token), Token: token, Time: at.Add(after)}
	}
	weigh := func(lines ...line) (s summary) {
		(&fleet{lines: lines}).weighLocks(&s)
		return s
	}
	s := weigh(say("hold", 1, 0), say("work", 1, 1), say("hold", 2, 2), say("work", 2, 3))
	require.Equal(t, 2, s.Holds)
	require.Zero(t, s.Tokens+s.PastDeadline+s.Doubles)
	require.Equal(t, 1, weigh(say("hold", 1, 0), say("hold", 2, 2), say("work", 1, 3)).PastDeadline)
	require.Equal(t, 1, weigh(say("hold", 2, 0), say("hold", 1, 2)).Tokens)

	o := options{Jobs: 1, Every: 10 * time.Second}
	f := &fleet{options: o, began: at.Add(-time.Second), gone: map[string]time.Time{"r": at.Add(time.Second)}}
	step := line{Kind: "step", Run: "job-00000@x", Runner: "r", At: at, Time: at}
	for after, want := range map[time.Duration]int{0: 0, 2 * time.Second: 1} {
		var s summary
		step.Time = at.Add(after)
		f.lines = []line{step}
		f.weigh(&s, o.jobs(nil))
		require.Equal(t, want, s.PastDeadline)
	}
}

// The clock of the fault dst is set forward and back.
func TestZone(t *testing.T) {
	from := time.Unix(1e9, 0).UTC()
	z := zone(from, 15*time.Second)
	for after, want := range map[time.Duration]string{
		-time.Second: "01:46:39", 0: "01:46:47", 14 * time.Second: "01:47:01", 15 * time.Second: "01:46:55", 30 * time.Second: "01:47:17",
	} {
		require.Equal(t, want, from.Add(after).In(z).Format("15:04:05"), after)
	}
}

// A race within the client library ends no runner's innocence; any other does.
func TestForeignRaces(t *testing.T) {
	race := func(write, read string) string {
		return "WARNING: DATA RACE\nWrite at 0x00c0000d2180 by goroutine 137:\n  " + write + "()\n      file.go:1 +0x1\n\n" +
			"Previous read at 0x00c0000d2180 by goroutine 13:\n  " + read + "()\n      file.go:2 +0x2\n"
	}
	const theirs, ours = "github.com/go-zookeeper/zk.(*Conn).recvLoop", "github.com/scalr-go/scalr/cronlock/zookeeper.Open"
	require.True(t, foreign(race(theirs, theirs)))
	require.False(t, foreign(race(theirs, ours)))
	require.False(t, foreign(race(theirs, theirs)+race(ours, theirs)))
	require.False(t, foreign("panic: out of memory"))
}
