package replicationtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

type (
	member = replication.Member
	status = replication.Status
	pos    = replication.Position
)

// engine is memdb with some methods broken.
type engine struct {
	*memdb.Cluster
	observe func(ctx context.Context, m member) (status, error)
	compare func(a, b pos) replication.Order
	count   func(a, b pos) (uint64, bool)
	fence   func(ctx context.Context, m member) error
	drain   func(ctx context.Context, m member) (pos, error)
	promote func(ctx context.Context, m member, semisync bool) error
	semi    func(ctx context.Context, m member, on bool) error
	follow  func(ctx context.Context, m, primary member) error
	seed    func(ctx context.Context, m, source member, f func(replication.Progress)) (pos, error)
	imports func(ctx context.Context, m member, origin replication.Engine, source member, scrub func(context.Context, member) error,
		f func(replication.Progress)) (pos, error)
	save    func(ctx context.Context, m, primary member, w io.Writer) (pos, error)
	rewind  func(ctx context.Context, m, source member, at pos, f func(replication.Progress)) error
	backup  func(ctx context.Context, m member, w io.Writer, f func(replication.Progress)) (pos, error)
	restore func(ctx context.Context, m member, r io.Reader, scrub func(context.Context, member) error, f func(replication.Progress)) (pos, error)
	adopt   func(ctx context.Context, m member, scrub func(context.Context, member) error, f func(replication.Progress)) (pos, error)
	record  func(ctx context.Context, m member, text string) error
	close   func(m member) error

	restarted func(addr string)
	session   func(s Session, open func() (Session, error)) Session
	denied    func(e *engine) replication.Engine
}

func (e *engine) Observe(ctx context.Context, m member) (status, error) {
	if e.observe != nil {
		return e.observe(ctx, m)
	}
	return e.Cluster.Observe(ctx, m)
}

func (e *engine) Compare(a, b pos) replication.Order {
	if e.compare != nil {
		return e.compare(a, b)
	}
	return e.Cluster.Compare(a, b)
}

func (e *engine) Count(a, b pos) (uint64, bool) {
	if e.count != nil {
		return e.count(a, b)
	}
	return e.Cluster.Count(a, b)
}

func (e *engine) Fence(ctx context.Context, m member) error {
	if e.fence != nil {
		return e.fence(ctx, m)
	}
	return e.Cluster.Fence(ctx, m)
}

func (e *engine) Save(ctx context.Context, m, primary member, w io.Writer) (pos, error) {
	if e.save != nil {
		return e.save(ctx, m, primary, w)
	}
	return e.Cluster.Save(ctx, m, primary, w)
}

func (e *engine) Rewind(ctx context.Context, m, source member, at pos, f func(replication.Progress)) error {
	if e.rewind != nil {
		return e.rewind(ctx, m, source, at, f)
	}
	return e.Cluster.Rewind(ctx, m, source, at, f)
}

func (e *engine) Drain(ctx context.Context, m member) (pos, error) {
	if e.drain != nil {
		return e.drain(ctx, m)
	}
	return e.Cluster.Drain(ctx, m)
}

func (e *engine) Promote(ctx context.Context, m member, semisync bool) error {
	if e.promote != nil {
		return e.promote(ctx, m, semisync)
	}
	return e.Cluster.Promote(ctx, m, semisync)
}

func (e *engine) SetSemiSync(ctx context.Context, m member, on bool) error {
	if e.semi != nil {
		return e.semi(ctx, m, on)
	}
	return e.Cluster.SetSemiSync(ctx, m, on)
}

func (e *engine) Follow(ctx context.Context, m, primary member) error {
	if e.follow != nil {
		return e.follow(ctx, m, primary)
	}
	return e.Cluster.Follow(ctx, m, primary)
}

func (e *engine) Seed(ctx context.Context, m, source member, f func(replication.Progress)) (pos, error) {
	if e.seed != nil {
		return e.seed(ctx, m, source, f)
	}
	return e.Cluster.Seed(ctx, m, source, f)
}

func (e *engine) Import(ctx context.Context, m member, origin replication.Engine, source member,
	scrub func(context.Context, member) error, f func(replication.Progress)) (pos, error) {
	if e.imports != nil {
		return e.imports(ctx, m, origin, source, scrub, f)
	}
	return e.Cluster.Import(ctx, m, origin, source, scrub, f)
}

func (e *engine) Backup(ctx context.Context, m member, w io.Writer, f func(replication.Progress)) (pos, error) {
	if e.backup != nil {
		return e.backup(ctx, m, w, f)
	}
	return e.Cluster.Backup(ctx, m, w, f)
}

func (e *engine) Restore(ctx context.Context, m member, r io.Reader, scrub func(context.Context, member) error,
	f func(replication.Progress)) (pos, error) {
	if e.restore != nil {
		return e.restore(ctx, m, r, scrub, f)
	}
	return e.Cluster.Restore(ctx, m, r, scrub, f)
}

func (e *engine) Adopt(ctx context.Context, m member, scrub func(context.Context, member) error, f func(replication.Progress)) (pos, error) {
	if e.adopt != nil {
		return e.adopt(ctx, m, scrub, f)
	}
	return e.Cluster.Adopt(ctx, m, scrub, f)
}

func (e *engine) Record(ctx context.Context, m member, text string) error {
	if e.record != nil {
		return e.record(ctx, m, text)
	}
	return e.Cluster.Record(ctx, m, text)
}

func (e *engine) Close(m member) error {
	if e.close != nil {
		return e.close(m)
	}
	return e.Cluster.Close(m)
}

type session struct{ *memdb.Session }

func (session) Close() error { return nil }

// reconnecting is a session that does not stay lost.
type reconnecting struct {
	Session
	open func() (Session, error)
}

func (r *reconnecting) Write(ctx context.Context, key, value string) error {
	err := r.Session.Write(ctx, key, value)
	if errors.Is(err, memdb.ErrLost) {
		if r.Session, err = r.open(); err == nil {
			err = r.Session.Write(ctx, key, value)
		}
	}
	return err
}

func (e *engine) fixture() Fixture {
	n := 0
	start := func(how func(addr string)) Server {
		n++
		addr := fmt.Sprintf("db-%d:3306", n)
		how(addr)
		return Server{
			Member: member{ID: fmt.Sprintf("db-%d", n), Addr: addr},
			Kill:   func() { e.Crash(addr) },
			Restart: func() {
				e.Start(addr)
				if e.restarted != nil {
					e.restarted(addr)
				}
			},
			Hang:   func() { e.Hang(addr) },
			Resume: func() { e.Resume(addr) },
		}
	}
	f := Fixture{
		Engine: e,
		Start:  func() Server { return start(e.Start) },
		Copy: func(keys ...string) (Server, pos) {
			ctx, other := context.Background(), memdb.New(memdb.Options{})
			from := member{ID: "elsewhere", Addr: "elsewhere:3306"}
			other.Start(from.Addr)
			if err := other.Promote(ctx, from, false); err != nil {
				panic(err)
			}
			for _, key := range keys {
				if err := other.Write(ctx, from.Addr, key, key); err != nil {
					panic(err)
				}
			}
			st, _ := other.Observe(ctx, from)
			return start(func(addr string) { e.StartCopy(addr, other, from.Addr) }), st.Applied
		},
		Open: func(ctx context.Context, m member) (Session, error) {
			open := func() (Session, error) {
				s, err := e.Open(ctx, m.Addr)
				return session{s}, err
			}
			s, err := open()
			if e.session != nil {
				s = e.session(s, open)
			}
			return s, err
		},
	}
	f.Scrub = func(_ context.Context, m member) error {
		e.Inject(m.Addr, "secret", "scrubbed")
		return nil
	}
	if e.denied != nil {
		f.Denied = e.denied(e)
	}
	return f
}

// refusing is an engine that fails with an error.
type refusing struct {
	replication.Engine
	err error
	do  bool // and does what it was asked nevertheless
}

func (r refusing) Observe(ctx context.Context, m member) (status, error) { return status{}, r.err }
func (r refusing) Fence(ctx context.Context, m member) error             { return r.err }
func (r refusing) Drain(ctx context.Context, m member) (pos, error)      { return "", r.err }
func (r refusing) SetSemiSync(context.Context, member, bool) error       { return r.err }
func (r refusing) Follow(ctx context.Context, m, primary member) error   { return r.err }
func (r refusing) Promote(ctx context.Context, m member, s bool) error {
	if r.do {
		r.Engine.Promote(ctx, m, s)
	}
	return r.err
}
func (r refusing) Seed(context.Context, member, member, func(replication.Progress)) (pos, error) {
	return "", r.err
}

// Each broken engine is caught by the rule that it breaks, and a correct one is not.
func TestSuiteCatches(t *testing.T) {
	tried := map[string]bool{}
	for _, b := range slices.Concat(brokenServers, brokenReplicas, brokenRecoveries, brokenCopies, brokenRecords, brokenBackups, brokenAdopters) {
		t.Run(b.rule+"/"+strings.ReplaceAll(b.what, " ", "_"), func(t *testing.T) {
			for _, r := range rules {
				if r.name == b.rule {
					tried[r.name] = true
					require.NotEmpty(t, try(t, r, b.how), "the rule %s did not catch it", r.name)
					require.Empty(t, try(t, r, correct), "the rule %s fails a correct engine", r.name)
					return
				}
			}
			t.Fatalf("there is no rule %s", b.rule)
		})
	}
	for _, r := range rules {
		require.True(t, tried[r.name], "no broken engine is there for the rule %s", r.name)
	}
}

func correct(e *engine) {
	e.denied = func(e *engine) replication.Engine { return refusing{e, replication.ErrAccess, false} }
}

// try runs one rule in virtual time and returns how it failed.
func try(t *testing.T, r rule, how func(*engine)) (message string) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.run(rec, func(testing.TB) Fixture {
				e := &engine{Cluster: memdb.New(memdb.Options{
					Latency: 100 * time.Microsecond, Delay: time.Millisecond, Apply: 5 * time.Millisecond,
					Copy: 20 * time.Millisecond, RelayLogsLost: true,
				})}
				how(e)
				return e.fixture()
			})
		}()
		<-done
		if message = rec.message; message != "" {
			require.Contains(t, message, "broken rule: "+r.words)
		}
	})
	return message
}

// recorder is a testing.TB whose failure is noted and does not fail the test.
type recorder struct {
	testing.TB
	message string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
