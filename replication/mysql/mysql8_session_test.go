package mysql_test

import (
	"bufio"
	"net"
	"strconv"
	"time"
)

// conn8 is one session.
type conn8 struct {
	f                    *fake8
	id                   uint32
	user, host           string
	wire                 *wire
	killed               bool
	command, state, info string
	since                time.Time
	unlogged             bool
}

func (c *conn8) kill() {
	c.killed, c.command = true, "Killed"
	c.wire.Close()
	c.f.w.changed.Broadcast()
}

func (f *fake8) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		f.w.mu.Lock()
		f.nextConn++
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		c := &conn8{f: f, id: f.nextConn, user: "unauthenticated user", host: host, command: "Connect", since: time.Now(),
			wire: &wire{Conn: conn, r: bufio.NewReader(conn)}}
		if f.up {
			f.conns[c.id] = c
			go c.serve(f.conns)
		} else {
			conn.Close()
		}
		f.w.mu.Unlock()
	}
}

// gone reports whether the process that had the session has ended.
func (c *conn8) gone() bool { return !c.f.up || c.f.conns[c.id] != c }

// awake waits while the server hangs.
func (c *conn8) awake() {
	for c.f.hung && !c.killed && c.f.up {
		c.f.w.changed.Wait()
	}
}

func (c *conn8) serve(conns map[uint32]*conn8) {
	w := c.f.w
	defer func() {
		c.wire.Close()
		w.mu.Lock()
		delete(conns, c.id)
		w.changed.Broadcast()
		w.mu.Unlock()
	}()
	w.mu.Lock()
	c.awake()
	w.mu.Unlock()
	user, ok, err := c.wire.login(w.version, c.id, func(user string) (string, bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		a, ok := c.f.accounts[user]
		return a.password, ok
	})
	if err != nil {
		return
	}
	if !ok {
		c.wire.err(sqlErrorf(1045, "Access denied for user '%s'@'%s' (using password: YES)", user, c.host))
		return
	}
	if c.wire.welcome() != nil {
		return
	}
	w.mu.Lock()
	c.user, c.command = user, "Sleep"
	w.mu.Unlock()
	for {
		packet, err := c.wire.read()
		if err != nil || len(packet) == 0 || packet[0] == comQuit {
			return
		}
		switch packet[0] {
		case comPing:
			err = c.wire.ok(false)
		case comQuery:
			err = c.query(string(packet[1:]))
		default:
			w.t.Errorf("the fake does not know the command %d", packet[0])
			err = c.wire.err(sqlErrorf(1047, "Unknown command"))
		}
		if err != nil {
			return
		}
	}
}

// query answers one packet. Its statements are run one after another, and none after one that fails.
func (c *conn8) query(text string) error {
	list := splitStatements(text)
	for i, s := range list {
		c.f.w.mu.Lock()
		c.awake()
		c.command, c.info, c.since = "Query", s, time.Now()
		result, sqlErr := c.run(s)
		c.awake()
		dead := c.killed
		if !dead {
			c.command, c.state, c.info, c.since = "Sleep", "", "", time.Now()
		}
		c.f.w.changed.Broadcast()
		c.f.w.mu.Unlock()
		if dead {
			return net.ErrClosed
		}
		if sqlErr != nil {
			return c.wire.err(sqlErr)
		}
		if err := c.wire.result(result, i+1 < len(list)); err != nil {
			return err
		}
	}
	return nil
}

// write commits a row of app.kv.
func (c *conn8) write(key, value string) (resultSet, *sqlError) {
	f := c.f
	refused := func() *sqlError {
		if f.on("super_read_only") {
			return sqlErrorf(1290, "The MySQL server is running with the --super-read-only option so it cannot execute this statement")
		}
		if f.on("read_only") && !f.accounts[c.user].grants["CONNECTION_ADMIN"] {
			return sqlErrorf(1290, "The MySQL server is running with the --read-only option so it cannot execute this statement")
		}
		return nil
	}
	for f.freezing > 0 && !c.killed {
		c.state = "Waiting for global read lock"
		f.w.changed.Wait()
	}
	if err := refused(); err != nil || c.killed {
		return resultSet{}, err
	}
	n := 1
	for name := range f.executed {
		if name.uuid == f.uuid {
			n = max(n, name.n+1)
		}
	}
	for name := range f.owned() {
		if name.uuid == f.uuid {
			n = max(n, name.n+1)
		}
	}
	x := tx{f.uuid, n, key, value}
	if c.unlogged {
		f.w.t.Errorf("a row of an application is to be written without a log")
	}
	f.log = append(f.log, x)
	at := len(f.log)
	timeout, _ := strconv.Atoi(f.vars[f.semi("timeout")])
	began := time.Now()
	for f.waits() && f.acked < at {
		c.state = "Waiting for semi-sync ACK from replica"
		f.w.changed.Wait() // also if the session has been killed
		if c.gone() {
			return resultSet{}, nil
		}
		if time.Since(began) > time.Duration(timeout)*time.Millisecond {
			f.fellBack = true
		}
	}
	c.state = ""
	f.commit(x)
	return resultSet{}, nil
}

// freeze sets a variable when no commit is under way.
func (c *conn8) freeze(names ...string) *sqlError {
	f := c.f
	f.freezing++
	began := time.Now()
	defer func() {
		if !c.gone() {
			f.freezing--
		}
	}()
	for len(f.owned()) > 0 && !c.killed {
		c.state = "Waiting for commit lock"
		f.w.changed.Wait()
		if c.gone() {
			return nil
		}
		if time.Since(began) > 3*time.Second { // lock_wait_timeout
			return sqlErrorf(1205, "Lock wait timeout exceeded; try restarting transaction")
		}
	}
	for _, n := range names {
		f.vars[n] = "ON"
	}
	return nil
}
