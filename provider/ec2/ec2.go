// Package ec2 is a provider of Amazon EC2: instances, EBS volumes and snapshots, Elastic IP addresses, images, and load
// balancers (ELBv2). One [Cloud] is one account in one region; an availability zone is a placement:
//
//	cloud, err := ec2.New(ctx, ec2.Options{Region: "eu-central-1"})
//	…
//	i, err := cloud.Launch(ctx, provider.Launch{Token: "web-1-a", Image: "ami-0123456789abcdef0", Size: "m7g.large",
//		Placement: "eu-central-1a"})
//
// # Credentials
//
// They come from the default chain of the AWS SDK: environment, shared files, SSO, the instance's or the container's role.
// They are never printed.
//
// # Calling once
//
// EC2 has client tokens for instances and volumes; load balancers and images have a name that is unique, and is made of
// the token. Snapshots and addresses have neither: they are looked for by their tags before they are created, calls with
// one token wait for each other within one Cloud, and after a call of unknown outcome the next one waits for
// Options.ListLag before it takes absence for a fact. Two processes that create one snapshot at the same moment make two
// of it; both bear the tags.
//
// Everything bears two tags beside the caller's and Name: [TagToken], and [TagRequest], which tells apart the requests
// that came with one token. Neither is shown in Tags.
//
// # Failing
//
// EC2 answers some calls about what it has just made with NotFound. For Options.ListLag after its creation by this Cloud,
// that is an error of no kind here, never success and never ErrNotFound.
//
// Requests are tried again, three times in all, by one retryer for each service, which all calls of the Cloud share: it bounds
// the retries, and lets everybody pause when one call is throttled. So let the pools of a region share one Cloud. What has no
// capacity is never tried again, though EC2 answers so with a status of 500.
//
// # What is peculiar
//
//   - Instances require session tokens for their metadata (IMDSv2).
//   - Volumes cannot be attached at launch: the launch checks that they are in the same placement, and the caller
//     attaches them when the instance runs. They are encrypted, with the account's default key, and gp3 if no type is given.
//     Volume.Device is the name that was asked for; on Nitro instances Linux has the disk as
//     /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol… with the volume's ID without its hyphen.
//   - Spot instances are one-time requests: they cannot be stopped, only terminated. [Cloud.Doomed] tells which of them EC2 is
//     about to take back: give it to farm.Config.Doomed.
//   - An image is made without a reboot: it is as after a loss of power. Deleting it deletes its snapshots.
//   - A balancer for http is an Application Load Balancer, for which EC2 wants subnets in two zones, one for tcp a Network
//     Load Balancer. The former has no check of a mere port: without a HealthPath any answer to GET / below 500 will do.
//   - Security groups are the caller's to make.
package ec2

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"github.com/scalr-go/scalr/provider"
)

// Options say which account and region a Cloud is, and what a launch gets that does not say.
type Options struct {
	// Config is the SDK's configuration. Nil loads the default one: environment, shared files, roles. Its retryer is not
	// used.
	Config *aws.Config
	// Region is the region; empty takes the one of the configuration (AWS_REGION, the profile's).
	Region string
	// Subnets are the subnets to be in, by availability zone. Empty takes the default ones of the zones, which only the
	// account's default VPC has.
	Subnets map[string]string
	// SecurityGroups are for launches that name none; empty takes the VPC's default group. BalancerSecurityGroups are for
	// load balancers.
	SecurityGroups, BalancerSecurityGroups []string
	// Size is the instance type of launches that give none; empty takes EC2's default.
	Size string
	// InstanceProfile is the name of the IAM instance profile that every instance gets; empty gives none.
	InstanceProfile string
	// ListLag is how late EC2 may be in showing what was created; default 15 s.
	ListLag time.Duration
}

// Cloud is a provider of one account in one region. Its methods are safe for concurrent use.
type Cloud struct {
	opts     Options
	ec2      *ec2.Client
	elb      *elb.Client
	retryers []*retryer
	memory   memory

	mu     sync.Mutex
	groups map[string]string // target groups by balancer
}

var (
	_ provider.Provider  = (*Cloud)(nil)
	_ provider.Volumes   = (*Cloud)(nil)
	_ provider.Snapshots = (*Cloud)(nil)
	_ provider.Addresses = (*Cloud)(nil)
	_ provider.Balancers = (*Cloud)(nil)
	_ provider.Images    = (*Cloud)(nil)
	_ provider.Power     = (*Cloud)(nil)
	_ provider.Tagger    = (*Cloud)(nil)
)

// New returns the Cloud of an account and region. It reads the SDK's configuration, and calls neither EC2 nor whoever
// gives credentials.
func New(ctx context.Context, o Options) (*Cloud, error) {
	var conf aws.Config
	if o.Config != nil {
		conf = o.Config.Copy()
	} else {
		var err error
		if conf, err = config.LoadDefaultConfig(ctx); err != nil {
			return nil, fmt.Errorf("ec2: the SDK's configuration: %w", err)
		}
	}
	if o.Region != "" {
		conf.Region = o.Region
	}
	if o.ListLag == 0 {
		o.ListLag = 15 * time.Second
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ec2: "+format, args...)) }
	if conf.Region == "" {
		bad("Options.Region is empty, and the configuration has none (AWS_REGION, or a profile's)")
	} else if !isRegion(conf.Region) {
		bad("Options.Region is %q, want a region like eu-central-1", conf.Region)
	}
	if o.ListLag < 0 {
		bad("Options.ListLag is %s, want at least 0", o.ListLag)
	}
	for _, zone := range slices.Sorted(maps.Keys(o.Subnets)) {
		if zone == "" || o.Subnets[zone] == "" {
			bad("Options.Subnets has %q: %q, want an availability zone and a subnet's ID", zone, o.Subnets[zone])
		}
	}
	if conf.Credentials == nil {
		bad("Options.Config has no Credentials")
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	conf.Credentials = credentials{conf.Credentials}
	o.Config, o.Region, o.Subnets = nil, conf.Region, maps.Clone(o.Subnets)
	o.SecurityGroups = slices.Clone(o.SecurityGroups)
	o.BalancerSecurityGroups = slices.Clone(o.BalancerSecurityGroups)
	forEC2, forELB := newRetryer(), newRetryer()
	return &Cloud{
		opts:     o,
		ec2:      ec2.NewFromConfig(conf, func(o *ec2.Options) { o.Retryer = forEC2 }),
		elb:      elb.NewFromConfig(conf, func(o *elb.Options) { o.Retryer = forELB }),
		retryers: []*retryer{forEC2, forELB},
		memory:   memory{lag: o.ListLag, tokens: map[string]*token{}, made: map[string]time.Time{}},
		groups:   map[string]string{},
	}, nil
}

// Region is the region.
func (c *Cloud) Region() string { return c.opts.Region }

// isRegion reports whether a name has the form of a region: words of letters and digits with hyphens between, the last
// of them a number.
func isRegion(s string) bool {
	hyphens := 0
	for i, r := range []byte(s) {
		switch {
		case r == '-' && i > 0 && s[i-1] != '-':
			hyphens++
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
		default:
			return false
		}
	}
	return hyphens >= 2 && s[len(s)-1] >= '0' && s[len(s)-1] <= '9'
}

// until looks again and again, less and less often, until it sees what it should, or the context ends.
func until(ctx context.Context, look func() (bool, error)) error {
	for wait := 200 * time.Millisecond; ; wait = min(wait*3/2, 5*time.Second) {
		if done, err := look(); done || err != nil {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// within is until for what is shown after Options.ListLag at the latest, if at all.
func (c *Cloud) within(ctx context.Context, look func() (bool, error)) error {
	end := time.Now().Add(c.opts.ListLag)
	return until(ctx, func() (bool, error) {
		late := time.Now().After(end)
		done, err := look()
		return done || late, err
	})
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
