package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/pool"
)

// ack is a row that was acknowledged.
type ack struct {
	row        int
	server     string // of a row that was written directly
	began, end time.Time
}

// traffic is the application's writers during one run.
type traffic struct {
	f         *fixture
	mu        sync.Mutex
	acks      []ack // through the pool
	direct    []ack
	errs      []error
	ambiguous int
	users     sync.WaitGroup
	end       context.CancelFunc
	pause     sync.RWMutex // held by whoever wants nobody to write
}

// start begins to write: through the pool, and to each server directly.
func (f *fixture) start(ctx context.Context) *traffic {
	ctx, end := context.WithCancel(ctx)
	t := &traffic{f: f, end: end}
	for range f.o.writers {
		t.users.Go(func() {
			for ctx.Err() == nil {
				t.pause.RLock()
				row, began := f.row(), time.Now()
				_, err := f.pool.Writer.ExecContext(ctx, fmt.Sprintf("INSERT INTO app.t VALUES (%d, 'through the pool')", row))
				t.pause.RUnlock()
				t.note(ctx, ack{row, "", began, time.Now()}, err, true)
			}
		})
	}
	for name := range f.direct {
		db := f.open(f.node(name).Addr, appUser, appPassword)
		t.users.Go(func() {
			defer db.Close()
			for ctx.Err() == nil {
				t.pause.RLock()
				row, began := f.row(), time.Now()
				_, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO app.t VALUES (%d, 'directly')", row))
				t.pause.RUnlock()
				t.note(ctx, ack{row, name, began, time.Now()}, err, false)
				time.Sleep(time.Millisecond)
			}
		})
	}
	return t
}

func (f *fixture) row() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	return f.next
}

func (t *traffic) note(ctx context.Context, a ack, err error, pooled bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil && pooled:
		t.acks = append(t.acks, a)
	case err == nil:
		t.direct = append(t.direct, a)
	case !pooled || ctx.Err() != nil:
	case errors.Is(err, pool.ErrAmbiguous):
		t.ambiguous++
	default:
		t.errs = append(t.errs, err)
	}
}

func (t *traffic) stop() {
	t.end()
	t.users.Wait()
}

func (t *traffic) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.acks)
}

// twoWritable counts the rows that a server acknowledged, from their beginning on, after another server had acknowledged
// one in its place. Servers take turns: of each only the latest reign counts.
func (t *traffic) twoWritable(old string) (n int) {
	var first time.Time // of a row of the successor
	for _, a := range t.direct {
		if a.server != old && (first.IsZero() || a.end.Before(first)) {
			first = a.end
		}
	}
	for _, a := range t.direct {
		if a.server == old && !first.IsZero() && a.began.After(first) {
			n++
		}
	}
	return n
}

// lost counts the acknowledged rows that the primary lacks.
func (f *fixture) lost(ctx context.Context, t *traffic) (acked, lost int, err error) {
	have := map[int]bool{}
	rows, err := f.direct[f.primary()].QueryContext(ctx, "SELECT i FROM app.t")
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var i int
		if err := rows.Scan(&i); err != nil {
			return 0, 0, err
		}
		have[i] = true
	}
	all := slices.Concat(t.acks, t.direct)
	for _, a := range all {
		if !have[a.row] {
			lost++
		}
	}
	return len(all), lost, rows.Err()
}

// run is one run.
func (f *fixture) run(ctx context.Context, i int) (result, error) {
	mode := f.o.mode
	if mode == "mixed" {
		mode = []string{"kill", "hang", "partition", "lag"}[rand.IntN(4)]
	}
	r := result{Run: i + 1, Mode: mode}
	if mode == "reads" {
		return r, f.readOwnWrite(ctx, i, &r)
	}
	if err := f.whole(ctx); err != nil {
		return r, err
	}
	before, _ := f.manager.Topology()
	f.mu.Lock()
	f.events = nil
	f.mu.Unlock()
	t := f.start(ctx)
	defer t.stop()
	if err := until(ctx, "writers write", func() bool { return t.count() > 100 }); err != nil {
		return r, err
	}
	var err error
	switch mode {
	case "switchover":
		err = f.switchover(ctx, t, &r)
	case "manager":
		err = f.loseManager(ctx, t, &r)
	default:
		err = f.loseP(ctx, t, mode, before.Primary, &r)
	}
	if err != nil {
		return r, err
	}
	after, _ := f.manager.Topology()
	r.Failovers = int(after.Epoch - before.Epoch)
	if mode != "switchover" && mode != "manager" {
		v := after.Verdict
		if v == nil || before.Verdict != nil && v.Epoch == before.Verdict.Epoch {
			r.NoVerdict = 1
		} else {
			r.Verdict = v.String()
			if v.Loss != replication.LossAtLeast && uint64(r.Lost) > v.Lost {
				r.BadVerdict = 1
			}
		}
	}
	if err := f.equal(ctx); err != nil {
		return r, err
	}
	_, err = f.pool.Writer.ExecContext(ctx, "TRUNCATE TABLE app.t")
	return r, err
}

// finish ends the traffic and counts.
func (f *fixture) finish(ctx context.Context, t *traffic, old string, r *result) (err error) {
	t.stop()
	for _, e := range t.errs {
		f.b.Logf("run %d: %v", r.Run, e)
	}
	r.Errors, r.Ambiguous, r.TwoWrite = len(t.errs), t.ambiguous, t.twoWritable(old)
	r.Acked, r.Lost, err = f.lost(ctx, t)
	return err
}

// loseP lets the primary meet a fault, and come back.
func (f *fixture) loseP(ctx context.Context, t *traffic, mode, old string, r *result) error {
	n := f.node(old)
	release := func() {}
	if mode == "lag" {
		var err error
		if release, err = f.holdUp(ctx, old); err != nil {
			return err
		}
		// All that is acknowledged has been received when the primary dies: it is what was not applied that may be lost here.
		t.pause.Lock()
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
		resume := release
		release = sync.OnceFunc(func() { t.pause.Unlock(); resume() })
		defer release()
	}
	at := time.Now()
	var err error
	switch mode {
	case "kill", "lag":
		err = n.Kill(ctx)
	case "hang":
		err = n.Hang(ctx)
	case "partition":
		err = errors.Join(cut(managerIP, n.Host), cut(serversIP, n.Host), cut(n.Host, serversIP), cut(n.Host, managerIP))
	}
	release()
	if err != nil {
		return err
	}
	var first time.Time
	if err := until(ctx, "the new primary acknowledges", func() bool {
		if p := f.primary(); p == "" || p == old {
			return false
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		epoch := f.promoted(old)
		for _, a := range t.acks {
			if a.began.After(at) && !epoch.IsZero() && a.end.After(epoch) {
				first = a.end
				return true
			}
		}
		return false
	}); err != nil {
		return err
	}
	r.Ms = float64(first.Sub(at).Microseconds()) / 1000
	r.Marks = f.marks(at)
	select { // the old primary gets the time to do damage
	case <-time.After(300 * time.Millisecond):
	case <-ctx.Done():
	}
	switch mode {
	case "hang":
		err = n.Resume(ctx)
	case "partition":
		err = errors.Join(heal(managerIP, n.Host), heal(serversIP, n.Host), heal(n.Host, serversIP), heal(n.Host, managerIP))
	}
	if err != nil && !strings.Contains(err.Error(), "no process") {
		return err
	}
	if err := n.Start(ctx); err != nil {
		return err
	}
	up := time.Now()
	if err := f.hasAll(ctx, old); err != nil {
		return err
	}
	r.Rejoin = float64(time.Since(up).Microseconds()) / 1000
	if err := f.whole(ctx); err != nil {
		return err
	}
	return f.finish(ctx, t, old, r)
}

// promoted says when another primary than old was published.
func (f *fixture) promoted(old string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.Kind == replication.KindPrimary && e.Subject != "" && e.Subject != old {
			return e.Time
		}
	}
	return time.Time{}
}

// marks say when the steps of a recovery began, in ms after the fault.
func (f *fixture) marks(at time.Time) map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	marks := map[string]int{}
	for _, e := range f.events {
		if e.Time.Before(at) {
			continue
		}
		what := string(e.Kind)
		if e.Kind == replication.KindStep {
			what, _, _ = strings.Cut(e.Message, ":")
		}
		if _, ok := marks[what]; !ok && (e.Kind == replication.KindStep || e.Kind == replication.KindPrimary) {
			marks[what] = int(e.Time.Sub(at).Milliseconds())
		}
	}
	return marks
}

// holdUp keeps the replicas from applying what they receive, until they have something to apply.
func (f *fixture) holdUp(ctx context.Context, primary string) (release func(), err error) {
	var held []*sql.Conn
	release = func() {
		for _, c := range held {
			_, _ = c.ExecContext(ctx, "UNLOCK TABLES")
			c.Close()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.direct)) {
		if name == primary {
			continue
		}
		c, err := f.direct[name].Conn(ctx)
		if err != nil {
			return release, err
		}
		held = append(held, c)
		if _, err := c.ExecContext(ctx, "LOCK TABLES app.t READ"); err != nil {
			return release, err
		}
	}
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
	}
	return release, nil
}

// switchover changes the primary as planned. The longest time without an acknowledgement is its cost.
func (f *fixture) switchover(ctx context.Context, t *traffic, r *result) error {
	old := f.primary()
	at := time.Now()
	if err := f.manager.Switchover(ctx, ""); err != nil {
		return err
	}
	r.Marks = f.marks(at)
	n := t.count()
	if err := until(ctx, "writers write", func() bool { return t.count() > n+50 }); err != nil {
		return err
	}
	if err := f.finish(ctx, t, old, r); err != nil {
		return err
	}
	r.Ms = longest(t.acks, at)
	return nil
}

// longest is the longest time between two acknowledgements, from a moment on, in ms.
func longest(acks []ack, at time.Time) (ms float64) {
	last := at
	slices.SortFunc(acks, func(a, b ack) int { return a.end.Compare(b.end) })
	for _, a := range acks {
		if a.end.After(at) {
			ms = max(ms, float64(a.end.Sub(last).Microseconds())/1000)
			last = a.end
		}
	}
	return ms
}

// loseManager cuts the Manager off from the primary for some seconds.
func (f *fixture) loseManager(ctx context.Context, t *traffic, r *result) error {
	old := f.primary()
	n := f.node(old)
	at := time.Now()
	if err := errors.Join(cut(managerIP, n.Host), cut(n.Host, managerIP)); err != nil {
		return err
	}
	select {
	case <-time.After(4 * time.Second):
	case <-ctx.Done():
	}
	if err := errors.Join(heal(managerIP, n.Host), heal(n.Host, managerIP)); err != nil {
		return err
	}
	if err := f.whole(ctx); err != nil {
		return err
	}
	if p := f.primary(); p != old {
		return fmt.Errorf("the Manager could not see %s and made %s the primary", old, p)
	}
	if err := f.finish(ctx, t, old, r); err != nil {
		return err
	}
	r.Ms = longest(t.acks, at)
	return nil
}

// readOwnWrite writes and reads in one session.
func (f *fixture) readOwnWrite(ctx context.Context, i int, r *result) error {
	ctx = pool.WithSession(ctx, pool.NewSession(""))
	began := time.Now()
	if _, err := f.pool.Writer.ExecContext(ctx, "REPLACE INTO app.t VALUES (1, ?)", i); err != nil {
		return err
	}
	r.Acked = 1
	var v string
	if err := f.pool.Reader.QueryRowContext(ctx, "SELECT v FROM app.t WHERE i = 1").Scan(&v); err != nil {
		return err
	}
	if v != fmt.Sprint(i) {
		r.Stale = 1
	}
	r.Ms = float64(time.Since(began).Microseconds()) / 1000
	return nil
}
