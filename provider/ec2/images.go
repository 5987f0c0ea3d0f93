package ec2

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/scalr-go/scalr/provider"
)

// imagePrefix begins the names of images to EC2, which must be unique; the token follows. provider.Image.Name is a tag.
const imagePrefix = "scalr-"

// CreateImage implements provider.Images, without a reboot. It is idempotent by the image's name.
func (c *Cloud) CreateImage(ctx context.Context, s provider.ImageSpec) (provider.Image, error) {
	const op = "CreateImage"
	if err := s.Check(); err != nil {
		return provider.Image{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Image{}, err
	}
	if err := ended(ctx, op, s.Token); err != nil {
		return provider.Image{}, err
	}
	list := specification(types.ResourceTypeImage, mark(s.Token, s.Name, s.Tags, s))
	name := imagePrefix + s.Token
	out, err := c.ec2.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: aws.String(s.Instance), Name: aws.String(name),
		NoReboot: aws.Bool(true), TagSpecifications: list})
	switch code := codeOf(err); {
	case code == "InvalidAMIName.Duplicate":
		return c.imageNamed(ctx, s, name)
	case isGone(err), code == "IncorrectInstanceState", code == "IncorrectState":
		return provider.Image{}, c.refused(ctx, op, s.Instance, err)
	case err != nil:
		return provider.Image{}, c.fail(ctx, op, s.Token, changes, err)
	}
	c.memory.note(aws.ToString(out.ImageId))
	x, _ := image(&types.Image{ImageId: out.ImageId, Tags: list[0].Tags})
	x.Created = time.Now()
	return x, nil
}

// imageNamed is the image that an earlier call with the token has made.
func (c *Cloud) imageNamed(ctx context.Context, s provider.ImageSpec, name string) (x provider.Image, err error) {
	const op = "CreateImage"
	var there labels
	found := false
	err = c.describeImages(ctx, []types.Filter{filter("name", name)}, func(i *types.Image) {
		x, there = image(i)
		found = true
	})
	switch {
	case err != nil:
		return provider.Image{}, c.fail(ctx, op, s.Token, reads, err)
	case !found:
		return provider.Image{}, provider.Errorf(op, s.Token, nil, "there is an image named %s, which EC2 does not show yet", name)
	}
	return x, check(op, s.Token, there, s)
}

// Images implements provider.Images. It lists the account's own.
func (c *Cloud) Images(ctx context.Context, tags map[string]string) ([]provider.Image, error) {
	const op = "Images"
	if err := ended(ctx, op, ""); err != nil {
		return nil, err
	}
	var list []provider.Image
	err := c.describeImages(ctx, filters(tags), func(i *types.Image) {
		if x, _ := image(i); provider.Matches(x.Tags, tags) {
			list = append(list, x)
		}
	})
	if err != nil {
		return nil, c.fail(ctx, op, "", reads, err)
	}
	slices.SortFunc(list, func(a, b provider.Image) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

func (c *Cloud) describeImages(ctx context.Context, f []types.Filter, see func(*types.Image)) error {
	pages := ec2.NewDescribeImagesPaginator(c.ec2, &ec2.DescribeImagesInput{Filters: f, Owners: []string{"self"}, MaxResults: aws.Int32(page)})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for i := range p.Images {
			if p.Images[i].State != types.ImageStateDeregistered {
				see(&p.Images[i])
			}
		}
	}
	return nil
}

func image(i *types.Image) (provider.Image, labels) {
	l := read(i.Tags)
	x := provider.Image{ID: aws.ToString(i.ImageId), Name: l.name, Ready: i.State == types.ImageStateAvailable, Tags: l.tags}
	if l.name == "" {
		x.Name = aws.ToString(i.Name)
	}
	x.Created, _ = time.Parse(time.RFC3339, aws.ToString(i.CreationDate))
	return x, l
}

// DeleteImage implements provider.Images.
func (c *Cloud) DeleteImage(ctx context.Context, id string) error {
	const op = "DeleteImage"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	_, err := c.ec2.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: aws.String(id), DeleteAssociatedSnapshots: aws.Bool(true)})
	if isGone(err) {
		if _, young := c.memory.young(id); young && codeOf(err) != "InvalidAMIID.Unavailable" {
			return c.missing(op, id, id)
		}
		return nil
	}
	if err == nil {
		c.memory.forget(id)
	}
	return c.fail(ctx, op, id, changes, err)
}
