// Package replicationtest holds an implementation of [replication.Engine] to its rules.
//
//	func TestEngine(t *testing.T) {
//		replicationtest.Run(t, func(t testing.TB) replicationtest.Fixture {
//			return replicationtest.Fixture{Engine: …, Start: …, Open: …}
//		})
//	}
//
// The rules are tried on real servers as the factory starts them; each rule gets servers of its own. A failure names the
// rule that is broken, in words. Nothing passes or fails by timing: what takes time is waited for, up to Fixture.Within.
package replicationtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// Fixture is an engine, and servers for it to work on.
type Fixture struct {
	// Engine is what is tried.
	Engine replication.Engine
	// Start starts one more server and returns when it answers. It is empty and takes no writes. The factory ends it with
	// t.Cleanup.
	Start func() Server
	// Open connects an application to the server: one connection, which stays lost when it is lost.
	Open func(ctx context.Context, m replication.Member) (Session, error)
	// Denied is an engine like Engine whose credentials the servers do not accept. Nil leaves its rule out.
	Denied replication.Engine
	// Scrub changes a copy as an Origin.Scrub does, as an administrator: the row "secret" gets the value "scrubbed", and
	// Open works on the server from then on. Required for an Importer, an Adopter or a Backuper.
	Scrub func(ctx context.Context, m replication.Member) error
	// Copy starts one more server, like Start, on a copy of the disk of a server in another set, which had written the rows, each with its
	// key as its value, and returns the position that they are of. Required for an Adopter, unless its Adopts fails.
	Copy func(keys ...string) (Server, replication.Position)
	// AckedUnknown leaves out that a replica says so when it has acknowledged: its software does not tell, and Status.Acked is
	// always false. A Manager that has not seen the lost primary itself then proves less.
	AckedUnknown bool
	// Within bounds every wait for something that must happen. The default is 20 s.
	Within time.Duration
}

// Server is one server of a fixture, with the means to hurt it.
type Server struct {
	replication.Member
	// Kill ends the server's process at once, as kill -9 does. Its data stays, and its address refuses connections.
	Kill func()
	// Restart starts it again after Kill and returns when it answers.
	Restart func()
	// Hang makes it stop without ending, as kill -STOP does; Resume lets it go on.
	Hang, Resume func()
}

// Session is an application's connection. A key that is written again gets the new value.
type Session interface {
	// Write returns nil when the server has acknowledged the row.
	Write(ctx context.Context, key, value string) error
	Read(ctx context.Context, key string) (value string, found bool, err error)
	Close() error
}

// Run tries every rule as a subtest.
func Run(t *testing.T, factory func(t testing.TB) Fixture) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { r.run(t, factory) })
	}
}

// rule is one thing that every engine must do.
type rule struct {
	name  string
	words string
	check func(h *harness)
}

func (r rule) run(t testing.TB, factory func(t testing.TB) Fixture) {
	h := &harness{TB: t, Fixture: factory(t), words: r.words}
	if h.Within == 0 {
		h.Within = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*h.Within)
	defer cancel()
	h.ctx = ctx
	r.check(h)
}

// harness is what a rule's check works with.
type harness struct {
	testing.TB
	Fixture
	ctx   context.Context
	words string
}

// broken ends the check: the rule is broken.
func (h *harness) broken(format string, args ...any) {
	h.Helper()
	h.Fatalf("broken rule: "+h.words+"\n"+format, args...)
}

// want breaks the rule unless ok.
func (h *harness) want(ok bool, format string, args ...any) {
	h.Helper()
	if !ok {
		h.broken(format, args...)
	}
}

// ok breaks the rule if err is not nil.
func (h *harness) ok(err error, what string) {
	h.Helper()
	h.want(err == nil, "%s failed: %v", what, err)
}

// until waits for a condition; last tells what was seen instead.
func (h *harness) until(what string, cond func() (done bool, last string)) {
	h.Helper()
	for deadline := time.Now().Add(h.Within); ; time.Sleep(5 * time.Millisecond) {
		done, last := cond()
		if done {
			return
		}
		if time.Now().After(deadline) {
			h.broken("waited in vain until %s: %s", what, last)
		}
	}
}

// short is the time that a call gets which must run into its deadline.
func (h *harness) short() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.ctx, 300*time.Millisecond)
}

func (h *harness) observe(s Server) replication.Status {
	h.Helper()
	st, err := h.Engine.Observe(h.ctx, s.Member)
	h.ok(err, "Observe of "+s.ID)
	return st
}

func (h *harness) promote(s Server, semisync bool) {
	h.Helper()
	h.ok(h.Engine.Promote(h.ctx, s.Member, semisync), "Promote of "+s.ID)
}

// follow makes s a replica of the primary and waits until it has all that the primary has.
func (h *harness) follow(s, primary Server) {
	h.Helper()
	h.ok(h.Engine.Follow(h.ctx, s.Member, primary.Member), "Follow of "+s.ID)
	h.caughtUp(s, primary)
}

func (h *harness) caughtUp(s, primary Server) {
	h.Helper()
	h.until(s.ID+" has all that "+primary.ID+" has", func() (bool, string) {
		p, st := h.observe(primary), h.observe(s)
		done := st.Source == primary.Addr && st.Receives && st.Applies &&
			h.Engine.Compare(st.Applied, p.Applied) == replication.Equal
		return done, fmt.Sprintf("it says %+v, its primary %+v", st, p)
	})
}

// open connects an application. The connection is closed at the end of the test.
func (h *harness) open(s Server) Session {
	h.Helper()
	session, err := h.Open(h.ctx, s.Member)
	h.ok(err, "connecting an application to "+s.ID)
	h.Cleanup(func() { session.Close() })
	return session
}

// try writes a row over a new connection.
func (h *harness) try(ctx context.Context, s Server, key string) error {
	session, err := h.Open(ctx, s.Member)
	if err != nil {
		return err
	}
	defer session.Close()
	return session.Write(ctx, key, key)
}

// write writes a row that must be acknowledged, over a new connection.
func (h *harness) write(s Server, keys ...string) {
	h.Helper()
	for _, key := range keys {
		h.ok(h.try(h.ctx, s, key), fmt.Sprintf("writing %s to %s", key, s.ID))
	}
}

// refuses breaks the rule if the server takes a write over a new connection.
func (h *harness) refuses(s Server, key string) {
	h.Helper()
	h.want(h.try(h.ctx, s, key) != nil, "%s took a write", s.ID)
	h.lacks(s, key)
}

func (h *harness) read(s Server, key string) bool {
	h.Helper()
	session, err := h.Open(h.ctx, s.Member)
	h.ok(err, "connecting an application to "+s.ID)
	defer session.Close()
	_, found, err := session.Read(h.ctx, key)
	h.ok(err, "reading from "+s.ID)
	return found
}

func (h *harness) has(s Server, keys ...string) {
	h.Helper()
	for _, key := range keys {
		h.want(h.read(s, key), "%s lacks the row %s", s.ID, key)
	}
}

func (h *harness) lacks(s Server, keys ...string) {
	h.Helper()
	for _, key := range keys {
		h.want(!h.read(s, key), "%s has the row %s", s.ID, key)
	}
}

// gets waits until the server has the rows.
func (h *harness) gets(s Server, keys ...string) {
	h.Helper()
	for _, key := range keys {
		h.until(s.ID+" gets the row "+key, func() (bool, string) { return h.read(s, key), fmt.Sprintf("%+v", h.observe(s)) })
	}
}

// pair is a primary and a replica that has caught up.
func (h *harness) pair() (primary, replica Server) {
	h.Helper()
	primary, replica = h.Start(), h.Start()
	h.promote(primary, false)
	h.follow(replica, primary)
	return primary, replica
}
