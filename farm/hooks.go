package farm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
)

const (
	hookPatience = time.Second // how long a pass waits for hooks that hold machines: those that only look are done by then
	hookLine     = 100         // how many events wait for one hook and target
)

// hooks are the runs of a farm's hooks.
type hooks struct {
	mu      sync.Mutex
	idle    sync.Cond       // running has become 0
	running int             // goroutines
	ctx     context.Context // of Run while it runs; nil outside
	held    map[string]*holder
	lines   map[line]*queue
	freed   chan struct{} // a machine is held no more
}

// line is what one run waits for the other in: those of one hook for one target.
type line struct {
	hook   int
	target string
}

type queue struct {
	events []scalr.Event
	missed int // events that found the queue full
}

// holder is the hooks that hold one machine, one after another.
type holder struct {
	kind   scalr.Kind
	cancel context.CancelFunc
	done   chan struct{} // closed when the run has ended; the next one has another
	passed int           // how many hooks have let the machine go
	hook   string        // the one that is asked, or that has failed
	since  time.Time     // when it was first asked
	err    error         // of the last run
	told   string        // the last failure that was told
}

// asked is a machine that is held.
type asked struct {
	kind   scalr.Kind
	server Server
}

// underWay is the answer of a hook that has not returned.
type underWay struct {
	hook string
	time.Duration
}

func (u underWay) Error() string {
	return fmt.Sprintf("hook %s has run for %v", u.hook, u.Round(time.Second))
}

func newHooks() *hooks {
	h := &hooks{held: map[string]*holder{}, lines: map[line]*queue{}, freed: make(chan struct{}, 1)}
	h.idle.L = &h.mu
	return h
}

// begin lets runs end with the context. The function that it gives waits for them, having ended them.
func (h *hooks) begin(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ctx = ctx
	return func() {
		cancel()
		h.wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ctx = nil
		clear(h.held)
	}
}

// wait waits until no run is under way.
func (h *hooks) wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.running > 0 {
		h.idle.Wait()
	}
}

// spawn runs do in a goroutine of its own, and gives what ends its context. The caller holds the lock.
func (h *hooks) spawn(do func(context.Context)) context.CancelFunc {
	ctx := h.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithCancel(ctx)
	h.running++
	go func() {
		defer cancel()
		do(ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.running--; h.running == 0 {
			h.idle.Broadcast()
		}
	}()
	return cancel
}

// ask asks the hooks that hold machines, and gives what they have answered so far, by instance. Of machines that are not held any
// more the runs are ended, if the list is complete. Without acting it asks nobody, and only gives what is known.
func (f *Farm) ask(ctx context.Context, all []asked, complete, acting bool) map[string]error {
	h := f.hooks
	var fresh []asked
	var begun []chan struct{}
	h.mu.Lock()
	if acting {
		current := map[string]bool{}
		for _, a := range all {
			current[a.server.ID] = true
			run := h.held[a.server.ID]
			if run == nil || run.kind != a.kind {
				if run != nil {
					run.cancel()
				}
				run = &holder{kind: a.kind}
				h.held[a.server.ID] = run
				fresh = append(fresh, a)
			}
			if run.ended() && (run.err != nil || run.done == nil) {
				run.done = make(chan struct{})
				run.cancel = h.spawn(f.holding(run, run.done, a))
				begun = append(begun, run.done)
			}
		}
		for id, run := range h.held {
			if complete && !current[id] {
				run.cancel()
				delete(h.held, id)
			}
		}
	}
	h.mu.Unlock()
	for _, a := range fresh {
		f.emit(scalr.Event{Time: time.Now(), Kind: a.kind, Farm: f.spec.Name, Role: a.server.Role, Index: a.server.Index, Subject: a.server.ID,
			Message: "its hooks are asked: " + f.config.holders(a.kind, a.server.Role)})
	}
	patience := time.NewTimer(hookPatience)
	defer patience.Stop()
	for _, done := range begun {
		select {
		case <-done:
			continue
		case <-patience.C:
		case <-ctx.Done():
		}
		break
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	answers := make(map[string]error, len(all))
	for _, a := range all {
		switch run := h.held[a.server.ID]; {
		case run == nil || run.kind != a.kind:
		case !run.ended():
			answers[a.server.ID] = underWay{run.hook, time.Since(run.since)}
		default:
			answers[a.server.ID] = run.err
		}
	}
	return answers
}

func (r *holder) ended() bool {
	if r.done == nil {
		return true
	}
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// holders names the hooks that hold a machine.
func (c *Config) holders(kind scalr.Kind, role string) string {
	var names []string
	for i := range c.Hooks {
		if c.Hooks[i].bound(kind, role) {
			names = append(names, c.Hooks[i].Name)
		}
	}
	return strings.Join(names, ", ")
}

// holding gives a run of the hooks that hold a machine, from the first that has not let it go. The caller holds the lock.
func (f *Farm) holding(run *holder, done chan struct{}, a asked) func(context.Context) {
	h := f.hooks
	var mine []*Hook
	for i := range f.config.Hooks {
		if f.config.Hooks[i].bound(a.kind, a.server.Role) {
			mine = append(mine, &f.config.Hooks[i])
		}
	}
	mine = mine[run.passed:]
	begin := func(k int) {
		if run.hook != mine[k].Name {
			run.hook, run.since = mine[k].Name, time.Now()
		}
	}
	begin(0)
	e := scalr.Event{Time: time.Now(), Kind: a.kind, Farm: f.spec.Name, Role: a.server.Role, Index: a.server.Index, Subject: a.server.ID}
	return func(ctx context.Context) {
		for k, hook := range mine {
			began := time.Now()
			err := f.runHook(ctx, hook, e, &a.server)
			if ctx.Err() != nil {
				err = context.Cause(ctx) // nobody wants to know any more
			}
			h.mu.Lock()
			again := err != nil && run.told == err.Error()
			if err != nil {
				run.err, run.told = fmt.Errorf("hook %s: %w", hook.Name, err), err.Error()
			} else if run.passed, run.told = run.passed+1, ""; k+1 < len(mine) {
				begin(k + 1)
			} else {
				run.err = nil
			}
			h.mu.Unlock()
			if !again && ctx.Err() == nil {
				f.tellHook(hook, e, began, err)
			}
			if err != nil {
				break
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		close(done)
		if run.err == nil {
			select {
			case h.freed <- struct{}{}:
			default:
			}
		}
	}
}

// tellHook tells what became of a run.
func (f *Farm) tellHook(hook *Hook, e scalr.Event, began time.Time, err error) {
	e.Time, e.Attrs = time.Now(), map[string]string{"hook": hook.Name, "on": string(e.Kind)}
	e.Kind, e.Message = HookDone, fmt.Sprintf("hook %s has taken %v", hook.Name, time.Since(began).Round(time.Millisecond))
	if err != nil {
		e.Kind, e.Message, e.Err = HookFailed, fmt.Sprintf("hook %s failed", hook.Name), err.Error()
	}
	f.emit(e)
}

// notice lets the hooks follow an event that are bound to it and hold nothing.
func (f *Farm) notice(e scalr.Event) {
	if slices.Contains(holding, e.Kind) {
		return
	}
	h := f.hooks
	for i := range f.config.Hooks {
		hook := &f.config.Hooks[i]
		if !hook.bound(e.Kind, e.Role) {
			continue
		}
		at := line{hook: i}
		switch hook.Target {
		case TheMachine:
			at.target = e.Subject
		case TheRole:
			at.target = e.Role
		}
		h.mu.Lock()
		switch q := h.lines[at]; {
		case q == nil:
			h.lines[at] = &queue{events: []scalr.Event{e}}
			h.spawn(func(ctx context.Context) { f.serveLine(ctx, hook, at) })
		case len(q.events) >= hookLine:
			q.missed++
		default:
			q.events = append(q.events, e)
		}
		h.mu.Unlock()
	}
}

// serveLine runs a hook for one event after another, until none is left or the context has ended.
func (f *Farm) serveLine(ctx context.Context, hook *Hook, at line) {
	h := f.hooks
	told := ""
	for {
		h.mu.Lock()
		q := h.lines[at]
		if len(q.events) == 0 || ctx.Err() != nil {
			delete(h.lines, at)
			h.mu.Unlock()
			return
		}
		e, missed := q.events[0], q.missed
		q.events, q.missed = q.events[1:], 0
		h.mu.Unlock()
		began := time.Now()
		if missed > 0 {
			f.tellHook(hook, e, began, fmt.Errorf("%d events came while %d waited for it: it is not run for them", missed, hookLine))
		}
		err := f.runHook(ctx, hook, e, nil)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			told = ""
			f.tellHook(hook, e, began, nil)
		case err.Error() != told:
			told = err.Error()
			f.tellHook(hook, e, began, err)
		}
	}
}
