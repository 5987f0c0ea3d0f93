package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

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
	gone    map[string]time.Time  // runners that the store has let go, and when that was seen
	cpu     map[int]time.Duration // of each process, when the measurement began
	packets int
	stop    context.CancelFunc // ends the watch
}

func newFleet(ctx context.Context, o options, e *testenv.Ensemble) (*fleet, error) {
	dir, err := os.MkdirTemp("", "scalr")
	if err != nil {
		return nil, err
	}
	o.Began = time.Now()
	f := &fleet{
		options: o, ensemble: e, dir: dir, procs: make([]*exec.Cmd, o.Runners), done: map[string]int{}, gone: map[string]time.Time{},
	}
	watched, stop := context.WithCancel(ctx)
	f.stop = stop
	if err := f.watch(watched); err != nil {
		f.end()
		return nil, err
	}
	for i := range f.procs {
		if err := f.start(i); err != nil {
			f.end()
			return nil, err
		}
	}
	if err := f.settle(ctx); err != nil {
		f.end()
		return nil, err
	}
	f.began, f.cpu, f.packets = time.Now(), f.used(), f.received(ctx)
	return f, nil
}

// settle waits until all runners are there and all jobs are known.
func (f *fleet) settle(ctx context.Context) error {
	client, err := f.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fl, err := client.Fleet(ctx)
		if err != nil {
			return err
		}
		if len(fl.Runners) >= f.Runners {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, j := range f.jobs(nil) { // until their homes have made them known
		for {
			control, err := client.Control(ctx, j.Name)
			if err != nil {
				return err
			}
			if !control.Created.IsZero() {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	if !pause(ctx, 2*time.Second) {
		return context.Cause(ctx)
	}
	return nil
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
	return zookeeper.Open(ctx, zookeeper.Options{Servers: f.ensemble.Addrs(), Timeout: 10 * time.Second, Root: f.Root})
}

func (f *fleet) gate(i int) string { return filepath.Join(f.dir, fmt.Sprint("gate-", i)) }

// start starts a runner process, and starts it again when it has died.
func (f *fleet) start(i int) error {
	c := config{Servers: f.ensemble.Addrs(), Gate: f.gate(i), Options: f.options, Seed: uint64(i)}
	if f.has("answers") {
		c.Lossy = 500
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
	var said bytes.Buffer
	cmd.Stderr = io.MultiWriter(os.Stderr, &said)
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
		s := bufio.NewScanner(out)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			var l line
			if json.Unmarshal(s.Bytes(), &l) != nil {
				continue // torn by a kill
			}
			l.process = i
			f.mu.Lock()
			f.lines = append(f.lines, l)
			switch l.Kind {
			case "die":
				f.done["die "+l.Text]++
			case "lose":
				f.done["answers"]++
			case "leak":
				f.done[leak]++
				fmt.Fprintln(os.Stderr, l.Text)
			}
			f.mu.Unlock()
			if f.JSON && l.Kind == "event" {
				fmt.Println(s.Text())
			}
		}
		if err := cmd.Wait(); err != nil {
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			told := ok && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGTERM)
			if !told && !(ok && status.ExitStatus() == raced && foreign(said.String())) {
				f.note(crash)
			}
		}
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

// end ends the runners: every other one as a program is ended, the rest with SIGKILL.
func (f *fleet) end() {
	f.stop()
	f.mu.Lock()
	f.ending = true
	for i, p := range f.procs {
		if p != nil {
			p.Process.Signal([]os.Signal{syscall.SIGTERM, syscall.SIGKILL}[i%2])
		}
	}
	f.mu.Unlock()
	last := time.AfterFunc(time.Minute, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.done[crash]++ // it hangs
		for _, p := range f.procs {
			p.Process.Kill()
		}
	})
	defer last.Stop()
	f.group.Wait()
	os.RemoveAll(f.dir)
}

// What no faults are: a runner that ended by itself, or not when it was told to; and goroutines that were left when one ended.
const (
	crash = "crash"
	leak  = "leak"
)

// raced is how the race detector ends a program that has raced.
const raced = 66

// foreign reports whether all races of a report are within the ZooKeeper client: it reads its last transaction's number for the
// watches of a new connection while another of its goroutines writes it (conn.go of v1.0.4, sendSetWatches and recvLoop).
func foreign(report string) bool {
	races := strings.Split(report, "WARNING: DATA RACE")[1:]
	for _, race := range races {
		lines := strings.Split(race, "\n")
		for i, line := range lines[:len(lines)-1] {
			if strings.Contains(line, " at 0x") && strings.Contains(line, " by ") && !strings.Contains(lines[i+1], "github.com/go-zookeeper/zk.") {
				return false
			}
		}
	}
	return len(races) > 0
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
		every = min(every, f.For/2) // so that each is made, however short the time
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
			complain(errors.Join(s.Kill(long), s.Start(long), f.ensemble.Ready(long)))
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
		for _, s := range f.ensemble.Servers[1:] {
			complain(s.Hang(ctx))
		}
		time.Sleep(min(30*time.Second, f.For/4))
		f.resume(context.WithoutCancel(ctx))
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
			complain(errors.Join(s.Stop(long), s.Start(long), f.ensemble.Ready(long)))
		}
	})
	<-ctx.Done()
	group.Wait()
	f.ended = time.Now()
}

// resume lets all servers go on until they serve.
func (f *fleet) resume(ctx context.Context) {
	for {
		for _, s := range f.ensemble.Servers {
			complain(s.Resume(ctx))
		}
		short, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := f.ensemble.Ready(short)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		complain(err)
	}
}

// complain says that a fault could not be made, or ended, as it should.
func complain(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
