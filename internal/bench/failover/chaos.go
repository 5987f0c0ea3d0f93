package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
)

// faults are what chaos draws from, in the order in which it tries each once; those that are in apartFaults need a network or mounts of
// their own.
var faults = append(slices.Clone(apartFaults), "kill", "manager-killed", "hang", "switchover-killed", "lag", "double", "replica")

var apartFaults = []string{"partition", "manager-cut", "disk"}

// chaos is one round of any fault, under traffic. The application asks the servers who is primary.
func (f *fixture) chaos(ctx context.Context, i int) (result, error) {
	drawn := f.o.faults
	if len(drawn) == 0 {
		drawn = faults
	}
	if !apart() {
		drawn = slices.DeleteFunc(slices.Clone(drawn), func(s string) bool { return slices.Contains(apartFaults, s) })
	}
	r := result{Run: i + 1, Mode: drawn[rand.IntN(len(drawn))]}
	if i < len(drawn) { // each at least once, if there is time
		r.Mode = drawn[i]
	}
	if err := f.whole(ctx); err != nil {
		return r, err
	}
	f.mu.Lock()
	f.events = nil
	f.mu.Unlock()
	before, _ := f.manager.Topology()
	t := f.start(ctx)
	defer t.stop()
	if err := until(ctx, "writers write", func() bool { return t.count() > 100 }); err != nil {
		return r, err
	}
	at := time.Now()
	if err := f.hurt(ctx, r.Mode, before.Primary); err != nil {
		return r, err
	}
	defer f.tend(ctx)()
	n := t.count()
	slow := time.AfterFunc(10*time.Second, f.tell) // what goes on then explains more than what has come of it
	if err := until(ctx, "writers write again", func() bool { return t.count() > n+20 }); err != nil {
		return r, err
	}
	slow.Stop()
	r.Ms = float64(time.Since(at).Microseconds()) / 1000
	if err := f.whole(ctx); err != nil {
		return r, err
	}
	r.Rejoin = float64(time.Since(at).Microseconds()) / 1000
	t.stop()
	for _, e := range t.errs {
		f.b.Logf("round %d: %v", r.Run, e)
	}
	r.Errors, r.Ambiguous = len(t.errs), t.ambiguous
	var err error
	if r.Acked, r.Lost, err = f.lost(ctx, t); err != nil {
		return r, err
	}
	f.account(&r, t, before)
	if r.Mode == "manager-cut" && r.Failovers > 0 {
		return r, fmt.Errorf("the Manager could not see %s, which worked, and another one became the primary", before.Primary)
	}
	if err := f.equal(ctx); err != nil {
		return r, err
	}
	_, err = f.pool.Writer.ExecContext(ctx, "TRUNCATE TABLE app.t")
	return r, err
}

// account compares what the Managers said with what the servers did.
func (f *fixture) account(r *result, t *traffic, before replication.Topology) {
	f.mu.Lock()
	defer f.mu.Unlock()
	recoveries := recoveries(f.events)
	r.Failovers, r.NoVerdict = len(recoveries), 0
	promised, bounded := 0, true
	for _, c := range recoveries {
		n, ok := promise(c.verdict)
		promised, bounded = promised+n, bounded && ok
		if !c.planned && c.verdict == "" {
			r.NoVerdict++
		}
	}
	if bounded && r.Lost > promised {
		r.BadVerdict = 1
	}
	if now, _ := f.manager.Topology(); now.Verdict != nil && now.Epoch != before.Epoch {
		r.Verdict = now.Verdict.String()
	}
	r.TwoWrite = usurped(f.events, t.direct)
}

// promotes reports whether a promotion has begun in this round.
func (f *fixture) promotes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.events, func(e scalr.Event) bool {
		return e.Kind == replication.KindStep && strings.HasPrefix(e.Message, "promote ")
	})
}

// recovery is one change of primary that was seen through.
type recovery struct {
	planned bool
	verdict string // the last one that was told before the next change began
}

// recoveries are the promotions that made a primary, by whichever Manager: one that dies while it is promoted is none.
func recoveries(events []scalr.Event) (all []recovery) {
	var now recovery
	promoting, ended := "", false
	for _, e := range events {
		switch {
		case e.Kind == replication.KindStep && strings.HasPrefix(e.Message, "promote "):
			if strings.Contains(e.Message, "was broken off") { // and is made again
				continue
			}
			if ended {
				all = append(all, now)
			}
			promoting, ended = e.Subject, false
			now = recovery{planned: strings.Contains(e.Message, "as planned")}
		case e.Subject != promoting || promoting == "":
		case e.Kind == replication.KindPrimary:
			ended = true
		case e.Kind == replication.KindVerdict:
			now.verdict = e.Message
		}
	}
	if ended {
		all = append(all, now)
	}
	return all
}

// promise reads how many transactions are missing by a verdict, and whether that is all.
func promise(verdict string) (n int, bounded bool) {
	for words := range strings.SplitSeq(verdict, ": ") {
		if before, _, ok := strings.Cut(words, " transactions are missing"); ok {
			n, err := strconv.Atoi(before)
			return n, err == nil
		}
		if strings.HasPrefix(words, "none is known to be missing") {
			return 0, false
		}
	}
	return 0, true
}

// usurped counts the times that a server began to acknowledge rows in the place of another one and had not been promoted since it last
// did so.
func usurped(events []scalr.Event, direct []ack) (n int) {
	promoted := func(server string, after, until time.Time) bool {
		return slices.ContainsFunc(events, func(e scalr.Event) bool {
			return e.Kind == replication.KindStep && e.Subject == server && strings.HasPrefix(e.Message, "promote ") &&
				e.Time.After(after) && !e.Time.After(until)
		})
	}
	reigned := map[string]time.Time{} // until when
	var last ack
	for _, a := range slices.SortedFunc(slices.Values(direct), func(a, b ack) int { return a.end.Compare(b.end) }) {
		if last.server != "" && a.server != last.server {
			if !a.began.After(last.end) {
				continue
			}
			if !promoted(a.server, reigned[a.server], a.end) {
				n++
			}
		}
		last, reigned[a.server] = a, a.end
	}
	return n
}

// hurt does something bad and makes it good again.
func (f *fixture) hurt(ctx context.Context, fault, primary string) (err error) {
	p := f.node(primary)
	var others []string
	for name := range f.direct {
		if name != primary {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	some := f.node(others[rand.IntN(len(others))])
	a := func(limit int) { // a moment
		select {
		case <-time.After(time.Duration(rand.IntN(limit)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
	switch fault {
	case "kill":
		err = p.Kill(ctx)
		a(3000)
	case "hang":
		err = p.Hang(ctx)
		a(5000)
		if e := p.Resume(ctx); e != nil {
			f.b.Logf("resume: %v (its machine has been stopped)", e)
		}
		a(1000)
	case "replica":
		err = some.Kill(ctx)
		a(2000)
	case "lag":
		release, e := f.holdUp(ctx, primary)
		err = errors.Join(e, p.Kill(ctx))
		release()
		a(2000)
	case "double":
		err = p.Kill(ctx)
		a(600)
		err = errors.Join(err, some.Kill(ctx))
		a(2000)
	case "manager-killed":
		err = p.Kill(ctx)
		if rand.IntN(2) == 0 {
			a(900)
		} else if e := until(ctx, "a promotion begins", func() bool { return f.promotes() }); e == nil {
			a(20)
		}
		f.restartManager()
	case "switchover-killed":
		asked, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- f.manager.Switchover(asked, "") }()
		a(300)
		f.restartManager()
		cancel()
		<-done
	case "disk":
		err = fillDisk(f.disk(p.Host))
		a(5000)
		err = errors.Join(err, freeDisk(f.disk(p.Host)))
		a(1000)
	case "partition", "manager-cut":
		ends := []string{managerIP}
		if fault == "partition" {
			ends = append(ends, serversIP)
		}
		for _, end := range ends {
			err = errors.Join(err, cut(end, p.Host), cut(p.Host, end))
		}
		a(5000)
		for _, end := range ends {
			err = errors.Join(err, heal(end, p.Host), heal(p.Host, end))
		}
		a(1000)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", fault, err)
	}
	for _, n := range f.nodes { // what has been killed or stopped is started, as a farm does
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}
