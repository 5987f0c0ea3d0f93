package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// servers are a MariaDB and a memcached on loopback addresses of their own.
type servers struct {
	dir             string
	cloud           *local.Cloud
	database, cache string // addresses
}

// startServers starts both. What it returns must be ended, also with an error.
func startServers(ctx context.Context, password string) (*servers, error) {
	mariadb, err1 := local.MariaDB{User: "admin", Password: password, SQL: []string{
		"CREATE DATABASE IF NOT EXISTS shop",
		"CREATE OR REPLACE USER shop@'%' IDENTIFIED BY '" + password + "'", // letters and digits
		"GRANT ALL ON shop.* TO shop@'%'",
	}}.Image()
	memcached, err2 := local.Memcached{MemoryMB: 16}.Image()
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%w:\n%w", errMissing, err)
	}
	dir, err := os.MkdirTemp("", "scalr")
	if err != nil {
		return nil, err
	}
	s := &servers{dir: dir}
	if s.cloud, err = local.New(local.Options{Dir: dir, Images: map[string]local.Image{"database": mariadb, "cache": memcached}}); err != nil {
		return s, err
	}
	volume, err := s.cloud.CreateVolume(ctx, provider.VolumeSpec{Token: "database", Name: "database", SizeGB: 1})
	if err != nil {
		return s, err
	}
	for _, l := range []provider.Launch{
		{Token: "database", Name: "database", Image: "database", Volumes: []string{volume.ID}},
		{Token: "cache", Name: "cache", Image: "cache"},
	} {
		inst, err := s.cloud.Launch(ctx, l)
		if err != nil {
			return s, err
		}
		if err := s.wait(ctx, inst.ID); err != nil {
			return s, err
		}
		if l.Name == "database" {
			s.database = inst.Private.String()
		} else {
			s.cache = inst.Private.String()
		}
	}
	return s, nil
}

func (s *servers) wait(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		all, err := s.cloud.Instances(ctx, nil)
		if err != nil {
			return err
		}
		for _, i := range all {
			switch {
			case i.ID != id:
			case i.State == provider.Running:
				return nil
			case i.State == provider.Failed:
				return fmt.Errorf("%s has failed: %s", i.ID, i.Reason)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end ends both, and leaves nothing.
func (s *servers) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if s.cloud != nil {
		all, err := s.cloud.Instances(ctx, nil)
		errs = append(errs, err)
		for _, i := range all {
			errs = append(errs, s.cloud.Terminate(ctx, i.ID))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
