package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/scalr-go/scalr/replication"
)

// Config says how an [Engine] reaches the servers. It prints without its passwords.
type Config struct {
	// User is the account that the engine uses on every member: ALL PRIVILEGES ON *.* WITH GRANT OPTION, see
	// [BootstrapSQL]. Nothing else may use it, since Fence spares its sessions. Required.
	User     string
	Password string `json:"-"` // required

	// ReplicationUser is the account that replicas use on their primary. Where a member lacks it the engine creates it,
	// with REPLICATION SLAVE, and on MySQL BACKUP_ADMIN. It must differ from User. Required.
	ReplicationUser     string
	ReplicationPassword string `json:"-"` // at most 96 bytes. Required

	// Set is a name that no other set has, such as "dev/db", for a set whose servers may start on a volume that was filled from a
	// snapshot of another set's: at most 64 ASCII letters, digits, -, ., _ and /. Members made by [BootstrapSQL] or [CloudInit] keep it with their data. A
	// server that starts on data without it is locked before it takes its first connection: its accounts stay, with their
	// privileges, but nobody can log in by them (root and mysql can on the machine itself, as the system users of these names);
	// the set's own two are made anew, with its passwords; it follows nobody any more, no event runs, and CREATE SERVER's
	// connections are forgotten. It has no data, as far as the set is concerned, until [Engine.Adopt] makes it the set's, or a
	// seed or an import replaces it. If it cannot be locked, the server ends.
	//
	// A set is given a name when it is made, and keeps it: at their next start, members that have run without it are locked, and
	// seeded anew. One whose data bears no such name, since its init_file is another one, is not used: Observe says so. Optional; only
	// with MariaDB.
	Set string

	// TLS encrypts the engine's own connections, and tells replicas (MASTER_SSL=1 or SOURCE_SSL=1) and mariadb-binlog to encrypt
	// theirs (without a check of the server's certificate, since what to check it against lies on the members' disks). Nil leaves both to the servers'
	// defaults, which is plain text up to MariaDB 11.3.
	TLS *tls.Config `json:"-"`
	// DialContext makes the engine's connections. Nil takes net.Dialer's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error) `json:"-"`
	// Timeout bounds every statement that should be short, where the caller's context does not end sooner. A server that
	// takes longer is hung. The default is 5 s.
	Timeout time.Duration
	// Stall is how long a commit, an application's or a probe's, may wait for the disk before its primary is stalled, while nothing else is
	// written to the binary log. It must be longer than what one transaction, however large, may take to be synced, and than a file
	// system is frozen for a snapshot. A full disk is reported as soon as a commit waits for it. The default is 10 s. Of MySQL it is not known. See "Stalled storage" of the package.
	Stall time.Duration
	// Machines lets Seed and Backup copy a MariaDB's files by mariadb-backup, and Restore restore them: see [Engine.Seed] and
	// [Engine.Backup]. Without, they copy rows over SQL.
	Machines Machines `json:"-"`
}

// Engine speaks to MariaDB and MySQL. It holds a few connections to each member, by address, until Close is called for the member.
type Engine struct {
	config Config

	mu      sync.Mutex
	servers map[string]*server // by address
}

var (
	_ replication.Engine   = (*Engine)(nil)
	_ replication.Importer = (*Engine)(nil)
	_ replication.Adopter  = (*Engine)(nil)
	_ replication.Rewinder = (*Engine)(nil)
	_ replication.Guard    = (*Engine)(nil)
	_ replication.Recorder = (*Engine)(nil)
	_ replication.Backuper = (*Engine)(nil)
)

// New makes an Engine. It reports every fault of the config at once, by field, and makes no calls.
func New(config Config) (*Engine, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	if config.Timeout == 0 {
		config.Timeout = 5 * time.Second
	}
	if config.Stall == 0 {
		config.Stall = 10 * time.Second
	}
	if config.TLS != nil {
		config.TLS = config.TLS.Clone()
	}
	return &Engine{config: config, servers: map[string]*server{}}, nil
}

var setRule = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,64}$`)

func (c Config) check() error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, fmt.Errorf("Config.%s "+format, append([]any{field}, args...)...))
	}
	text := func(field, value string, limit int) {
		switch {
		case value == "":
			fault(field, "is empty, want 1 to %d bytes", limit)
		case !utf8.ValidString(value):
			fault(field, "is not valid UTF-8")
		case len(value) > limit:
			fault(field, "has %d bytes, want at most %d", len(value), limit)
		}
		for _, r := range value {
			// A replica keeps its source's credentials as lines of a file.
			if unicode.IsControl(r) {
				fault(field, "has a control character, want none")
				break
			}
		}
	}
	text("User", c.User, 128)
	text("Password", c.Password, 1024)
	text("ReplicationUser", c.ReplicationUser, 128)
	text("ReplicationPassword", c.ReplicationPassword, 96)
	if c.Set != "" && !setRule.MatchString(c.Set) {
		fault("Set", "is %q, want at most 64 ASCII letters, digits, -, ., _ and /", c.Set)
	}
	if c.User != "" && c.User == c.ReplicationUser {
		fault("ReplicationUser", "is %q as User is, want another account", c.User)
	}
	if c.Timeout < 0 || c.Timeout > 0 && c.Timeout < time.Millisecond {
		fault("Timeout", "is %v, want at least 1ms, or 0 for 5s", c.Timeout)
	}
	if c.Stall < 0 || c.Stall > 0 && c.Stall < time.Millisecond {
		fault("Stall", "is %v, want at least 1ms, or 0 for 10s", c.Stall)
	}
	c.Machines.check(fault)
	return errors.Join(faults...)
}

// String gives the config without its passwords.
func (c Config) String() string {
	return fmt.Sprintf("{User:%s ReplicationUser:%s TLS:%t Timeout:%v}", c.User, c.ReplicationUser, c.TLS != nil, c.Timeout)
}

// Format keeps every verb from showing the passwords.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String names the engine, without passwords.
func (e *Engine) String() string { return "mysql.Engine" + e.config.String() }

// Format keeps every verb from showing the passwords.
func (e *Engine) Format(f fmt.State, _ rune) { fmt.Fprint(f, e.String()) }

// Close ends the connections that the engine holds to the member's address. The next call for it opens new ones.
func (e *Engine) Close(m replication.Member) error {
	e.mu.Lock()
	s := e.servers[m.Addr]
	delete(e.servers, m.Addr)
	e.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.close()
}
