package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/goleak"

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
	Seed    uint64
	Options options
}

// line is what a runner reports, on its standard output: one write each, so that a kill tears none.
type line struct {
	Kind    string // of runs: start, step, end; of locks: hold, work, release; of calls to the store: call, return; event, die, lose, leak
	Run     string // or the lock's name
	Attempt int
	Token   uint64
	Runner  string
	At      time.Time // the instant
	Time    time.Time // of work, just before it asked whether its lease lasts
	Text    string

	Call     *call  `json:",omitempty"`
	Requests uint64 `json:",omitempty"` // transactions that this process has sent

	process int // the place of the process; of the fleet only
}

func say(l line) {
	if l.Time.IsZero() {
		l.Time = time.Now()
	}
	data, _ := json.Marshal(l)
	os.Stdout.Write(append(data, '\n'))
}

// jobs are the same for all runners, and for the judge. They are spread over their period.
func (o options) jobs(work func(context.Context, cronlock.Run) error) (list []cronlock.Job) {
	for n := range o.Jobs {
		// Half of them at least once, and every fourth excludes itself.
		j := cronlock.Job{
			Name: fmt.Sprintf("job-%05d", n), Schedule: o.onTheWall(cronlock.MustParse(o.expression(n)), n), Jitter: 500 * time.Millisecond,
			CatchUp: cronlock.CatchUpAll, Run: work, AtLeastOnce: n%2 == 0,
		}
		if n%4 == 3 {
			j.Overlap = cronlock.Forbid
		}
		list = append(list, j)
	}
	return list
}

func (o options) expression(n int) string {
	period := int(o.Every / time.Second)
	at := n * period / o.Jobs
	switch {
	case period < 60:
		return fmt.Sprintf("%d/%d * * * * *", at, period)
	case period == 60:
		return fmt.Sprintf("%d * * * * *", at)
	case period < 3600:
		return fmt.Sprintf("%d %d/%d * * * *", at%60, at/60, period/60)
	}
	return fmt.Sprintf("%d %d * * * *", at%60, at/60)
}

// be is a runner.
func be(text string) {
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	go func() { // the parent holds the other end for as long as it lives
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	before := goleak.IgnoreCurrent()
	client, err := zookeeper.Open(ctx, zookeeper.Options{Servers: c.Servers, Timeout: c.Options.Timeout, Root: c.Options.Root, Dial: c.dial})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	store := &claimer{Client: client, config: c, dice: rand.New(rand.NewPCG(c.Seed, uint64(os.Getpid())))}
	work := func(ctx context.Context, r cronlock.Run) error {
		l := line{Kind: "start", Run: r.Key.String(), Attempt: r.Attempt, Token: r.Token, Runner: r.Runner, At: r.At}
		// The clock first, then the context: what it says holds for that time, however long this process stands still between.
		l.Time = time.Now()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		say(l)
		for end := time.Now().Add(c.Options.Takes); time.Now().Before(end); {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(20 * time.Millisecond):
			}
			if l.Time = time.Now(); ctx.Err() == nil {
				l.Kind = "step"
				say(l)
				store.die("mid-run")
			}
		}
		if l.Time = time.Now(); ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.Kind = "end"
		say(l)
		return nil
	}
	cron := cronlock.Cron{Claimer: store, Jobs: c.Options.jobs(work), Events: func(e scalr.Event) {
		switch e.Kind {
		case cronlock.RunStarted, cronlock.RunSucceeded:
		default:
			say(line{Kind: "event", Text: e.String(), Run: e.Attrs["at"]})
		}
	}}
	var group sync.WaitGroup
	store.locks(ctx, &group)
	if err := cron.Run(ctx); ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
	}
	group.Wait()
	client.Close()
	if err := goleak.Find(before); err != nil {
		say(line{Kind: "leak", Text: err.Error()})
	}
}

// claimer sees another clock than the servers: a runner whose clock is ahead of theirs, or behind, or is set. The process cannot set
// its own. And it ends the process at the moments that matter.
type claimer struct {
	*zookeeper.Client
	config config
	mu     sync.Mutex
	dice   *rand.Rand
}

func (c *claimer) Fleet(ctx context.Context) (cronlock.Fleet, error) {
	f, err := c.Client.Fleet(ctx)
	f.Skew -= c.config.Skew
	if c.config.Options.has("step") {
		turn := uint64(time.Now().Unix()/7) + c.config.Seed
		f.Skew -= []time.Duration{0, 5 * time.Second, 0, -5 * time.Second}[turn%4]
	}
	return f, err
}

// die kills this process, once in a while.
func (c *claimer) die(when string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.config.Options
	odds := max(20, min(150, o.Jobs*int(o.For/o.Every)/2))
	if when == "mid-run" {
		odds *= 10
	}
	if o.has("die") && c.dice.IntN(odds) == 0 {
		say(line{Kind: "die", Text: when})
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// transactions counts those that were sent.
var transactions atomic.Uint64

const opMulti = 14

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
	if len(p) >= 12 && binary.BigEndian.Uint32(p[8:]) == opMulti { // the client library writes each request in one call
		transactions.Add(1)
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
		lose := err == nil && g.config.Lossy > 0 && rand.IntN(g.config.Lossy) == 0
		if lose {
			say(line{Kind: "lose"})
		}
		if lose || err == nil && g.broken.Load() {
			g.Conn.Close()
			return 0, errCut
		}
		return n, err
	}
}
