package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider/local"
)

// Rolled is what came of the rolling updates.
type Rolled struct {
	RollMs       int64   `json:"roll_ms"` // until all machines of both roles were of the new image
	RollPauseMs  float64 `json:"roll_pause_ms"`
	RollRequests int     `json:"roll_requests"` // pages, reads and writes, while the good images came and the bad ones went
	RollFailed   int     `json:"roll_failed_requests"`
	BadLaunches  int     `json:"bad_launches"` // of the image that does not work
	RolledBack   bool    `json:"rolled_back"`
}

const (
	webPort  = 8080
	sitePort = 8000
)

// webImage is a web server: this program.
func webImage() (local.Image, error) {
	self, err := os.Executable()
	return local.Image{Port: webPort, Command: func(local.Machine) local.Command { return local.Command{Args: []string{self, "-serve"}} }}, err
}

// serveWeb is one web server.
func serveWeb() error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getenv("SCALR_INSTANCE")) })
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	return http.ListenAndServe(net.JoinHostPort(os.Getenv("SCALR_ADDR"), strconv.Itoa(webPort)), mux)
}

// broken is an image whose program does not know an option that it is given. Each launch is counted.
func broken(image local.Image, launches *atomic.Int64) local.Image {
	prepare, command := image.Prepare, image.Command
	image.Prepare = func(ctx context.Context, m local.Machine) error {
		launches.Add(1)
		if prepare == nil {
			return nil
		}
		return prepare(ctx, m)
	}
	image.Command = func(m local.Machine) local.Command {
		c := command(m)
		c.Args = append(c.Args, "--no-such-option")
		return c
	}
	return image
}

// roll gives the farm web servers behind a balancer and a third database server, updates all of them while clients use both,
// and then tries to update them to images that do not work.
func (s *site) roll(ctx context.Context, writers, www int) (r Rolled, lost int, err error) {
	db := s.spec.Roles[0]
	db.Min, db.Max, db.Move, db.Update = 3, 3, nil, &farm.Update{}
	web := farm.Role{Name: "www", Serves: farm.Web, Image: "www-1", Pools: db.Pools, Port: webPort, Min: www, Max: www + 2, Main: true,
		Health:   &farm.Health{Path: "/healthz"},
		Balancer: &farm.Balancer{Protocol: "http", Port: sitePort, HealthPath: "/healthz", Drain: 5 * time.Second},
		Update:   &farm.Update{Share: 0.1, Surge: true}}
	if err := s.become(ctx, db, web); err != nil {
		return r, 0, err
	}
	c, err := s.use(ctx, writers)
	if err != nil {
		return r, 0, err
	}
	defer c.stop()
	v := s.visit(ctx, writers)
	defer v.stop()
	began := time.Now()
	db.Image, web.Image = "mariadb-2", "www-2"
	if err := s.become(ctx, db, web); err != nil {
		return r, 0, err
	}
	ended := time.Now()

	badDB, badWeb := db, web
	badDB.Image, badWeb.Image = "mariadb-bad", "www-bad"
	s.mu.Lock()
	s.events = nil
	s.mu.Unlock()
	if err := s.set(badDB, badWeb); err != nil {
		return r, 0, err
	}
	err = until(ctx, "both updates have failed", time.Hour, func() bool { return s.told(farm.UpdateFailed, "db") && s.told(farm.UpdateFailed, "www") })
	if err == nil {
		err = s.whole(ctx, db, web)
	}
	if err != nil {
		return r, 0, err
	}
	time.Sleep(2 * time.Second) // for those who still have an old answer
	stopped := time.Now()
	v.stop()
	c.stop()
	for i, f := range slices.Concat(c.failed, c.failedWrites, v.failed) {
		if i < 5 {
			fmt.Fprintln(os.Stderr, "a request failed:", f)
		}
	}
	r.RollMs = ended.Sub(began).Milliseconds()
	r.RollPauseMs, _ = longest(c.acks, began, stopped)
	r.RollRequests = c.reads + len(c.acks) + len(c.failedWrites) + v.pages
	r.RollFailed = len(c.failed) + len(c.failedWrites) + len(v.failed)
	r.BadLaunches, r.RolledBack = int(s.w.badLaunches.Load()), true
	lost, err = c.lost(ctx)
	return r, lost, err
}

// set runs the farm with these roles.
func (s *site) set(roles ...farm.Role) error {
	spec := s.spec
	spec.Roles = roles
	return s.run(spec)
}

// become is set, and waits until all machines are of these roles' images and serve.
func (s *site) become(ctx context.Context, roles ...farm.Role) error {
	if err := s.set(roles...); err != nil {
		return err
	}
	return s.whole(ctx, roles...)
}

// whole waits until the farm has what the roles say and nothing else, and its balancers send clients there.
func (s *site) whole(ctx context.Context, roles ...farm.Role) error {
	cloud := s.w.there
	err := until(ctx, "all machines serve", 2*time.Hour, func() bool {
		instances, err := cloud.Instances(ctx, nil)
		if err != nil {
			return false
		}
		images, there := map[string]string{}, 0
		for _, in := range instances {
			if images[in.ID] = in.Image; !in.State.Gone() {
				there++
			}
		}
		want := 0
		for _, r := range roles {
			n := 0
			for _, x := range s.farm.Servers(r.Name) {
				if x.Ready && images[x.ID] == s.image(r.Image) {
					n++
				}
			}
			if n != r.Min {
				return false
			}
			want += n
		}
		balancers, err := cloud.Balancers(ctx, nil)
		for _, b := range balancers {
			for _, t := range b.Targets {
				if t.State != "healthy" {
					return false
				}
			}
			if len(b.Targets) == 0 {
				return false
			}
		}
		return err == nil && there == want
	})
	if err != nil {
		p, _ := s.farm.Plan(ctx)
		err = fmt.Errorf("%w\n%s", err, p)
	}
	return err
}

// told reports whether there was an event of a role.
func (s *site) told(kind scalr.Kind, role string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.events, func(e scalr.Event) bool { return e.Kind == kind && e.Role == role })
}

// visitors look at pages.
type visitors struct {
	s   *site
	end context.CancelFunc
	all sync.WaitGroup

	mu     sync.Mutex
	pages  int
	failed []string
}

// visit makes visitors until stop is called: each asks the name server where the site is and keeps the answer for its TTL. Every
// other one makes a connection for each page.
func (s *site) visit(ctx context.Context, n int) *visitors {
	v := &visitors{s: s}
	ctx, v.end = context.WithCancel(ctx)
	zone := s.spec.Zone
	for i := range n {
		v.all.Go(func() {
			transport := &http.Transport{DisableKeepAlives: i%2 == 1}
			defer transport.CloseIdleConnections()
			client := &http.Client{Timeout: 10 * time.Second, Transport: transport}
			a := &answer{w: s.w, zone: zone, name: "www." + zone}
			for ctx.Err() == nil {
				addr := net.JoinHostPort(a.addr(ctx), strconv.Itoa(sitePort))
				err := page(context.WithoutCancel(ctx), client, "http://"+addr+"/")
				v.mu.Lock()
				if v.pages++; err != nil {
					v.failed = append(v.failed, err.Error())
				}
				v.mu.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return v
}

func (v *visitors) stop() {
	v.end()
	v.all.Wait()
}

// page gets a page.
func page(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	return check(resp.StatusCode == http.StatusOK, "%s: %s", url, resp.Status)
}
