package providertest

import (
	"context"

	"github.com/scalr-go/scalr/provider"
)

// has reports whether a provider has the capability T.
func has[T any](p provider.Provider) bool {
	if q, ok := p.(patient); ok {
		p = q.Provider
	}
	_, ok := provider.As[T](p)
	return ok
}

// as is the capability T of a provider that has it.
func as[T any](p provider.Provider) T {
	c, _ := provider.As[T](p)
	return c
}

// items makes a list of one kind into what all kinds have.
func items[T any](list []T, err error, f func(T) item) ([]item, error) {
	var all []item
	for _, x := range list {
		all = append(all, f(x))
	}
	return all, err
}

func instanceItem(i provider.Instance) item {
	return item{i.ID, i.Tags, i.State == provider.Terminating, i.State == provider.Terminated}
}

var instances = kind{
	name: "instance", plural: "Instances",
	has: func(provider.Provider) bool { return true },
	create: func(ctx context.Context, p provider.Provider, s *suite, _ string, r request) (item, error) {
		l := s.Launch
		l.Token, l.Name, l.Tags = r.token, r.name, r.tags
		i, err := p.Launch(ctx, l)
		return instanceItem(i), err
	},
	list: func(ctx context.Context, p provider.Provider, tags map[string]string) ([]item, error) {
		list, err := p.Instances(ctx, tags)
		return items(list, err, instanceItem)
	},
	end: func(ctx context.Context, p provider.Provider, id string) error { return p.Terminate(ctx, id) },
}

func volumeItem(v provider.Volume) item { return item{id: v.ID, tags: v.Tags} }

var volumes = kind{
	name: "volume", plural: "Volumes",
	has: has[provider.Volumes],
	create: func(ctx context.Context, p provider.Provider, s *suite, _ string, r request) (item, error) {
		v := s.Volume
		v.Token, v.Name, v.Tags = r.token, r.name, r.tags
		if v.Placement == "" {
			v.Placement = s.Launch.Placement
		}
		got, err := as[provider.Volumes](p).CreateVolume(ctx, v)
		return volumeItem(got), err
	},
	list: func(ctx context.Context, p provider.Provider, tags map[string]string) ([]item, error) {
		list, err := as[provider.Volumes](p).Volumes(ctx, tags)
		return items(list, err, volumeItem)
	},
	end: func(ctx context.Context, p provider.Provider, id string) error {
		return as[provider.Volumes](p).DeleteVolume(ctx, id)
	},
}

func snapshotItem(x provider.Snapshot) item { return item{id: x.ID, tags: x.Tags} }

var snapshots = kind{
	name: "snapshot", plural: "Snapshots",
	has:     func(p provider.Provider) bool { return has[provider.Snapshots](p) && has[provider.Volumes](p) },
	prepare: func(s *suite) string { return s.volume(s.Launch.Placement).ID },
	create: func(ctx context.Context, p provider.Provider, _ *suite, from string, r request) (item, error) {
		x, err := as[provider.Snapshots](p).CreateSnapshot(ctx,
			provider.SnapshotSpec{Token: r.token, Name: r.name, Volume: from, Tags: r.tags})
		return snapshotItem(x), err
	},
	list: func(ctx context.Context, p provider.Provider, tags map[string]string) ([]item, error) {
		list, err := as[provider.Snapshots](p).Snapshots(ctx, tags)
		return items(list, err, snapshotItem)
	},
	end: func(ctx context.Context, p provider.Provider, id string) error {
		return as[provider.Snapshots](p).DeleteSnapshot(ctx, id)
	},
}

func addressItem(a provider.Address) item { return item{id: a.ID, tags: a.Tags} }

var addresses = kind{
	name: "address", plural: "Addresses",
	has: has[provider.Addresses],
	create: func(ctx context.Context, p provider.Provider, s *suite, _ string, r request) (item, error) {
		a := s.Address
		a.Token, a.Name, a.Tags = r.token, r.name, r.tags
		got, err := as[provider.Addresses](p).AllocateAddress(ctx, a)
		return addressItem(got), err
	},
	list: func(ctx context.Context, p provider.Provider, tags map[string]string) ([]item, error) {
		list, err := as[provider.Addresses](p).Addresses(ctx, tags)
		return items(list, err, addressItem)
	},
	end: func(ctx context.Context, p provider.Provider, id string) error {
		return as[provider.Addresses](p).ReleaseAddress(ctx, id)
	},
}

func balancerItem(b provider.Balancer) item { return item{id: b.ID, tags: b.Tags} }

var balancers = kind{
	name: "balancer", plural: "Balancers",
	has: has[provider.Balancers],
	create: func(ctx context.Context, p provider.Provider, s *suite, _ string, r request) (item, error) {
		b := s.Balancer
		b.Token, b.Name, b.Tags = r.token, r.name, r.tags
		got, err := as[provider.Balancers](p).CreateBalancer(ctx, b)
		return balancerItem(got), err
	},
	list: func(ctx context.Context, p provider.Provider, tags map[string]string) ([]item, error) {
		list, err := as[provider.Balancers](p).Balancers(ctx, tags)
		return items(list, err, balancerItem)
	},
	end: func(ctx context.Context, p provider.Provider, id string) error {
		return as[provider.Balancers](p).DeleteBalancer(ctx, id)
	},
}

func imageItem(i provider.Image) item { return item{id: i.ID, tags: i.Tags} }

var images = kind{
	name: "image", plural: "Images",
	has:     has[provider.Images],
	prepare: func(s *suite) string { return s.running().ID },
	create: func(ctx context.Context, p provider.Provider, _ *suite, from string, r request) (item, error) {
		i, err := as[provider.Images](p).CreateImage(ctx, provider.ImageSpec{Token: r.token, Name: r.name, Instance: from, Tags: r.tags})
		return imageItem(i), err
	},
	list: func(ctx context.Context, p provider.Provider, tags map[string]string) ([]item, error) {
		list, err := as[provider.Images](p).Images(ctx, tags)
		return items(list, err, imageItem)
	},
	end: func(ctx context.Context, p provider.Provider, id string) error {
		return as[provider.Images](p).DeleteImage(ctx, id)
	},
}
