package memcloud

import (
	"context"
	"maps"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// CreateImage implements provider.Images. A token whose image was deleted makes a new one.
func (c *Cloud) CreateImage(ctx context.Context, s provider.ImageSpec) (provider.Image, error) {
	var i provider.Image
	err := c.call(ctx, Call{Method: "CreateImage", ID: s.Token}, func(now time.Time) (err error) {
		i, err = c.createImage(now, s, true)
		return err
	})
	if err != nil {
		return provider.Image{}, err
	}
	i.Tags = maps.Clone(i.Tags)
	return i, nil
}

func (c *Cloud) createImage(now time.Time, s provider.ImageSpec, enforce bool) (provider.Image, error) {
	if err := s.Check(); err != nil {
		return provider.Image{}, err
	}
	if x, err := c.images.repeat(s.Token, s); err != nil {
		return provider.Image{}, err
	} else if x != nil {
		return *x.at(now), nil
	}
	if _, err := c.usable(now, "CreateImage", s.Token, s.Instance); err != nil {
		return provider.Image{}, err
	}
	if err := over("CreateImage", s.Token, "images", c.quota.Images, c.images.count); err != nil && enforce {
		return provider.Image{}, err
	}
	s.Tags = maps.Clone(s.Tags)
	x := c.images.add(s.Token, s, s.Tags)
	i := provider.Image{ID: x.id, Name: s.Name, Created: now, Tags: x.tags}
	x.become(now, 0, i)
	i.Ready = true
	x.later(now.Add(c.opts.ReadyTime), i)
	c.change(now, x.id, x.tags)
	return *x.at(now), nil
}

// Images implements provider.Images.
func (c *Cloud) Images(ctx context.Context, tags map[string]string) ([]provider.Image, error) {
	var list []provider.Image
	err := c.call(ctx, Call{Method: "Images"}, func(now time.Time) error {
		list = c.images.list(now.Add(-c.opts.ListLag), tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Tags = maps.Clone(list[i].Tags)
	}
	return list, nil
}

// DeleteImage implements provider.Images.
func (c *Cloud) DeleteImage(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "DeleteImage", ID: id}, func(now time.Time) error {
		if x, _ := c.images.get(now, id); x != nil {
			c.images.remove(now, x)
			c.change(now, id, x.tags)
		}
		return nil
	})
}
