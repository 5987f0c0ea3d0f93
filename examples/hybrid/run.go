package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/examples/show"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider"
)

// spec is what there should be, wherever it is. It names no cloud.
func spec(name string) farm.Spec {
	return farm.Spec{Name: name, Zone: "shop.example.", TTL: time.Second, Roles: []farm.Role{
		{Name: "www", Serves: farm.Web, Image: "debian", Size: "small", Min: 4, Max: 4, After: []string{"app"}, Spread: true, Address: true, Main: true},
		{Name: "app", Image: "debian", Size: "small", Min: 2, Max: 2, Volume: &farm.Volume{SizeGB: 1}},
	}}
}

func run(ctx context.Context, out *show.Show, o options) error {
	onEC2, onOpenStack, end, err := o.clouds(ctx)
	if err != nil {
		return err
	}
	defer end()
	names, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: "shop.example."}}})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _ = names.Run(serving) }()

	placed, left := map[string]map[string]int{}, 0
	for _, pools := range [][]farm.Pool{{onEC2, onOpenStack}, {onOpenStack, onEC2}} {
		first := pools[0].Name
		out.Say("The farm is launched by its spec, with %s before %s.", first, pools[1].Name)
		f, err := farm.New(spec("on-"+first), farm.Config{Pools: pools, DNS: names, Events: out.Event,
			Interval: time.Second, ListLag: 2 * time.Second, Grace: time.Second, MissingAfter: time.Second})
		if err != nil {
			return err
		}
		placed[first], err = try(ctx, out, f, pools)
		// Whatever has gone wrong, nothing is left behind.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		err = errors.Join(err, f.Terminate(ending, farm.TerminateOptions{DeleteVolumes: true}))
		for _, p := range pools {
			n, err1 := remains(ending, p.Provider, "on-"+first)
			left, err = left+n, errors.Join(err, err1)
		}
		cancel()
		if err != nil {
			return err
		}
	}
	var text []string
	for _, first := range []string{"ec2", "openstack"} {
		var where []string
		for _, at := range slices.Sorted(maps.Keys(placed[first])) {
			where = append(where, fmt.Sprint(placed[first][at], " ", at))
		}
		text = append(text, fmt.Sprintf("With %s first: %s.", first, strings.Join(where, ", ")))
	}
	out.Line(map[string]any{"summary": true, "placed": placed, "left_over": left},
		fmt.Sprintf("%s %d things are left.", strings.Join(text, " "), left))
	return nil
}

// try waits until the farm serves, ends a web server of EC2 behind its back, waits for the next one, and gives how many machines of
// each role are in each pool.
func try(ctx context.Context, out *show.Show, f *farm.Farm, pools []farm.Pool) (map[string]int, error) {
	if err := serve(ctx, f); err != nil {
		return nil, err
	}
	placed := map[string]int{}
	var victim farm.Server
	for _, role := range []string{"www", "app"} {
		for _, s := range f.Servers(role) {
			placed[role+" in "+s.Pool]++
			if role == "www" && s.Pool == "ec2" {
				victim = s
			}
		}
	}
	out.Say("%s is ended by somebody else. Its name and its address, %s, wait for the next machine.", victim.Name, victim.Public)
	for _, p := range pools {
		if p.Name == victim.Pool {
			if err := p.Provider.Terminate(ctx, victim.ID); err != nil {
				return nil, err
			}
		}
	}
	for {
		if err := serve(ctx, f); err != nil {
			return nil, err
		}
		for _, s := range f.Servers("www") {
			if s.Name != victim.Name || s.ID == victim.ID {
				continue
			}
			if s.Public != victim.Public || s.Pool != victim.Pool {
				return nil, fmt.Errorf("%s is in %s with %s, want %s and %s", s.Name, s.Pool, s.Public, victim.Pool, victim.Public)
			}
			out.Say("%s is %s now, with the address of the one before.", s.Name, s.ID)
			return placed, nil
		}
	}
}

// serve makes passes until every machine serves and nothing more is to be done.
func serve(ctx context.Context, f *farm.Farm) error {
	for {
		plan, err := f.Reconcile(ctx)
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		ready := 0
		for _, s := range f.Servers("") {
			if s.Ready {
				ready++
			}
		}
		if err == nil && plan.Empty() && len(plan.Waits) == 0 && ready == 6 {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// remains counts what a cloud still has of a farm.
func remains(ctx context.Context, cloud provider.Provider, name string) (int, error) {
	tags := map[string]string{farm.TagFarm: name}
	instances, err1 := cloud.Instances(ctx, tags)
	left := len(slices.DeleteFunc(instances, func(i provider.Instance) bool { return i.State.Gone() }))
	volumes, _ := provider.As[provider.Volumes](cloud)
	disks, err2 := volumes.Volumes(ctx, tags)
	addresses, _ := provider.As[provider.Addresses](cloud)
	ips, err3 := addresses.Addresses(ctx, tags)
	return left + len(disks) + len(ips), errors.Join(err1, err2, err3)
}
