package replication_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// application writes rows to the primary that the topology names, until it is told to stop, and knows which were
// acknowledged.
type application struct {
	stop  func()
	acked []string
	at    map[string]time.Time // when it was
}

func (w *world) application(every time.Duration) *application {
	a := &application{at: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	a.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			if top, _ := w.manager().Topology(); top.Primary != "" {
				bounded, cancel := context.WithTimeout(ctx, time.Second)
				key := fmt.Sprint("row", i)
				if w.db.Write(bounded, w.addr(top.Primary), key, key) == nil {
					a.acked, a.at[key] = append(a.acked, key), time.Now()
				}
				cancel()
			}
			select {
			case <-time.After(every):
			case <-ctx.Done():
			}
		}
	}()
	return a
}

// missing are the acknowledged rows that a member lacks.
func (w *world) missing(a *application, id string) (keys []string) {
	rows := w.rows(id)
	for _, key := range a.acked {
		if _, ok := rows[key]; !ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// guard notes when a member is promoted while another one takes writes and the Manager could have prevented it.
func (w *world) guard(unreachable func(addr string) bool) func(c memdb.Call) {
	return func(c memdb.Call) {
		if c.Op != "Promote" || !c.Done {
			return
		}
		for _, other := range w.db.Writable() {
			if other != c.Addr && !(w.config.Unfenced == replication.UnfencedGoOn && unreachable(other)) {
				w.mu.Lock()
				w.broken = append(w.broken, fmt.Sprintf("%v: %s was promoted while %s takes writes", time.Now(), c.Addr, other))
				w.mu.Unlock()
			}
		}
	}
}

// After any faults the set comes together again, nothing acknowledged is lost under Durability, and no verdict promises too
// much. There are never two writable members that the Manager could have prevented.
func TestChaos(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, chaos)
	})
}

func chaos(t *rapid.T) {
	n := rapid.IntRange(2, 5).Draw(t, "members")
	config := replication.Config{
		Policy:   rapid.SampledFrom([]replication.Policy{replication.Availability, replication.Durability}).Draw(t, "policy"),
		Unfenced: rapid.SampledFrom([]replication.Unfenced{replication.UnfencedWait, replication.UnfencedGoOn}).Draw(t, "unfenced"),
	}
	w := newWorld(t, n, slow, config)
	hung, cut, well := map[string]bool{}, map[string]bool{}, map[string]time.Time{}
	var mu sync.Mutex
	check := w.guard(func(addr string) bool { // now or at the look by which the Manager decided
		mu.Lock()
		defer mu.Unlock()
		return hung[addr] || cut[addr] || time.Since(well[addr]) < 300*time.Millisecond
	})
	ill := func(change func()) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range w.members {
			if hung[m.Addr] || cut[m.Addr] {
				well[m.Addr] = time.Now()
			}
		}
		change()
	}
	var calls, killAt, failEvery atomic.Int64
	w.hook = func(ctx context.Context, c memdb.Call) error {
		check(c)
		i := calls.Add(1)
		if k := killAt.Load(); k != 0 && i >= k {
			killAt.Store(0)
			w.kill()
			return context.Canceled
		}
		if f := failEvery.Load(); f != 0 && c.Op != "Observe" && i%f == 0 {
			return errors.New("reply lost")
		}
		return nil
	}
	for i := range w.members {
		w.members[i].Prefer = rapid.SampledFrom([]int{0, 0, 0, 1, -1}).Draw(t, "prefer")
	}
	if w.config.Relays = rapid.Bool().Draw(t, "relays"); w.config.Relays {
		for i := range w.members {
			w.members[i].Pool = rapid.SampledFrom([]string{"east", "west"}).Draw(t, "pool")
		}
	}
	if rapid.Bool().Draw(t, "provider") {
		var err error
		if rapid.Bool().Draw(t, "provider fails") {
			err = errors.New("quota")
		}
		w.stoppable(time.Duration(rapid.IntRange(0, 5).Draw(t, "stop takes"))*time.Second, err)
	}
	defer func() {
		if t.Failed() {
			fmt.Println(w.story()) // the run is not repeatable in detail, so it is told at once
		}
	}()
	w.start()
	w.whole()
	first, _ := w.manager().Topology()
	w.write(first.Primary, "the first") // without anything in common, an old primary cannot be told from a stranger
	app := w.application(20 * time.Millisecond)
	time.Sleep(500 * time.Millisecond)

	ends := func() []string {
		all := []string{memdb.Manager}
		for _, m := range w.members {
			all = append(all, m.Addr)
		}
		return all
	}
	member := func() string { return w.members[rapid.IntRange(0, n-1).Draw(t, "member")].Addr }
	two := func() (a, b string) {
		i := rapid.IntRange(0, n).Draw(t, "one end")
		j := (i + rapid.IntRange(1, n).Draw(t, "other end")) % (n + 1)
		return ends()[i], ends()[j]
	}
	primary := func() string {
		top, _ := w.manager().Topology()
		return w.addr(top.Primary)
	}
	replaced := 0
	var stopped []func()
	for range rapid.IntRange(1, 12).Draw(t, "faults") {
		fault := rapid.IntRange(0, 13).Draw(t, "fault")
		switch fault {
		case 0, 1:
			a := member()
			w.tell("crash %s", a)
			w.db.Crash(a)
		case 2:
			if p := primary(); p != "" {
				w.tell("crash the primary %s", p)
				w.db.Crash(p)
			}
		case 3:
			a := member()
			if p := primary(); rapid.Bool().Draw(t, "primary") && p != "" {
				a = p
			}
			ill(func() { hung[a] = true })
			if rapid.Bool().Draw(t, "stall") {
				w.tell("stall %s", a)
				w.db.Stall(a)
			} else {
				w.tell("hang %s", a)
				w.db.Hang(a)
			}
		case 4:
			a := member()
			w.tell("resume %s", a)
			ill(func() { delete(hung, a) })
			w.db.Resume(a)
		case 5:
			a, b := two()
			w.tell("cut %s %s", a, b)
			w.db.Cut(a, b)
			ill(func() { cut[a], cut[b] = cut[a] || b == memdb.Manager, cut[b] || a == memdb.Manager })
		case 6:
			a, b := two()
			w.tell("heal %s %s", a, b)
			ill(func() { cut[a], cut[b] = cut[a] && b != memdb.Manager, cut[b] && a != memdb.Manager })
			w.db.Heal(a, b)
		case 7, 8: // a server does not start in no time
			a := member()
			time.Sleep(time.Second)
			w.tell("start %s", a)
			w.db.Start(a)
		case 9:
			k := int64(rapid.IntRange(1, 20).Draw(t, "kill at call"))
			w.tell("kill the Manager at its call %d", k)
			killAt.Store(calls.Load() + k)
		case 10:
			failEvery.Store(int64(rapid.IntRange(0, 3).Draw(t, "calls that fail")))
			w.tell("every call of so many fails: %d", failEvery.Load())
		case 11:
			to := []string{"", "db-1", "db-2", "db-3", "db-4", "db-5"}[rapid.IntRange(0, n).Draw(t, "switchover to")]
			w.tell("switchover to %q", to)
			go func() {
				ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
				defer cancel()
				w.manager().Switchover(ctx, to)
			}()
		case 12: // a machine is lost with its data, and replaced; Durability does not promise to survive that together with others
			i := rapid.IntRange(0, n-1).Draw(t, "replaced")
			if config.Policy == replication.Durability || replaced == n-1 {
				break
			}
			replaced++
			w.tell("replace %s", w.members[i].ID)
			w.db.Remove(w.members[i].Addr)
			time.Sleep(time.Duration(rapid.IntRange(0, 3).Draw(t, "after")) * time.Second)
			w.replace(i, addr(10+replaced))
		}
		if fault == 13 {
			w.tell("the Manager stands still while another one takes over")
			wake := w.standStill()
			time.Sleep(time.Duration(rapid.IntRange(0, 3000).Draw(t, "still")) * time.Millisecond)
			old := w.running.Load()
			w.start()
			stopped = append(stopped, old.stop)
			notices := time.Duration(rapid.IntRange(0, 2000).Draw(t, "notices after")) * time.Millisecond // as the context of a lease that was lost does
			time.AfterFunc(time.Duration(rapid.IntRange(0, 5000).Draw(t, "wakes after"))*time.Millisecond, func() {
				wake()
				time.AfterFunc(notices, old.stop)
			})
		}
		time.Sleep(time.Duration(rapid.SampledFrom([]int{0, 1, 30, 150, 400, 2000, 9000}).Draw(t, "wait")) * time.Millisecond)
	}

	w.tell("the end of all faults")
	killAt.Store(0)
	failEvery.Store(0)
	time.Sleep(3 * time.Second)
	ill(func() { clear(hung); clear(cut) })
	for _, a := range ends() {
		for _, b := range ends() {
			w.db.Heal(a, b)
		}
	}
	for range 10 { // machines may still be about to be stopped
		for _, m := range w.members {
			w.db.Start(m.Addr)
			w.db.Resume(m.Addr)
		}
		time.Sleep(time.Second)
	}
	w.until("the set comes together", 10*time.Minute, whole)
	time.Sleep(time.Second)
	app.stop()
	top := w.settled()
	require.Equal(t, []string{w.addr(top.Primary)}, w.db.Writable())
	require.Empty(t, w.broken)
	missing := w.missing(app, top.Primary)
	if config.Policy == replication.Durability {
		require.Empty(t, missing, "acknowledged rows are missing")
	}
	for _, key := range missing {
		at := app.at[key]
		require.True(t, w.admitted(at), "%s was acknowledged at %v, and no verdict since then says that it may be missing", key, at)
	}
	w.stop()
	for _, stop := range stopped {
		stop()
	}
	w.hook = nil
	synctest.Wait()
}

// admitted reports whether a verdict says that what was acknowledged at that time may be missing.
func (w *world) admitted(at time.Time) bool {
	return slices.ContainsFunc(w.seen(replication.KindVerdict), func(e scalr.Event) bool {
		until, _ := time.Parse(time.RFC3339Nano, e.Attrs["until"]) // zero if there is none
		return e.Attrs["loss"] != string(replication.LossNone) && until.Before(at) && !e.Time.Before(at)
	})
}

// story tells what has happened.
func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, e := range w.events {
		b.WriteString(e.String() + "\n")
	}
	top, _ := w.manager().Topology()
	fmt.Fprintf(&b, "%+v\n%v", top, w.manager().Plan())
	for _, m := range w.members {
		st, err := w.db.Observe(w.ctx, m)
		fmt.Fprintf(&b, "%s %+v %v\n", m.ID, st, err)
	}
	return b.String()
}

// tell puts a fault into the story.
func (w *world) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, scalr.Event{Time: time.Now(), Kind: "FAULT", Message: fmt.Sprintf(format, args...)})
}

// replace gives a member another machine, with an empty server.
func (w *world) replace(i int, to string) {
	w.db.Start(to)
	w.membership.Lock()
	defer w.membership.Unlock()
	w.members[i].Addr, w.members[i].Machine = to, to
	if w.stopper != nil {
		w.members[i].Fence = w.stopper(to)
	}
	w.manager().SetMembers(w.members, len(w.members))
}

// kill ends the Manager at once, as if its process died, and starts another one.
func (w *world) kill() {
	go func() {
		w.stop()
		w.start()
	}()
}
