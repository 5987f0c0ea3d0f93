package mysql_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication/mysql"
)

// world is fakes of MySQL 8 that replicate from each other. They are made from MySQL's manual: no real server was asked. A
// statement that a fake does not know fails the test.
type world struct {
	t       testing.TB
	version string
	source  string        // what the semi-synchronous plugins' variables are called: "source" or "master"
	cloning time.Duration // how long a clone takes
	restart time.Duration // how long a server takes to start again on a clone

	mu      sync.Mutex
	changed *sync.Cond
	fakes   map[string]*fake8 // by address
	number  int
}

// tx is a transaction: key = value, by the server that wrote it first.
type tx struct {
	uuid       string
	n          int
	key, value string
}

func (x tx) id() gtidName { return gtidName{x.uuid, x.n} }

type gtidName struct {
	uuid string
	n    int
}

type gtidNames map[gtidName]bool

// String writes the set as MySQL does, over several lines.
func (g gtidNames) String() string {
	by := map[string][]int{}
	for name := range g {
		by[name.uuid] = append(by[name.uuid], name.n)
	}
	var items []string
	for _, uuid := range slices.Sorted(maps.Keys(by)) {
		numbers := by[uuid]
		slices.Sort(numbers)
		var item strings.Builder
		item.WriteString(uuid)
		for i := 0; i < len(numbers); {
			j := i
			for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
				j++
			}
			if item.WriteString(fmt.Sprintf(":%d", numbers[i])); j > i {
				item.WriteString(fmt.Sprintf("-%d", numbers[j]))
			}
			i = j + 1
		}
		items = append(items, item.String())
	}
	return strings.Join(items, ",\n")
}

func (g gtidNames) holds(h gtidNames) bool {
	for name := range h {
		if !g[name] {
			return false
		}
	}
	return true
}

type account8 struct {
	password string
	grants   map[string]bool
}

// fake8 is one server.
type fake8 struct {
	w        *world
	addr     string
	uuid     string
	conf     string
	listener net.Listener
	up, hung bool
	started  time.Time
	conns    map[uint32]*conn8
	nextConn uint32

	vars     map[string]string
	accounts map[string]account8
	schemas  map[string]bool
	data     map[string]string // what readers see of app.kv
	log      []tx              // the binary log
	executed gtidNames
	acked    int  // of the log, by a replica
	fellBack bool // to asynchronous replication, since the time-out ended a wait
	freezing int  // statements that wait to make the server read-only

	transactions string // as InnoDB's monitor lists them

	replica    *replica8
	clone      string // the state of clone_status
	cloneError string
}

// replica8 is a replica's default channel.
type replica8 struct {
	host, port, user, password string
	auto                       bool
	delay                      int
	heartbeat                  float64
	publicKey, ssl             bool
	io, sql, linked            bool
	relay                      []tx // received and not applied
	arrived                    []time.Time
	retrieved                  gtidNames
	errno                      int
	trouble                    string
	heartbeats, read           int
	beat                       time.Time
	relayFile                  int
}

func (r *replica8) source() string { return net.JoinHostPort(r.host, r.port) }

// purge deletes the relay logs.
func (r *replica8) purge() { r.relay, r.arrived, r.retrieved, r.read = nil, nil, gtidNames{}, 0 }

func newWorld8(t testing.TB, version, source string) *world {
	w := &world{t: t, version: version, source: source, cloning: 30 * time.Millisecond, restart: 10 * time.Millisecond, fakes: map[string]*fake8{}}
	w.changed = sync.NewCond(&w.mu)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			w.mu.Lock()
			w.step()
			w.changed.Broadcast()
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		w.mu.Lock()
		for _, f := range w.fakes {
			f.stop()
		}
		w.mu.Unlock()
	})
	return w
}

// start starts one more server, as ServerConfMySQL8 and BootstrapSQLMySQL8 make it.
func (w *world) start() *fake8 {
	w.t.Helper()
	w.mu.Lock()
	w.number++
	n := w.number
	w.mu.Unlock()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 100+rand.IntN(100), rand.IntN(256), 1+rand.IntN(254)))
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0") // not every system has all of the loopback network
	}
	require.NoError(w.t, err)
	conf := mysql.ServerConfMySQL8(mysql.Server{ID: uint32(n)})
	if w.source == "master" {
		conf = strings.NewReplacer("semisync_source", "semisync_master", "semisync_replica", "semisync_slave",
			"rpl_semi_sync_source", "rpl_semi_sync_master", "rpl_semi_sync_replica", "rpl_semi_sync_slave").Replace(conf)
	}
	f := &fake8{w: w, addr: l.Addr().String(), uuid: fmt.Sprintf("%08x-71ca-11e1-9e33-c80aa94295%02x", 0x3e11fa47+n, n), conf: conf,
		accounts: map[string]account8{appUser: {password: appPassword}}, schemas: map[string]bool{}, data: map[string]string{},
		executed: gtidNames{}, clone: "Not Started"}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fakes[f.addr] = f
	f.run(l)
	root := &conn8{f: f, user: "root"}
	for s := range strings.SplitSeq(strings.TrimRight(mysql.BootstrapSQLMySQL8(config), ";\n"), ";\n") {
		super := f.vars["super_read_only"]
		f.vars["super_read_only"] = "OFF" // an init_file is run before it is set
		_, sqlErr := root.run(s)
		f.vars["super_read_only"] = super
		require.Nil(w.t, sqlErr, s)
	}
	return f
}

// run starts the server's process.
func (f *fake8) run(l net.Listener) {
	w := f.w
	f.listener, f.up, f.hung, f.started, f.conns = l, true, false, time.Now(), map[uint32]*conn8{}
	f.vars = map[string]string{"server_uuid": f.uuid, "version": w.version, "clone_valid_donor_list": ""}
	for name, value := range map[string]string{"enabled": "OFF", "timeout": "10000", "wait_point": "AFTER_SYNC"} {
		f.vars["rpl_semi_sync_"+w.source+"_"+name] = value
	}
	f.vars[f.semi("wait_no_"+f.replicaWord())] = "ON"
	f.vars["rpl_semi_sync_"+f.replicaWord()+"_enabled"] = "OFF"
	plugins := 0
	for line := range strings.Lines(f.conf) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		name, value, _ := strings.Cut(line, " = ")
		switch name {
		case "plugin_load_add":
			plugins++
		case "server_id", "read_only", "super_read_only", "skip_replica_start", "log_bin", "relay_log", "relay_log_recovery",
			"log_replica_updates", "binlog_format", "gtid_mode", "enforce_gtid_consistency", "sync_binlog",
			"innodb_flush_log_at_trx_commit", "replica_net_timeout":
			f.vars[name] = value
		default:
			if _, known := f.vars[name]; !known {
				w.t.Errorf("the fake does not know the option %q", line)
			}
			f.vars[name] = value
		}
	}
	if plugins != 3 {
		w.t.Errorf("the configuration loads %d plugins, want 3", plugins)
	}
	f.vars["log_bin"] = "ON" // the variable says only that there is one
	f.fellBack, f.freezing = false, 0
	for _, x := range f.log { // what is in the binary log is committed by recovery
		f.commit(x)
	}
	f.acked = len(f.log)
	if r := f.replica; r != nil {
		r.io, r.sql, r.linked, r.errno, r.trouble = false, false, false, 0, ""
	}
	go f.accept(l)
}

func (f *fake8) replicaWord() string {
	return map[string]string{"source": "replica", "master": "slave"}[f.w.source]
}

func (f *fake8) semi(name string) string { return "rpl_semi_sync_" + f.w.source + "_" + name }

func (f *fake8) on(name string) bool { return f.vars[name] == "ON" }

func (f *fake8) commit(x tx) {
	if f.executed[x.id()] {
		return
	}
	f.executed[x.id()] = true
	f.schemas["app"] = true
	f.data[x.key] = x.value
}

// owned are the transactions that are in the binary log and not committed.
func (f *fake8) owned() gtidNames {
	owned := gtidNames{}
	for _, x := range f.log {
		if !f.executed[x.id()] {
			owned[x.id()] = true
		}
	}
	return owned
}

// purged are the transactions that are executed and in no binary log.
func (f *fake8) purged() gtidNames {
	purged := maps.Clone(f.executed)
	for _, x := range f.log {
		delete(purged, x.id())
	}
	return purged
}

func (f *fake8) stop() {
	f.up = false
	f.listener.Close()
	for _, c := range f.conns {
		c.kill()
	}
	f.w.changed.Broadcast()
}

func (f *fake8) Kill() {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.stop()
}

func (f *fake8) Restart() {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.restart()
}

func (f *fake8) restart() {
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.w.t.Errorf("starting again at %s: %v", f.addr, err)
		return
	}
	f.run(l)
}

func (f *fake8) hang(hung bool) func() {
	return func() {
		f.w.mu.Lock()
		defer f.w.mu.Unlock()
		f.hung = hung
		f.w.changed.Broadcast()
	}
}

// step lets replication do what it can do at once.
func (w *world) step() {
	now := time.Now()
	for _, addr := range slices.Sorted(maps.Keys(w.fakes)) {
		f := w.fakes[addr]
		if f.up && !f.hung && f.replica != nil {
			f.receive(now)
			f.apply(now)
		}
	}
}

func (f *fake8) receive(now time.Time) {
	r := f.replica
	if !r.io {
		r.linked = false
		return
	}
	s := f.w.fakes[r.source()]
	if s == nil || !s.up {
		r.linked, r.errno, r.trouble = false, 2003, "error connecting to source"
		return
	}
	if s.hung {
		return
	}
	has := maps.Clone(f.executed)
	maps.Copy(has, r.retrieved)
	if !r.linked && !f.connect(s, has, now) {
		return
	}
	for i, x := range s.log {
		if !has[x.id()] {
			r.relay, r.arrived = append(r.relay, x), append(r.arrived, now)
			r.retrieved[x.id()] = true
			r.read++
			if s.on(s.semi("enabled")) && f.on("rpl_semi_sync_"+f.replicaWord()+"_enabled") {
				s.acked, s.fellBack = max(s.acked, i+1), false // and all that was before it
			}
		}
	}
	if now.Sub(r.beat).Seconds() >= r.heartbeat {
		r.heartbeats++
		r.beat = now
	}
}

// connect is what a source checks when a replica connects.
func (f *fake8) connect(s *fake8, has gtidNames, now time.Time) bool {
	r := f.replica
	stop := func(errno int, trouble string) bool {
		r.io, r.errno, r.trouble = false, errno, trouble
		return false
	}
	own, known := gtidNames{}, s.owned()
	for name := range has {
		if name.uuid == s.uuid {
			own[name] = true
		}
	}
	maps.Copy(known, s.executed)
	account, ok := s.accounts[r.user]
	switch {
	case !ok || account.password != r.password || !account.grants["REPLICATION SLAVE"]:
		r.errno, r.trouble = 1045, "error connecting to source: Access denied"
		return false
	case !r.publicKey && !r.ssl:
		r.errno, r.trouble = 2061, "Authentication requires secure connection"
		return false
	case s.vars["server_id"] == f.vars["server_id"]:
		return stop(13117, "Fatal error: The replica I/O thread stops because source and replica have equal MySQL server ids")
	case !r.auto:
		return stop(13114, "Got fatal error 1236 from source when reading data from binary log: 'Could not find first log file name'")
	case !known.holds(own):
		return stop(13114, "Got fatal error 1236 from source when reading data from binary log: 'the replica has more GTIDs than the source has'")
	case !has.holds(s.purged()):
		return stop(13114, "Got fatal error 1236 from source when reading data from binary log: 'Cannot replicate because the source purged required binary logs'")
	}
	r.linked, r.errno, r.trouble, r.beat = true, 0, "", now
	return true
}

func (f *fake8) apply(now time.Time) {
	r := f.replica
	for r.sql && len(r.relay) > 0 {
		if now.Sub(r.arrived[0]) < time.Duration(r.delay)*time.Second {
			return
		}
		if f.on(f.semi("enabled")) {
			return // it waits for acknowledgements itself
		}
		x := r.relay[0]
		r.relay, r.arrived = r.relay[1:], r.arrived[1:]
		if !f.executed[x.id()] {
			f.log = append(f.log, x)
			f.commit(x)
			f.acked = len(f.log)
		}
	}
}

// clients are the replicas that acknowledge.
func (f *fake8) clients() (n int) {
	for _, g := range f.w.fakes {
		if r := g.replica; g.up && r != nil && r.linked && r.source() == f.addr && f.on(f.semi("enabled")) &&
			g.on("rpl_semi_sync_"+g.replicaWord()+"_enabled") {
			n++
		}
	}
	return n
}

// waits reports whether commits wait for a replica.
func (f *fake8) waits() bool { return f.on(f.semi("enabled")) && !f.fellBack }
