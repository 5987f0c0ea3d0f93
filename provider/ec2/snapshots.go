package ec2

import (
	"cmp"
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/scalr-go/scalr/provider"
)

// oldSnapshot is a snapshot and the request that made it.
type oldSnapshot struct {
	provider.Snapshot
	labels labels
}

// CreateSnapshot implements provider.Snapshots. EC2 has no client token for it: see the package's doc.
func (c *Cloud) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	const op = "CreateSnapshot"
	if err := s.Check(); err != nil {
		return provider.Snapshot{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Snapshot{}, err
	}
	if err := ended(ctx, op, s.Token); err != nil {
		return provider.Snapshot{}, err
	}
	find := func() (list []oldSnapshot, err error) {
		err = c.describeSnapshots(ctx, filters(map[string]string{TagToken: s.Token}), func(x *types.Snapshot) {
			if p, l := snapshot(x); l.token == s.Token {
				list = append(list, oldSnapshot{p, l})
			}
		})
		slices.SortFunc(list, func(a, b oldSnapshot) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
		})
		return list, c.fail(ctx, op, s.Token, reads, err)
	}
	x, err := create(ctx, c, op, s.Token, func(x oldSnapshot) string { return x.ID }, find, func() (oldSnapshot, error) {
		out, err := c.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: aws.String(s.Volume),
			TagSpecifications: specification(types.ResourceTypeSnapshot, mark(s.Token, s.Name, s.Tags, s))}, once)
		if isGone(err) {
			return oldSnapshot{}, c.missing(op, s.Token, s.Volume)
		}
		if err != nil {
			return oldSnapshot{}, c.fail(ctx, op, s.Token, changes, err)
		}
		p, l := snapshot(&types.Snapshot{SnapshotId: out.SnapshotId, VolumeId: out.VolumeId, VolumeSize: out.VolumeSize, State: out.State,
			StartTime: out.StartTime, Tags: out.Tags})
		return oldSnapshot{p, l}, nil
	})
	if err != nil {
		return provider.Snapshot{}, err
	}
	x.Tags = copied(x.Tags)
	return x.Snapshot, check(op, s.Token, x.labels, s)
}

// Snapshots implements provider.Snapshots.
func (c *Cloud) Snapshots(ctx context.Context, tags map[string]string) ([]provider.Snapshot, error) {
	const op = "Snapshots"
	if err := ended(ctx, op, ""); err != nil {
		return nil, err
	}
	var list []provider.Snapshot
	err := c.describeSnapshots(ctx, filters(tags), func(s *types.Snapshot) {
		if x, _ := snapshot(s); provider.Matches(x.Tags, tags) {
			list = append(list, x)
		}
	})
	if err != nil {
		return nil, c.fail(ctx, op, "", reads, err)
	}
	slices.SortFunc(list, func(a, b provider.Snapshot) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// describeSnapshots shows the account's own that match the filters: there are many thousands of other people's.
func (c *Cloud) describeSnapshots(ctx context.Context, f []types.Filter, see func(*types.Snapshot)) error {
	pages := ec2.NewDescribeSnapshotsPaginator(c.ec2, &ec2.DescribeSnapshotsInput{Filters: f, OwnerIds: []string{"self"}, MaxResults: aws.Int32(page)})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for i := range p.Snapshots {
			see(&p.Snapshots[i])
		}
	}
	return nil
}

func snapshot(s *types.Snapshot) (provider.Snapshot, labels) {
	l := read(s.Tags)
	return provider.Snapshot{ID: aws.ToString(s.SnapshotId), Name: l.name, Volume: aws.ToString(s.VolumeId), SizeGB: int(aws.ToInt32(s.VolumeSize)),
		Ready: s.State == types.SnapshotStateCompleted, Failed: s.State == types.SnapshotStateError, Reason: aws.ToString(s.StateMessage),
		Created: aws.ToTime(s.StartTime), Tags: l.tags}, l
}

// DeleteSnapshot implements provider.Snapshots. The snapshot of an image cannot be deleted: ErrInvalid.
func (c *Cloud) DeleteSnapshot(ctx context.Context, id string) error {
	const op = "DeleteSnapshot"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	_, err := c.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)})
	if isGone(err) {
		if _, young := c.memory.young(id); young {
			return c.missing(op, id, id)
		}
		return nil
	}
	if err == nil {
		c.memory.forget(id)
	}
	return c.fail(ctx, op, id, changes, err)
}
