package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/go-zookeeper/zk"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
)

// judge lets what is open come to its end, stops the runners, and compares what was said with what was due.
func (f *fleet) judge(ctx context.Context) (summary, error) {
	s := summary{Summary: true, Faults: f.done}
	lasted := f.ended.Sub(f.began).Seconds()
	for pid, now := range f.used() {
		if before, ok := f.cpu[pid]; ok {
			s.RunnerCPU += float64((now - before).Milliseconds()) / lasted
		}
	}
	if n := f.received(ctx) - f.packets; n > 0 { // else a server has started anew
		s.Requests = float64(n) / lasted
	}
	client, err := f.client(ctx)
	if err != nil {
		return s, err
	}
	defer client.Close()
	due := f.ended.Add(-min(f.Every, 10*time.Second)) // what came in the last moments may be under way
	jobs := f.jobs(func(context.Context, cronlock.Run) error { return nil })
	records := map[string]cronlock.Claim{}
	left, better := -1, time.Time{} // what was left at best, and since when
	for ; ; time.Sleep(time.Second) {
		s.Instants, s.Misses = 0, 0
		open := 0
		for _, j := range jobs {
			for at := j.Schedule.Next(f.began); at.Before(due); at = j.Schedule.Next(at) {
				s.Instants++
				run := cronlock.Key{Job: j.Name, At: at.UTC()}
				c := records[run.String()]
				if !c.Status.Over() || c.Version == 0 {
					c, err = client.Get(ctx, run)
					if errors.Is(err, cronlock.ErrNoClaim) {
						s.Misses++
						continue
					}
					if err != nil {
						return s, err
					}
					records[run.String()] = c
				}
				if !c.Status.Over() {
					open++
				}
			}
		}
		if s.Misses += open; left < 0 || s.Misses < left {
			left, better = s.Misses, time.Now()
		}
		if s.Misses == 0 || time.Since(better) > 90*time.Second { // nothing comes any more
			break
		}
	}
	for _, c := range records {
		if c.Status == cronlock.Lost {
			s.Lost++
		}
	}
	f.end()
	f.weigh(&s, jobs)
	return s, f.orphans(ctx, &s, client)
}

// weigh finds doubles, and steps past the deadline, in what the runners said.
func (f *fleet) weigh(s *summary, jobs []cronlock.Job) {
	byName := map[string]cronlock.Job{}
	for _, j := range jobs {
		byName[j.Name] = j
	}
	type attempt struct {
		runner string
		token  uint64
		start  time.Time
	}
	runs, lastSign := map[string][]attempt{}, map[uint64]time.Time{} // of an attempt, by its token
	var late, takeover []int64
	perProcess := map[int]int{}
	for _, l := range f.lines {
		if l.Token > 0 {
			lastSign[l.Token] = l.Time
		}
		if l.Kind != "start" || !l.At.After(f.began) {
			continue
		}
		runs[l.Run] = append(runs[l.Run], attempt{l.Runner, l.Token, l.Time})
		begins := l.At.Add(jitter(byName, l))
		if l.Time.Before(begins) {
			s.Early++
		}
		perProcess[l.process]++
		if l.Attempt == 1 {
			late = append(late, l.Time.Sub(begins).Milliseconds())
		}
	}
	for run, list := range runs {
		job, _, _ := strings.Cut(run, "@")
		// The lines of one process are in order, those of several by their clocks, which are one here.
		for i, a := range list {
			for _, b := range list[i+1:] {
				if a.token == b.token || !byName[job].AtLeastOnce {
					s.Doubles++
				}
				if (a.token < b.token) != a.start.Before(b.start) {
					s.Tokens++
				}
				takeover = append(takeover, b.start.Sub(lastSign[a.token]).Milliseconds())
			}
		}
	}
	for _, l := range f.lines {
		if l.Kind != "start" && l.Kind != "step" && l.Kind != "end" {
			continue
		}
		if gone, ok := f.gone[l.Runner]; ok && l.Time.After(gone) {
			s.PastDeadline++
			continue
		}
		for _, a := range runs[l.Run] {
			if a.token > l.Token && l.Time.After(a.start) {
				s.PastDeadline++
			}
		}
	}
	for _, n := range perProcess {
		s.Spread = max(s.Spread, float64(n*f.Runners)/float64(len(late)))
	}
	f.weighLocks(s)
	ops := history(f.lines)
	for _, op := range ops {
		if c := op.Input.(call); c.Was < 0 && c.Outcome == done && c.Begin.After(f.began) && c.Begin.Before(f.ended) {
			s.ClaimsPerS += 1 / f.ended.Sub(f.began).Seconds()
		}
	}
	s.Calls, s.Unlinearizable = len(ops), linearizable(ops)
	s.Tokens += fallen(ops)
	f.transactions(s, ops)
	s.LatenessMS, s.LatenessP50, s.TakeoverMS = percentile(late, 99), percentile(late, 50), percentile(takeover, 50)
}

// jitter is how long after its instant a run was to start.
func jitter(jobs map[string]cronlock.Job, l line) time.Duration {
	name, _, _ := strings.Cut(l.Run, "@")
	return jobs[name].Delay(l.At)
}

// orphans counts what is left in the store when no runner lives: nodes of locks and runners, when their sessions have expired,
// and marks of runs that have ended.
func (f *fleet) orphans(ctx context.Context, s *summary, client *zookeeper.Client) error {
	conn, _, err := zk.Connect(f.ensemble.Addrs(), 10*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		return err
	}
	defer conn.Close()
	marks := 0
	ended := func(run cronlock.Key) error {
		c, err := client.Get(ctx, run)
		if errors.Is(err, cronlock.ErrNoClaim) || err == nil && c.Status.Over() {
			marks++
			return nil
		}
		return err
	}
	open, err := client.Open(ctx)
	if err != nil {
		return err
	}
	for _, run := range open {
		if err := ended(run); err != nil {
			return err
		}
	}
	for _, j := range f.jobs(nil) {
		data, _, err := conn.Get(f.Root + "/jobs/" + j.Name + "/slot")
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		if err != nil {
			return err
		}
		_, at, _ := strings.Cut(string(data), "@")
		t, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return err
		}
		if err := ended(cronlock.Key{Job: j.Name, At: t}); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		runners, _, err := conn.Children(f.Root + "/runners")
		if err != nil {
			return err
		}
		locks, _, err := conn.Children(f.Root + "/locks")
		if err != nil {
			return err
		}
		s.Orphans = marks + len(runners) + len(locks)
		if s.Orphans == marks || time.Now().After(deadline) {
			return nil
		}
	}
}

// transactions finds how many transactions were sent for each claim and each end of a run. Before the time that is measured, jobs were made known.
func (f *fleet) transactions(s *summary, ops []porcupine.Operation) {
	first, last, made := map[int]uint64{}, map[int]uint64{}, map[int]uint64{}
	for _, l := range f.lines {
		if l.Call == nil || l.Call.Begin.Before(f.began) {
			continue
		}
		p := l.Call.Process
		if _, ok := first[p]; !ok {
			first[p] = l.Requests
		}
		last[p] = max(last[p], l.Requests)
	}
	for _, op := range ops {
		if c := op.Input.(call); !c.Begin.Before(f.began) {
			made[c.Process]++
		}
	}
	var requests, calls uint64
	for process, n := range made {
		requests, calls = requests+last[process]-first[process], calls+n
	}
	if calls > 0 {
		s.PerCall = float64(requests) / float64(calls)
	}
}
