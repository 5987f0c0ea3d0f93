package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/examples/show"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// spec is what there should be.
var spec = farm.Spec{Name: "shop", Zone: zone, TTL: time.Second, Roles: []farm.Role{
	{Name: "db", Serves: farm.Database, Image: "mariadb", Min: 3, Max: 3, Volume: &farm.Volume{SizeGB: 1}},
	{Name: "cache", Serves: farm.Cache, Image: "memcached", Min: cacheServers, Max: cacheServers},
	{Name: "www", Serves: farm.Web, Image: "www", Min: 2, Max: 8, After: []string{"db", "cache"}, Port: webPort, Main: true,
		Health: &farm.Health{Path: "/healthz"},
		Scale:  &farm.Scale{Target: &scale.Target{Metric: "requests", Value: capacity, Tolerance: 0.2, Window: 2 * time.Second}}},
}}

// secrets are made anew for each farm and kept in memory and in files that only this user reads.
type secrets struct{ admin, replication, application string }

// images are what the machines run: real servers, and this program as the web application.
func images(s secrets) (map[string]local.Image, error) {
	mariadb, err1 := local.MariaDB{User: "scalr", Password: s.admin, Config: serverConfig, SQL: applicationSQL(s)}.Image()
	memcached, err2 := local.Memcached{MemoryMB: 16}.Image()
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%w:\n%w", errMissing, err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	www := local.Image{
		Port: webPort,
		Prepare: func(_ context.Context, m local.Machine) error {
			return os.WriteFile(filepath.Join(m.Dir, "web.json"), m.UserData, 0o600)
		},
		Command: func(m local.Machine) local.Command {
			return local.Command{Args: []string{self, "-web", filepath.Join(m.Dir, "web.json")}}
		},
	}
	return map[string]local.Image{"mariadb": mariadb, "memcached": memcached, "www": www}, nil
}

// site is the farm with everything that it is made with.
type site struct {
	cloud   *local.Cloud
	names   *nameserver.Server
	engine  *mysql.Engine
	manager *replication.Manager
	farm    *farm.Farm
	secrets secrets
}

func newSite(dir string, out *show.Show, policy replication.Policy) (*site, error) {
	s := &site{secrets: secrets{rand.Text(), rand.Text(), rand.Text()}}
	images, err := images(s.secrets)
	if err != nil {
		return nil, err
	}
	if s.cloud, err = local.New(local.Options{Dir: dir, Images: images}); err != nil {
		return nil, err
	}
	if s.names, err = nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: zone}}}); err != nil {
		return nil, err
	}
	if s.engine, err = mysql.New(mysql.Config{User: "scalr", Password: s.secrets.admin,
		ReplicationUser: "replica", ReplicationPassword: s.secrets.replication}); err != nil {
		return nil, err
	}
	if s.manager, err = replication.New(replication.Config{Name: "shop/db", Engine: s.engine, Policy: policy, Events: out.Event}); err != nil {
		return nil, err
	}
	s.farm, err = farm.New(spec, farm.Config{
		Pools:     []farm.Pool{{Name: "local", Provider: s.cloud}},
		DNS:       s.names,
		Databases: map[string]*replication.Manager{"db": s.manager},
		Sensors:   map[string]farm.Sensor{"requests": &rates{client: probing(), last: map[string]reading{}}},
		UserData: func(m farm.Machine) ([]byte, error) {
			if m.Role != "www" {
				return nil, nil
			}
			return json.Marshal(webConfig{Names: s.names.Addr(), User: "shop", Password: s.secrets.application})
		},
		Events:   out.Event,
		Interval: 500 * time.Millisecond, ListLag: time.Millisecond,
	})
	return s, err
}

// applicationSQL makes the application's account on every member, without the privilege to write to replicas.
func applicationSQL(s secrets) []string {
	return []string{
		"CREATE USER IF NOT EXISTS shop@'%' IDENTIFIED BY '" + s.application + "'",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO shop@'%'",
	}
}

// serverConfig is the my.cnf of a member: the same text that a machine in a cloud would get.
func serverConfig(m local.Machine) string {
	return mysql.ServerConf(mysql.Server{Bind: m.Addr.String(), Port: 3306, BufferPool: 16 << 20})
}
