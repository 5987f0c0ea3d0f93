package openstack

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/scalr-go/scalr/provider"
)

// mostBusy is for how long CreateImage waits until Nova has ended what it does with the server.
const mostBusy = 2 * time.Minute

// picture is what the driver reads of an image.
type picture struct {
	ID, Name, Status string
	Created          time.Time
	Metadata         map[string]string // its properties that are text
}

// UnmarshalJSON reads the properties, which stand among the attributes.
func (p *picture) UnmarshalJSON(b []byte) error {
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	p.Metadata = map[string]string{}
	for k, v := range all {
		if s, ok := v.(string); ok {
			p.Metadata[k] = s
		}
	}
	p.ID, p.Name, p.Status = p.Metadata["id"], p.Metadata["name"], p.Metadata["status"]
	var err error
	p.Created, err = time.Parse(time.RFC3339, p.Metadata["created_at"])
	return err
}

// propertyOf is the name of the property that has a tag: apart from Glance's own attributes.
func propertyOf(key string) string { return own + "tag:" + key }

func (p *picture) image() provider.Image {
	i := provider.Image{ID: p.ID, Name: p.Name, Ready: p.Status == "active", Created: p.Created, Tags: map[string]string{}}
	mine := p.Metadata[keyKeys]
	for k, v := range p.Metadata {
		key, ok := strings.CutPrefix(k, propertyOf(""))
		if ok && slices.Contains(strings.Split(mine, ","), hash(5, key)) {
			i.Tags[key] = v
		}
	}
	return i
}

// pictures lists images by properties, the oldest first.
func (c *Cloud) pictures(ctx context.Context, want map[string]string) ([]picture, error) {
	q := url.Values{}
	for k, v := range want {
		q.Set(k, v)
	}
	all, err := list[picture](ctx, c.image, "images", q, "images")
	all = slices.DeleteFunc(all, func(p picture) bool {
		return slices.Contains([]string{"deleted", "pending_delete", "killed"}, p.Status) || !provider.Matches(p.Metadata, want)
	})
	slices.SortFunc(all, func(a, b picture) int { return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID)) })
	return all, err
}

// CreateImage makes an image of the server. Without a Name, it is called after its token.
func (c *Cloud) CreateImage(ctx context.Context, s provider.ImageSpec) (provider.Image, error) {
	const op = "CreateImage"
	if err := s.Check(); err != nil {
		return provider.Image{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Image{}, err
	}
	p, err := once(ctx, c, thing[picture]{op: op, token: s.Token,
		find: func(ctx context.Context) ([]picture, error) {
			return c.pictures(ctx, map[string]string{keyToken: s.Token})
		},
		drop: func(ctx context.Context, p picture) error { return c.deleteImage(ctx, p.ID) },
		post: func(ctx context.Context) error {
			m := map[string]string{keyToken: s.Token, keySpec: signature(s)}
			var keys []string
			for k, v := range s.Tags {
				m[propertyOf(k)] = v
				keys = append(keys, hash(5, k))
			}
			slices.Sort(keys)
			m[keyKeys] = strings.Join(keys, ",")
			// Nova refuses while it does something else with the server, another image among others.
			wait, cancel := context.WithTimeout(ctx, mostBusy)
			defer cancel()
			var said error
			_ = poll(wait, func() (bool, error) {
				said = servers.CreateImage(ctx, c.compute, url.PathEscape(s.Instance),
					servers.CreateImageOpts{Name: cmp.Or(s.Name, "scalr-"+s.Token), Metadata: m}).Err
				return !is(said, 409) || !strings.Contains(said.Error(), "task_state"), nil
			})
			return said
		},
	})
	if err == nil {
		err = sameSpec(op, p.ID, s, p.Metadata[keySpec])
	}
	if err != nil {
		return provider.Image{}, err
	}
	return p.image(), nil
}

// Images lists the images; nil tags list the public ones too.
func (c *Cloud) Images(ctx context.Context, tags map[string]string) ([]provider.Image, error) {
	const op = "Images"
	want := map[string]string{}
	for k, v := range tags {
		want[propertyOf(k)] = v
	}
	all, err := c.pictures(ctx, want)
	if err != nil {
		return nil, fail(ctx, op, "", err)
	}
	found := make([]provider.Image, 0, len(all))
	for i := range all {
		if x := all[i].image(); provider.Matches(x.Tags, tags) {
			found = append(found, x)
		}
	}
	slices.SortFunc(found, func(a, b provider.Image) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// DeleteImage deletes the image.
func (c *Cloud) DeleteImage(ctx context.Context, id string) error {
	return failed(ctx, "DeleteImage", id, c.deleteImage(ctx, id))
}

func (c *Cloud) deleteImage(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return ignore(images.Delete(ctx, c.image, url.PathEscape(id)).ExtractErr(), 404)
}
