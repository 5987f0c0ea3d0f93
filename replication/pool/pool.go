package pool

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// Errors that callers branch on.
var (
	// ErrRejected: the server of a transaction is no longer the primary, or was lost before the transaction was committed.
	// The transaction has had no effect and may be run again.
	ErrRejected = errors.New("the transaction has had no effect")
	// ErrAmbiguous: the server was lost while the statement was under way. It may have taken effect or not.
	ErrAmbiguous = errors.New("the server was lost while the statement was under way: it may have taken effect or not")
	// ErrStale: no replica is as fresh as the read must be, and the primary does not take more such reads now.
	ErrStale = errors.New("no server may serve the read")
)

// Driver is what the pool must know of a database software. The values that it gets as connections are those that its
// Connect returned. Implementations are safe for concurrent use.
type Driver interface {
	// Connect connects to one server, by host:port. The transactions of a readOnly session are read-only. An error that
	// is replication.ErrAccess is not tried again.
	Connect(ctx context.Context, addr string, readOnly bool) (driver.Conn, error)
	// Writable asks whether the server takes writes.
	Writable(ctx context.Context, c driver.Conn) (bool, error)
	// Begin begins a transaction. If it is to write and the server takes no writes, that is an error that is Rejected.
	Begin(ctx context.Context, c driver.Conn, o driver.TxOptions) error
	Commit(ctx context.Context, c driver.Conn) error
	Rollback(ctx context.Context, c driver.Conn) error
	// Position asks how far the server is: the primary has whatever has been acknowledged, a replica what a reader sees.
	Position(ctx context.Context, c driver.Conn, primary bool) (replication.Position, error)
	// Await waits up to d for a replica to show its readers everything up to p, and reports whether it does.
	Await(ctx context.Context, c driver.Conn, p replication.Position, d time.Duration) (bool, error)
	// Contains reports whether a has all of b. It is pure.
	Contains(a, b replication.Position) bool
	// Rejected reports whether the error says that the statement was refused, without any effect, because the server takes
	// no writes. It is pure.
	Rejected(err error) bool
	// Lost reports whether the error says that the connection broke while a statement was under way. It is pure.
	Lost(err error) bool
}

// Follower says who is primary now. [replication.Manager] is one.
type Follower interface {
	// Topology says what is so now, and gives a channel that is closed at the next change.
	Topology() (replication.Topology, <-chan struct{})
}

// Config says which servers a [DB] is for. One of Addrs and Manager is needed, and Driver.
type Config struct {
	// Driver speaks to the servers. Required.
	Driver Driver
	// Addrs are the servers, as host:port. A host name stands for all of its addresses, and is looked up again whenever
	// the primary is looked for, so one name may be enough; while its name server does not answer, it stands for what it last did.
	// The servers themselves are asked who takes writes.
	//
	// All must be of one set: a server of another one that lets the application in is not sure to be told apart (of MariaDB's it is
	// not), neither from a replica nor, while there is no other, from the primary.
	Addrs []string
	// Manager knows the servers where it runs in the same program; it is quicker to tell than the servers.
	Manager Follower
	// LookupHost looks up names, within half of Timeout. Nil takes net.DefaultResolver's.
	LookupHost func(ctx context.Context, host string) ([]string, error)

	// Wait is how long a call waits for a primary, where its context does not end sooner. The default is 15 s.
	Wait time.Duration
	// Timeout bounds a connection attempt and a question to a server. The default is 1 s.
	Timeout time.Duration
	// Interval is how old the servers' own word on who they are may be. It does not matter with a Manager. The default is
	// 1 s.
	Interval time.Duration
	// MaxLag is how far behind a replica may be and still serve reads, while there is a primary to compare it with; while there is
	// none, whoever has data serves. The default is 10 s.
	MaxLag time.Duration
	// Catch is how long a read of a Session waits for a replica to catch up before it goes to the primary. The default is
	// 50 ms.
	Catch time.Duration
	// Spill is how many reads at a time go to the primary because no replica may serve them. The default is 16. A set
	// without any replica has no such limit.
	Spill int
}

// DB is the two pools. Set their limits as those of any other; Close closes them both.
type DB struct {
	Writer, Reader *sql.DB

	config  Config
	spill   *sql.DB // reads on the primary
	control *sql.DB // questions to the primary
	view    viewer
	samples samples
	next    atomic.Uint64 // round robin
}

// Open makes the two pools. It reports every fault of the config at once, by field, and connects to nobody.
func Open(config Config) (*DB, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	db := &DB{config: config}
	if config.Manager != nil {
		db.view = &managed{follower: config.Manager}
	} else {
		db.view = &asked{config: config, probes: map[string]driver.Conn{}, found: map[string][]string{}}
	}
	db.Writer = sql.OpenDB(&connector{db, writer})
	db.Reader = sql.OpenDB(&connector{db, reader})
	db.spill = sql.OpenDB(&connector{db, spilled})
	db.spill.SetMaxOpenConns(config.Spill)
	db.control = sql.OpenDB(&connector{db, spilled})
	db.control.SetMaxOpenConns(4)
	db.control.SetMaxIdleConns(1)
	return db, nil
}

// Close closes both pools.
func (db *DB) Close() error {
	return errors.Join(db.Reader.Close(), db.spill.Close(), db.control.Close(), db.Writer.Close(), db.view.close())
}

func (c *Config) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("Config."+format, args...)) }
	if c.Driver == nil {
		fault("Driver is nil, want one such as mysql.Client")
	}
	if (len(c.Addrs) == 0) == (c.Manager == nil) {
		fault("Addrs has %d addresses and Manager is set: %t; want one of the two", len(c.Addrs), c.Manager != nil)
	}
	for i, addr := range c.Addrs {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			fault("Addrs[%d] is %q, want host:port", i, addr)
		}
	}
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"Wait", &c.Wait, 15 * time.Second},
		{"Timeout", &c.Timeout, time.Second},
		{"Interval", &c.Interval, time.Second},
		{"MaxLag", &c.MaxLag, 10 * time.Second},
		{"Catch", &c.Catch, 50 * time.Millisecond},
	} {
		switch {
		case *d.value == 0:
			*d.value = d.standard
		case *d.value < time.Millisecond:
			fault("%s is %v, want at least 1ms, or 0 for %v", d.name, *d.value, d.standard)
		}
	}
	switch {
	case c.Spill == 0:
		c.Spill = 16
	case c.Spill < 0:
		fault("Spill is %d, want at least 1, or 0 for 16", c.Spill)
	}
	if c.LookupHost == nil {
		c.LookupHost = net.DefaultResolver.LookupHost
	}
	return errors.Join(faults...)
}

// Tx runs do in a transaction of Writer and commits it. If a statement or the commit is rejected because the primary has
// changed, all of it has had no effect and is run again, until the context ends or Config.Wait has passed. An error of do
// rolls back and is returned; ErrAmbiguous is returned as it is.
func (db *DB) Tx(ctx context.Context, o *sql.TxOptions, do func(*sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, db.config.Wait)
	defer cancel()
	for {
		err := db.tx(ctx, o, do)
		if err == nil || !errors.Is(err, ErrRejected) || ctx.Err() != nil {
			return err
		}
	}
}

func (db *DB) tx(ctx context.Context, o *sql.TxOptions, do func(*sql.Tx) error) error {
	tx, err := db.Writer.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}
