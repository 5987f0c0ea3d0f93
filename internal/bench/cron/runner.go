package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
)

// config is what a runner process is told.
type config struct {
	Servers []string
	Gate    string // a file: while it exists, the runner reaches no server
	Lossy   int    // of so many reads one breaks the connection instead
	Skew    time.Duration
	Options options
}

// line is what a runner reports, on its standard output: one write each, so that a kill tears none.
type line struct {
	Kind    string // start, step, end or event
	Run     string
	Attempt int
	Token   uint64
	Runner  string
	At      time.Time // the instant
	Time    time.Time
	Text    string
}

func say(l line) {
	l.Time = time.Now()
	data, _ := json.Marshal(l)
	os.Stdout.Write(append(data, '\n'))
}

// jobs are the same for all runners, and for the judge.
func (o options) jobs(work func(context.Context, cronlock.Run) error) (list []cronlock.Job) {
	s := cronlock.MustParse("@every " + o.Every.String())
	for n := range o.Jobs {
		// Half of them at least once, and every fourth excludes itself.
		j := cronlock.Job{Name: fmt.Sprintf("job-%03d", n), Schedule: s, Jitter: o.Every / 2, CatchUp: cronlock.CatchUpAll, Run: work, AtLeastOnce: n%2 == 0}
		if n%4 == 3 {
			j.Overlap = cronlock.Forbid
		}
		list = append(list, j)
	}
	return list
}

// be is a runner.
func be(text string) {
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx := context.Background()
	client, err := zookeeper.Open(ctx, zookeeper.Options{Servers: c.Servers, Timeout: c.Options.Timeout, Root: "/bench", Dial: c.dial})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	work := func(ctx context.Context, r cronlock.Run) error {
		l := line{Kind: "start", Run: r.Key.String(), Attempt: r.Attempt, Token: r.Token, Runner: r.Runner, At: r.At}
		say(l)
		for end := time.Now().Add(c.Options.Takes); time.Now().Before(end); {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(20 * time.Millisecond):
			}
			if ctx.Err() == nil {
				l.Kind = "step"
				say(l)
			}
		}
		l.Kind = "end"
		say(l)
		return nil
	}
	cron := cronlock.Cron{Claimer: claimer{client, c.Skew}, Jobs: c.Options.jobs(work), Events: func(e scalr.Event) {
		switch e.Kind {
		case cronlock.RunStarted, cronlock.RunSucceeded:
		default:
			say(line{Kind: "event", Text: e.String(), Run: e.Attrs["at"]})
		}
	}}
	if err := cron.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// claimer sees another clock than the servers: a runner whose clock is ahead of theirs, or behind. The process cannot set its own.
type claimer struct {
	cronlock.Claimer
	skew time.Duration
}

func (c claimer) Fleet(ctx context.Context) (cronlock.Fleet, error) {
	f, err := c.Claimer.Fleet(ctx)
	f.Skew -= c.skew
	return f, err
}

var errCut = errors.New("cut off")

func (c config) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if c.closed() {
		<-ctx.Done()
		return nil, errCut
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &gated{Conn: conn, config: c}, nil
}

func (c config) closed() bool {
	_, err := os.Stat(c.Gate)
	return err == nil
}

// gated is a connection that swallows everything while the gate is closed, breaks when it opens, and loses answers.
type gated struct {
	net.Conn
	config config
	broken atomic.Bool
}

func (g *gated) Write(p []byte) (int, error) {
	if g.config.closed() {
		g.broken.Store(true)
		return len(p), nil
	}
	if g.broken.Load() {
		return 0, errCut
	}
	return g.Conn.Write(p)
}

func (g *gated) Read(p []byte) (int, error) {
	for {
		n, err := g.Conn.Read(p)
		if g.config.closed() {
			g.broken.Store(true)
			if err == nil {
				continue
			}
		}
		if err == nil && (g.broken.Load() || g.config.Lossy > 0 && rand.IntN(g.config.Lossy) == 0) {
			g.Conn.Close()
			return 0, errCut
		}
		return n, err
	}
}
