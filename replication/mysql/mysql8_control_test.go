package mysql_test

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The statements that change what a server does: sessions, replication, accounts, clones.

func kill8(c *conn8, args []string) (resultSet, *sqlError) {
	id := number8(args[0])
	if id >= dumpIDs {
		c.f.w.t.Errorf("the session of a replica is to be killed")
	}
	d := c.f.conns[uint32(id)]
	if d == nil {
		return resultSet{}, sqlErrorf(1094, "Unknown thread id: %d", id)
	}
	d.kill()
	return resultSet{}, nil
}

func threads8(c *conn8, args []string) (resultSet, *sqlError) {
	r := c.f.replica
	if r == nil {
		return resultSet{}, sqlErrorf(1200, "The server is not configured as replica; fix in config file or with CHANGE REPLICATION SOURCE TO")
	}
	start := args[0] == "START"
	if args[1] != "SQL_THREAD" {
		if r.io != start {
			r.errno, r.trouble = 0, ""
		}
		r.io = start
	}
	if args[1] != "IO_THREAD" {
		r.sql = start
	}
	c.f.w.step()
	return resultSet{}, nil
}

func resetReplica8(c *conn8, _ []string) (resultSet, *sqlError) {
	switch r := c.f.replica; {
	case r == nil:
	case r.io || r.sql:
		return resultSet{}, sqlErrorf(3081, "This operation cannot be performed with running replication threads; run STOP REPLICA FOR CHANNEL '' first")
	case len(r.relay) > 0 && r.delay == 0 && !c.f.schemas["scalr_seeding"]:
		c.f.w.t.Errorf("the replica at %s loses %d received transactions", c.f.addr, len(r.relay))
	}
	c.f.replica = nil
	return resultSet{}, nil
}

var option8 = regexp.MustCompile(`^([A-Z_]+) ?= ?(\d+(?:\.\d+)?|` + text8 + `)$`)

func changeSource8(c *conn8, args []string) (resultSet, *sqlError) {
	f := c.f
	r := replica8{retrieved: gtidNames{}, heartbeat: 30}
	if f.replica != nil {
		r = *f.replica
	}
	options := map[string]string{}
	for _, item := range splitOutside(args[0], ',') {
		m := option8.FindStringSubmatch(item)
		if m == nil {
			return resultSet{}, c.unknown(item)
		}
		if options[m[1]] = m[2]; strings.HasPrefix(m[2], "'") {
			options[m[1]] = unquote8(m[3])
		}
	}
	if r.io || r.sql {
		return resultSet{}, sqlErrorf(3021, "This operation cannot be performed with a running replica thread; run STOP REPLICA FOR CHANNEL '' first")
	}
	delayed := r.delay > 0
	auto, relay := r.auto, options["RELAY_LOG_FILE"] != "" || options["RELAY_LOG_POS"] != ""
	for n, v := range options {
		switch n {
		case "SOURCE_HOST":
			r.host = v
		case "SOURCE_PORT":
			r.port = v
		case "SOURCE_USER":
			r.user = v
		case "SOURCE_PASSWORD":
			r.password = v
		case "SOURCE_AUTO_POSITION":
			auto = v == "1"
		case "SOURCE_DELAY":
			r.delay = number8(v)
		case "SOURCE_HEARTBEAT_PERIOD":
			r.heartbeat, _ = strconv.ParseFloat(v, 64)
		case "GET_SOURCE_PUBLIC_KEY":
			r.publicKey = v == "1"
		case "SOURCE_SSL":
			r.ssl = v == "1"
		case "SOURCE_CONNECT_RETRY", "SOURCE_RETRY_COUNT", "SOURCE_SSL_VERIFY_SERVER_CERT", "RELAY_LOG_FILE", "RELAY_LOG_POS":
		default:
			return resultSet{}, c.unknown(n)
		}
	}
	if auto && relay {
		return resultSet{}, sqlErrorf(1776, "Parameters SOURCE_LOG_FILE, SOURCE_LOG_POS, RELAY_LOG_FILE and RELAY_LOG_POS cannot be set when SOURCE_AUTO_POSITION is active")
	}
	if relay && (options["RELAY_LOG_FILE"] != fmt.Sprintf("relay.%06d", r.relayFile) || number8(options["RELAY_LOG_POS"]) != r.read-len(r.relay)+4) {
		f.w.t.Errorf("the applier at %s is sent to %s %s, where it is not", f.addr, options["RELAY_LOG_FILE"], options["RELAY_LOG_POS"])
	}
	if r.auto = auto; !relay { // both threads are stopped
		if len(r.relay) > 0 && !delayed {
			f.w.t.Errorf("the replica at %s loses %d received transactions", f.addr, len(r.relay))
		}
		r.purge()
		r.relayFile++
	}
	f.replica = &r
	return resultSet{}, nil
}

func waitFor8(c *conn8, args []string) (resultSet, *sqlError) {
	want := gtidNames{}
	for _, item := range splitOutside(unquote8(args[0]), ',') {
		parts := strings.Split(item, ":")
		for _, p := range parts[1:] {
			first, last, ok := strings.Cut(p, "-")
			if !ok {
				last = first
			}
			for n := number8(first); n <= number8(last); n++ {
				want[gtidName{parts[0], n}] = true
			}
		}
	}
	seconds, _ := strconv.ParseFloat(args[1], 64)
	if seconds == 0 {
		c.f.w.t.Errorf("a wait without an end")
	}
	for deadline := time.Now().Add(time.Duration(seconds * float64(time.Second))); !c.f.executed.holds(want); {
		if c.killed || c.gone() || time.Now().After(deadline) {
			return one8("r", 1), nil
		}
		c.f.w.changed.Wait()
	}
	return one8("r", 0), nil
}

func createUser8(c *conn8, args []string) (resultSet, *sqlError) {
	if err := c.refusedRead(); err != nil {
		return resultSet{}, err
	}
	if !c.unlogged {
		c.f.w.t.Errorf("an account is made in the binary log")
	}
	user := unident8(args[0])
	if _, ok := c.f.accounts[user]; !ok {
		c.f.accounts[user] = account8{unquote8(args[1]), map[string]bool{}}
	}
	return resultSet{}, nil
}

func grant8(c *conn8, args []string) (resultSet, *sqlError) {
	if err := c.refusedRead(); err != nil {
		return resultSet{}, err
	}
	a, ok := c.f.accounts[unident8(args[1])]
	if !ok {
		return resultSet{}, sqlErrorf(1410, "You are not allowed to create a user with GRANT")
	}
	for g := range strings.SplitSeq(args[0], ", ") {
		switch g {
		case "ALL PRIVILEGES":
			a.grants["CONNECTION_ADMIN"] = true
		case "REPLICATION SLAVE", "BACKUP_ADMIN":
		default:
			return resultSet{}, c.unknown(g)
		}
		a.grants[g] = true
	}
	return resultSet{}, nil
}

func schema8(create bool) func(c *conn8, args []string) (resultSet, *sqlError) {
	return func(c *conn8, args []string) (resultSet, *sqlError) {
		if err := c.refusedRead(); err != nil {
			return resultSet{}, err
		}
		if !c.unlogged {
			c.f.w.t.Errorf("a schema is changed in the binary log")
		}
		n := unident8(args[0])
		if create {
			c.f.schemas[n] = true
			return resultSet{}, nil
		}
		delete(c.f.schemas, n)
		if n == "app" {
			c.f.data = map[string]string{}
		}
		return resultSet{}, nil
	}
}

func resetLogs8(c *conn8, args []string) (resultSet, *sqlError) {
	if old := args[0] == "MASTER"; old && c.f.number() >= 80400 || !old && c.f.number() < 80200 {
		return resultSet{}, c.unknown("RESET " + args[0])
	}
	c.f.log, c.f.executed, c.f.acked = nil, gtidNames{}, 0
	return resultSet{}, nil
}

func clone8(c *conn8, args []string) (resultSet, *sqlError) {
	f, w := c.f, c.f.w
	user, addr, password := unquote8(args[0]), net.JoinHostPort(unquote8(args[1]), args[2]), unquote8(args[3])
	if !slices.Contains(strings.Split(f.vars["clone_valid_donor_list"], ","), addr) {
		return resultSet{}, sqlErrorf(3869, "Clone system configuration: %s is not found in clone_valid_donor_list", addr)
	}
	if err := c.refusedRead(); err != nil {
		return resultSet{}, err
	}
	donor := w.fakes[addr]
	if donor == nil || !donor.up {
		return resultSet{}, sqlErrorf(3862, "Clone Donor Error: Connect failed: 2003")
	}
	if a := donor.accounts[user]; a.password != password || !a.grants["BACKUP_ADMIN"] {
		return resultSet{}, sqlErrorf(3862, "Clone Donor Error: 1045 : Access denied")
	}
	f.clone, f.cloneError = "In Progress", ""
	f.log, f.data, f.schemas = nil, map[string]string{}, map[string]bool{} // of users, with the binary logs
	for until := time.Now().Add(w.cloning); time.Now().Before(until) || donor.hung; {
		w.changed.Wait()
		if c.gone() || c.killed || !donor.up {
			f.clone, f.cloneError = "Failed", "Query execution was interrupted"
			return resultSet{}, sqlErrorf(1317, "Query execution was interrupted")
		}
	}
	f.data, f.executed, f.schemas, f.accounts = maps.Clone(donor.data), maps.Clone(donor.executed), maps.Clone(donor.schemas), maps.Clone(donor.accounts)
	if f.replica = nil; donor.replica != nil {
		r := *donor.replica
		r.purge()
		f.replica = &r
	}
	// The server ends, and is started again on the copy.
	f.stop()
	time.AfterFunc(w.restart, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		f.clone = "Completed"
		f.restart()
	})
	return resultSet{}, nil
}
