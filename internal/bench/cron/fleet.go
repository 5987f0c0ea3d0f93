package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
	"github.com/scalr-go/scalr/internal/testenv"
)

// fleet is the runner processes and what they have said.
type fleet struct {
	options
	ensemble     *testenv.Ensemble
	dir          string
	began, ended time.Time

	mu      sync.Mutex
	procs   []*exec.Cmd
	lines   []line
	done    map[string]int // faults
	down    bool           // runners that die stay dead
	ending  bool           // and for ever
	group   sync.WaitGroup
	cpu     map[int]time.Duration // of each process, when the measurement began
	packets int
}

func newFleet(ctx context.Context, o options, e *testenv.Ensemble) (*fleet, error) {
	dir, err := os.MkdirTemp("", "scalr")
	if err != nil {
		return nil, err
	}
	f := &fleet{options: o, ensemble: e, dir: dir, procs: make([]*exec.Cmd, o.Runners), done: map[string]int{}}
	for i := range f.procs {
		if err := f.start(i); err != nil {
			f.end()
			return nil, err
		}
	}
	client, err := f.client(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for {
		fl, err := client.Fleet(ctx)
		if err != nil {
			return nil, err
		}
		if len(fl.Runners) >= o.Runners {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, j := range o.jobs(nil) { // until their homes have made them known
		for {
			control, err := client.Control(ctx, j.Name)
			if err != nil {
				return nil, err
			}
			if !control.Created.IsZero() {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	time.Sleep(2 * time.Second)
	f.began, f.cpu, f.packets = time.Now(), f.used(), f.received(ctx)
	return f, nil
}

// used is the processor time of each runner so far, where the system tells.
func (f *fleet) used() map[int]time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[int]time.Duration{}
	for _, p := range f.procs {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 12 {
			user, _ := strconv.Atoi(fields[11])
			system, _ := strconv.Atoi(fields[12])
			all[p.Process.Pid] = time.Duration(user+system) * 10 * time.Millisecond
		}
	}
	return all
}

// received is how many requests all servers have had so far, pings included.
func (f *fleet) received(ctx context.Context) (n int) {
	for i := range f.ensemble.Servers {
		for l := range strings.Lines(f.ensemble.Ask(ctx, i, "mntr")) {
			if text, ok := strings.CutPrefix(l, "zk_packets_received\t"); ok {
				server, _ := strconv.Atoi(strings.TrimSpace(text))
				n += server
			}
		}
	}
	return n
}

func (f *fleet) client(ctx context.Context) (*zookeeper.Client, error) {
	return zookeeper.Open(ctx, zookeeper.Options{Servers: f.ensemble.Addrs(), Timeout: 10 * time.Second, Root: "/bench"})
}

func (f *fleet) gate(i int) string { return filepath.Join(f.dir, fmt.Sprint("gate-", i)) }

// start starts a runner process, and starts it again when it has died.
func (f *fleet) start(i int) error {
	c := config{Servers: f.ensemble.Addrs(), Gate: f.gate(i), Options: f.options, Seed: uint64(i)}
	if f.has("answers") {
		c.Lossy = 2000
	}
	if f.has("skew") {
		c.Skew = []time.Duration{0, 0, 0, 5 * time.Second, -5 * time.Second, 300 * time.Millisecond}[i%6]
	}
	data, _ := json.Marshal(c)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-runner", string(data))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if _, err := cmd.StdinPipe(); err != nil { // breaks when this process dies
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	f.mu.Lock()
	f.procs[i] = cmd
	if f.ending {
		cmd.Process.Kill()
	}
	f.mu.Unlock()
	f.group.Go(func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			var l line
			if json.Unmarshal(s.Bytes(), &l) != nil {
				continue // torn by a kill
			}
			f.mu.Lock()
			f.lines = append(f.lines, l)
			if l.Kind == "die" {
				f.done["die "+l.Text]++
			}
			f.mu.Unlock()
			if f.JSON && l.Kind == "event" {
				fmt.Println(s.Text())
			}
		}
		cmd.Wait()
		for {
			f.mu.Lock()
			down, ending := f.down, f.ending
			f.mu.Unlock()
			if ending {
				return
			}
			time.Sleep(500 * time.Millisecond)
			if !down {
				break
			}
		}
		if err := f.start(i); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	return nil
}

// end kills what is left.
func (f *fleet) end() {
	f.mu.Lock()
	f.ending = true
	for _, p := range f.procs {
		if p != nil {
			p.Process.Kill()
		}
	}
	f.mu.Unlock()
	f.group.Wait()
	os.RemoveAll(f.dir)
}

func (f *fleet) note(fault string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done[fault]++
}

// chaos makes faults until the time is over, and heals all of them.
func (f *fleet) chaos(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, f.For)
	defer cancel()
	var group sync.WaitGroup
	loop := func(fault string, every time.Duration, do func()) {
		if !f.has(fault) {
			return
		}
		group.Go(func() {
			for pause(ctx, every/2+rand.N(every)) {
				do()
				f.note(fault)
			}
		})
	}
	process := func() (int, *os.Process) {
		f.mu.Lock()
		defer f.mu.Unlock()
		i := rand.IntN(len(f.procs))
		return i, f.procs[i].Process
	}
	var disturb sync.Mutex // one fault of the ensemble at a time
	loop("kill", 3*time.Second, func() {
		_, p := process()
		p.Kill()
	})
	loop("stop", 5*time.Second, func() {
		_, p := process()
		p.Signal(syscall.SIGSTOP)
		time.Sleep(f.Timeout + rand.N(f.Timeout))
		p.Signal(syscall.SIGCONT)
	})
	loop("cut", 5*time.Second, func() {
		i, _ := process()
		os.WriteFile(f.gate(i), nil, 0o600)
		time.Sleep(f.Timeout/2 + rand.N(f.Timeout))
		os.Remove(f.gate(i))
	})
	loop("leader", 15*time.Second, func() {
		disturb.Lock()
		defer disturb.Unlock()
		if i, err := f.ensemble.Leader(ctx); err == nil {
			s := f.ensemble.Servers[i]
			long := context.WithoutCancel(ctx)
			if err := errors.Join(s.Kill(long), s.Start(long), f.ensemble.Ready(long)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	})
	loop("follower", 20*time.Second, func() {
		disturb.Lock()
		defer disturb.Unlock()
		if i, err := f.ensemble.Leader(ctx); err == nil {
			f.ensemble.Cut((i + 1) % 3)
			time.Sleep(2 * f.Timeout)
			f.ensemble.Heal()
			f.ensemble.Ready(context.WithoutCancel(ctx))
		}
	})
	loop("quorum", 40*time.Second, func() {
		disturb.Lock()
		defer disturb.Unlock()
		long := context.WithoutCancel(ctx)
		for _, s := range f.ensemble.Servers[1:] {
			s.Hang(long)
		}
		time.Sleep(min(30*time.Second, f.For/4))
		for _, s := range f.ensemble.Servers[1:] {
			s.Resume(long)
		}
		f.ensemble.Ready(long)
	})
	outage := f.has("outage")
	loop("outage", f.For/2, func() {
		if !outage {
			return
		}
		outage = false // once
		set := func(down bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.down = down
			for _, p := range f.procs {
				if down {
					p.Process.Kill()
				}
			}
		}
		set(true)
		time.Sleep(f.For / 3)
		set(false)
	})
	loop("rolling", 30*time.Second, func() {
		disturb.Lock()
		defer disturb.Unlock()
		long := context.WithoutCancel(ctx)
		for _, s := range f.ensemble.Servers {
			if err := errors.Join(s.Stop(long), s.Start(long), f.ensemble.Ready(long)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	})
	<-ctx.Done()
	group.Wait()
	f.ended = time.Now()
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

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
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
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
		if s.Misses == 0 && open == 0 || time.Now().After(deadline) {
			s.Misses += open
			break
		}
	}
	claims := 0
	for _, c := range records {
		if c.Status == cronlock.Lost {
			s.Lost++
		}
		claims++
	}
	s.ClaimsPerS = float64(claims) / lasted
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
	for _, l := range f.lines {
		if l.Token > 0 {
			lastSign[l.Token] = l.Time
		}
		if l.Kind != "start" || !l.At.After(f.began) {
			continue
		}
		runs[l.Run] = append(runs[l.Run], attempt{l.Runner, l.Token, l.Time})
		if l.Attempt == 1 {
			late = append(late, l.Time.Sub(l.At.Add(jitter(byName, l))).Milliseconds())
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
		if l.Kind != "step" && l.Kind != "end" {
			continue
		}
		for _, a := range runs[l.Run] {
			if a.token > l.Token && l.Time.After(a.start) {
				s.PastDeadline++
			}
		}
	}
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
	conn, _, err := zk.Connect(f.ensemble.Addrs(), 10*time.Second, zk.WithLogInfo(false))
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
		data, _, err := conn.Get("/bench/jobs/" + j.Name + "/slot")
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
		runners, _, err := conn.Children("/bench/runners")
		if err != nil {
			return err
		}
		locks, _, err := conn.Children("/bench/locks")
		if err != nil {
			return err
		}
		s.Orphans = marks + len(runners) + len(locks)
		if s.Orphans == marks || time.Now().After(deadline) {
			return nil
		}
	}
}
