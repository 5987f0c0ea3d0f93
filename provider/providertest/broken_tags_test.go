package providertest

import (
	"context"
	"errors"

	"github.com/scalr-go/scalr/provider"
)

// onlyTags shows of an instance that was tagged no more than what it was tagged with last, and the case's own.
type onlyTags struct{ cloud }

func (p onlyTags) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	list, err := p.cloud.Instances(ctx, tags)
	for i := range list {
		if _, is := list[i].Tags["scalr-test-more"]; is {
			for k := range list[i].Tags {
				if k != "scalr-test-more" && k != "scalr-test-stage" {
					delete(list[i].Tags, k)
				}
			}
		}
	}
	return list, err
}

// oldTags lists instances by the tags of their launch too.
type oldTags struct {
	cloud
	was map[string]string
}

func (p *oldTags) TagInstance(ctx context.Context, id string, tags map[string]string) error {
	p.was = map[string]string{id: "new"}
	return p.cloud.TagInstance(ctx, id, tags)
}

func (p *oldTags) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	list, err := p.cloud.Instances(ctx, tags)
	if tags["scalr-test-stage"] != "new" || err != nil {
		return list, err
	}
	all, err := p.cloud.Instances(ctx, nil)
	for _, i := range all {
		if p.was[i.ID] != "" {
			list = append(list, i)
		}
	}
	return list, err
}

type tagAll struct{ cloud }

func (p tagAll) TagInstance(ctx context.Context, id string, tags map[string]string) error {
	err := p.cloud.TagInstance(ctx, id, tags)
	if errors.Is(err, provider.ErrNotFound) {
		return nil
	}
	return err
}
