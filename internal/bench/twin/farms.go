package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

const (
	parentZone = "shop.example."
	twinZone   = "dev.shop.example."
)

// world is what the two farms have in common: this machine as their clouds, and a name server.
type world struct {
	o     options
	dir   string
	cloud *local.Cloud // where the farms are
	there *local.Cloud // and where the parent moves to
	names *nameserver.Server
	sites []*site
	ctx   context.Context // while it runs
	end   context.CancelFunc
	runs  sync.WaitGroup

	admins [2]mysql.Config // the accounts of each farm's engine
	apps   [2]string       // the passwords of each farm's application
	reader mysql.Config    // the account that may read the parent's database, and nothing else

	badLaunches atomic.Int64 // of images that do not work
}

// site is one farm.
type site struct {
	w       *world
	which   int // 0 the parent, 1 the twin
	spec    farm.Spec
	engine  *mysql.Engine
	manager *replication.Manager
	farm    *farm.Farm
	halt    func() // ends the farm's run
	ended   bool

	mu     sync.Mutex
	events []scalr.Event
}

func newWorld(ctx context.Context, o options) (w *world, err error) {
	w = &world{o: o}
	for i, name := range []string{"shop", "dev"} {
		w.admins[i] = mysql.Config{User: name + "_admin", Password: rand.Text(), ReplicationUser: name + "_replica", ReplicationPassword: rand.Text()}
		w.apps[i] = rand.Text()
	}
	w.admins[1].Set = "dev/db"
	w.reader = w.admins[0]
	w.reader.User, w.reader.Password = "cloner", rand.Text()
	images := map[string]local.Image{}
	for i, name := range []string{"mariadb-shop", "mariadb-dev"} {
		if images[name], err = w.image(i); err != nil {
			return nil, err
		}
	}
	images["mariadb-2"] = images["mariadb-shop"]
	images["mariadb-bad"] = broken(images["mariadb-shop"], &w.badLaunches)
	www, err := webImage()
	if err != nil {
		return nil, err
	}
	images["www-1"], images["www-2"], images["www-bad"] = www, www, broken(www, &w.badLaunches)
	if w.dir, err = os.MkdirTemp("", "twin"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(w.dir)
		}
	}()
	if w.cloud, err = local.New(local.Options{Dir: filepath.Join(w.dir, "a"), Images: images}); err != nil {
		return nil, err
	}
	if w.there, err = local.New(local.Options{Dir: filepath.Join(w.dir, "b"), Images: images}); err != nil {
		return nil, err
	}
	if w.names, err = nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: parentZone}, {Name: twinZone}}}); err != nil {
		return nil, err
	}
	w.ctx, w.end = context.WithCancel(context.WithoutCancel(ctx))
	w.start(w.names.Run)
	return w, nil
}

// image is a MariaDB with one farm's accounts. The parent's application has its account from the beginning; the twin's gets
// it when the data has been scrubbed.
func (w *world) image(which int) (local.Image, error) {
	c := w.admins[which]
	accounts := strings.Split(strings.TrimRight(mysql.BootstrapSQL(c), ";\n"), ";\n")
	// None replicates in parallel: a MariaDB 10.11 that is shut down while it does may leave prepared transactions behind that its
	// binary log does not have, and then it does not start again; or it dies of a signal when it begins to once more.
	more := []string{"innodb_log_file_size = 64M"}
	if which == 0 {
		accounts = append(accounts, "CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY '"+w.apps[0]+"'", "GRANT SELECT, INSERT, UPDATE ON app.* TO app@'%'",
			"CREATE USER IF NOT EXISTS "+w.reader.User+"@'%' IDENTIFIED BY '"+w.reader.Password+"'",
			"GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, BINLOG MONITOR, BINLOG ADMIN, REPLICA MONITOR ON *.* TO "+w.reader.User+"@'%'")
	} else {
		more = append(more, "gtid_domain_id = 7")
	}
	image, err := local.MariaDB{User: c.User, Password: c.Password, SQL: accounts, Config: func(m local.Machine) string {
		return mysql.ServerConf(mysql.Server{Bind: m.Addr.String(), Port: 3306, BufferPool: 256 << 20, More: more})
	}}.Image()
	image.Grace = time.Minute // what is ended is shut down, as a cloud does it
	if err != nil || which == 0 {
		return image, err
	}
	nice, err := exec.LookPath("nice")
	if err != nil {
		return image, err
	}
	command := image.Command
	image.Command = func(m local.Machine) local.Command {
		c := command(m)
		c.Args = append([]string{nice, "-n", "10"}, c.Args...)
		return c
	}
	return image, nil
}

// start runs something until the end.
func (w *world) start(run func(context.Context) error) {
	w.runs.Go(func() {
		if err := run(w.ctx); err != nil && w.ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "twin:", err)
		}
	})
}

// site makes a farm of a spec and runs it until all of its database serves.
func (w *world) site(ctx context.Context, which int, spec farm.Spec, origin *replication.Origin) (*site, error) {
	s := &site{w: w, which: which, spec: spec}
	w.sites = append(w.sites, s)
	var err error
	if s.engine, err = mysql.New(w.admins[which]); err != nil {
		return nil, err
	}
	policy := w.o.policy
	if which == 1 {
		policy = replication.Availability
	}
	if s.manager, err = replication.New(replication.Config{Name: spec.Name + "/db", Engine: s.engine, Policy: policy, Origin: origin, Events: s.event}); err != nil {
		return nil, err
	}
	if err := s.run(spec); err != nil {
		return nil, err
	}
	return s, until(ctx, fmt.Sprintf("the database of %s serves", spec.Name), 2*time.Hour, func() bool {
		n := 0
		for _, x := range s.farm.Servers("db") {
			if x.Ready {
				n++
			}
		}
		return n == spec.Roles[0].Min
	})
}

// run makes the farm of a spec and runs it instead of the one before.
func (s *site) run(spec farm.Spec) (err error) {
	images := map[string]string{"mariadb": s.image("mariadb")}
	pools := []farm.Pool{{Name: "here", Provider: s.w.cloud, Images: images}, {Name: "there", Provider: s.w.there, Images: images}}
	s.spec = spec
	s.farm, err = farm.New(spec, farm.Config{
		Pools:     pools[:2-s.which],
		DNS:       s.w.names,
		Databases: map[string]*replication.Manager{"db": s.manager},
		Events:    s.event,
		Interval:  500 * time.Millisecond, ListLag: time.Millisecond, Backoff: 2 * time.Second,
	})
	if err != nil {
		return err
	}
	if s.halt != nil {
		s.halt()
	}
	ctx, cancel := context.WithCancel(s.w.ctx)
	done, f := make(chan struct{}), s.farm
	s.halt = func() { cancel(); <-done }
	s.w.start(func(context.Context) error {
		defer close(done)
		if err := f.Run(ctx); ctx.Err() == nil {
			return err
		}
		return nil
	})
	return nil
}

// image is what the spec's image is called at the clouds.
func (s *site) image(name string) string {
	if name == "mariadb" {
		name = []string{"mariadb-shop", "mariadb-dev"}[s.which]
	}
	return name
}

func (s *site) event(e scalr.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	if s.w.o.json {
		line, _ := json.Marshal(e)
		fmt.Println(string(line))
	}
}

func (w *world) parent(ctx context.Context) (*site, error) {
	return w.site(ctx, 0, farm.Spec{Name: "shop", Zone: parentZone, TTL: time.Second, Roles: []farm.Role{
		{Name: "db", Serves: farm.Database, Image: "mariadb", Min: 2, Max: 2, Pools: []string{"here"}, Aliases: []string{"sql"}, Volume: &farm.Volume{SizeGB: 2 + int(math.Ceil(4*w.o.gb))}},
	}}, nil)
}

// twin clones the parent.
func (w *world) twin(ctx context.Context, parent *site) (*site, error) {
	spec, _, err := parent.spec.Clone("dev", farm.CloneOptions{Zone: twinZone, Snapshots: w.o.volumes})
	if err != nil {
		return nil, err
	}
	origin := &replication.Origin{Volumes: w.o.volumes, Source: parent.manager.Source, Scrub: w.scrub}
	if !w.o.volumes {
		if origin.Engine, err = mysql.New(w.reader); err != nil {
			return nil, err
		}
	}
	return w.site(ctx, 1, spec, origin)
}

// copied names the member of the parent's whose volume the twin has taken a snapshot of.
func (s *site) copied() (member string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.events {
		if e.Kind == scalr.Kind(farm.CreateSnapshot) {
			member = fmt.Sprintf("db-%d", e.Index)
			n++
		}
	}
	return member, check(n == 1, "the twin has taken %d snapshots, want 1", n)
}

// scrub takes the e-mail addresses out, and lets the twin's application in.
func (w *world) scrub(ctx context.Context, m replication.Member) error {
	db := connect(w.admins[1].User, w.admins[1].Password, m.Addr)
	defer db.Close()
	for _, s := range []string{"UPDATE app.people SET email = CONCAT('person-', id, '@example.invalid')",
		"ALTER USER app@'%' IDENTIFIED BY '" + w.apps[1] + "' ACCOUNT UNLOCK"} {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// origin says what the twin's Manager told of the copy.
func (s *site) origin() (position, source string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == replication.KindImported {
			return e.Attrs["position"], e.Attrs["source"], nil
		}
	}
	return "", "", errors.New("the twin's Manager did not tell of its data")
}

// close ends whatever is there.
func (w *world) close() (err error) {
	for _, s := range w.sites {
		if s.farm != nil && !s.ended {
			err = errors.Join(err, s.end(context.Background()))
		}
	}
	w.end()
	w.runs.Wait()
	return errors.Join(err, os.RemoveAll(w.dir))
}

// left counts what still exists.
func (w *world) left(ctx context.Context) (int, error) {
	return w.leftIn(ctx, nil, parentZone, twinZone)
}

// leftIn counts what still exists with these tags, and in these zones.
func (w *world) leftIn(ctx context.Context, tags map[string]string, zones ...string) (int, error) {
	left := 0
	for _, cloud := range []*local.Cloud{w.cloud, w.there} {
		instances, err1 := cloud.Instances(ctx, tags)
		volumes, err2 := cloud.Volumes(ctx, tags)
		balancers, err3 := cloud.Balancers(ctx, tags)
		snapshots, err4 := cloud.Snapshots(ctx, tags)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return 0, err
		}
		left += len(volumes) + len(balancers) + len(snapshots)
		has := map[netip.Addr]bool{}
		for _, in := range instances {
			if !in.State.Gone() {
				left++
				has[in.Private] = true
			}
		}
		for _, in := range instances { // what has ended gives its address back
			if in.State.Gone() && !has[in.Private] && answers(ctx, in.Private) {
				left++
			}
		}
	}
	for _, zone := range zones {
		records, err := w.names.Records(ctx, zone)
		if err != nil {
			return 0, err
		}
		for _, r := range records {
			if r.Type != "SOA" && r.Type != "NS" {
				left += len(r.Values)
			}
		}
	}
	return left, nil
}

// answers reports whether anybody takes connections at an address that machines have had.
func answers(ctx context.Context, addr netip.Addr) bool {
	for _, port := range []string{"3306", strconv.Itoa(webPort)} {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), port))
		if err == nil {
			conn.Close()
			return true
		}
	}
	return false
}

// members are the farm's database servers, and the one that takes writes.
func (s *site) members() (all []replication.Member, primary replication.Member) {
	t, _ := s.manager.Topology()
	for _, m := range t.Members {
		all = append(all, m.Member)
		if m.Member.ID == t.Primary {
			primary = m.Member
		}
	}
	return all, primary
}

// admin connects to a member as the farm's administrator.
func (s *site) admin(m replication.Member) *sql.DB {
	return connect(s.w.admins[s.which].User, s.w.admins[s.which].Password, m.Addr)
}

// connect opens a pool.
func connect(user, password, addr string) *sql.DB {
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = user, password, "tcp", addr
	c.Timeout = 10 * time.Second
	c.InterpolateParams = true
	c.Logger = &sqldriver.NopLogger{}
	connector, err := sqldriver.NewConnector(c)
	if err != nil {
		panic(err)
	}
	return sql.OpenDB(connector)
}

// until waits for a condition.
func until(ctx context.Context, what string, limit time.Duration, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}
