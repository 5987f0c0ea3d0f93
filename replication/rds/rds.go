// Package rds runs a replicated database on Amazon RDS: it creates the primary and its replicas, promotes, reboots, takes
// snapshots and restores them, and shows the set as a replication.Topology, which is what the application's side follows.
//
// # Why it is no replication.Engine
//
// An Engine works on servers that are its own to command, in milliseconds. RDS gives no such servers:
//
//   - There is no way to fence one or to end its sessions but over SQL, and one that has replicas cannot be stopped.
//   - Promoting a replica breaks its replication for good, and takes minutes. No replica can be pointed to another
//     source: the others must be created anew from the new primary ([Cloud.CreateReplica]).
//   - Positions are not shown, so that nobody can say which replica is ahead, or what a promotion loses.
//
// So a replication.Manager has no place here. What it does for servers of one's own, MultiAZ does within RDS: a standby that
// receives every acknowledged transaction takes over, and the host name stays. Replicas are for reads, and promotion is
// for when a region's standby is no help: a decision for people or for a program of theirs, since it may lose what had not
// reached the replica yet.
//
// # Calling once
//
// An instance or a snapshot has a name, chosen by the caller and unique in its account and region. Creating one that exists
// meets it, if it has the same tags; ending what is gone is no error. So every call may be made again after a lost reply.
package rds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"

	"github.com/scalr-go/scalr/replication"
)

// Errors that callers branch on. The RDS error itself is wrapped, too.
var (
	// ErrNotFound: there is no such instance or snapshot.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name belongs to something with other tags.
	ErrExists = errors.New("the name is taken")
	// ErrQuota: the account may not have more. ErrCapacity: the zone has none of this class now.
	ErrQuota    = errors.New("quota exceeded")
	ErrCapacity = errors.New("no capacity")
	// ErrInvalid: the request can never succeed as it is.
	ErrInvalid = errors.New("invalid")
)

// Options say which account and region a Cloud is.
type Options struct {
	// Config is the SDK's configuration; nil loads the default one.
	Config *aws.Config
	// Region is the region; empty takes the configuration's.
	Region string
}

// Cloud is the databases of one account in one region. Its methods are safe for concurrent use.
type Cloud struct{ rds *rds.Client }

// New returns a Cloud. It makes no calls.
func New(ctx context.Context, o Options) (*Cloud, error) {
	var conf aws.Config
	if o.Config != nil {
		conf = o.Config.Copy()
	} else {
		var err error
		if conf, err = config.LoadDefaultConfig(ctx); err != nil {
			return nil, fmt.Errorf("rds: the SDK's configuration: %w", err)
		}
	}
	if o.Region != "" {
		conf.Region = o.Region
	}
	if conf.Region == "" {
		return nil, errors.New("rds: Options.Region is empty, and the configuration has none (AWS_REGION, or a profile's)")
	}
	return &Cloud{rds.NewFromConfig(conf)}, nil
}

// Instance is one database instance.
type Instance struct {
	ID       string
	Status   string // in RDS's words: "available", "creating", "modifying", …
	Ready    bool   // it is available
	Addr     string // host:port; empty until there is one
	Zone     string
	Source   string   // the instance that it replicates; empty for a primary
	Replicas []string // sorted
	MultiAZ  bool
	Trouble  string // why it does not replicate; empty if it does, or is a primary
	Tags     map[string]string
}

// Snapshot is a copy of an instance.
type Snapshot struct {
	ID, Instance string
	Ready        bool
	Created      time.Time
	Tags         map[string]string
}

// Create makes a primary, and returns it as soon as RDS has taken the request.
func (c *Cloud) Create(ctx context.Context, s Spec) (Instance, error) {
	if err := s.Check(); err != nil {
		return Instance{}, err
	}
	in := &rds.CreateDBInstanceInput{DBInstanceIdentifier: aws.String(s.ID), Engine: aws.String(s.Engine), DBInstanceClass: aws.String(s.Class),
		AllocatedStorage: aws.Int32(int32(min(s.SizeGB, 1<<20))), MasterUsername: aws.String(s.User), MultiAZ: aws.Bool(s.MultiAZ),
		BackupRetentionPeriod: aws.Int32(int32(cmp.Or(s.BackupDays, 7))), StorageEncrypted: aws.Bool(true), PubliclyAccessible: aws.Bool(false),
		VpcSecurityGroupIds: s.SecurityGroups, EngineVersion: optional(s.Version), DBName: optional(s.Database),
		DBSubnetGroupName: optional(s.SubnetGroup), Tags: tagged(s.Tags)}
	if s.Password == "" {
		in.ManageMasterUserPassword = aws.Bool(true)
	} else {
		in.MasterUserPassword = aws.String(string(s.Password))
	}
	out, err := c.rds.CreateDBInstance(ctx, in)
	if err != nil {
		return c.met(ctx, "create", s.ID, "", s.Tags, err)
	}
	return instance(out.DBInstance), nil
}

// CreateReplica makes a replica of a primary that is available and keeps backups.
func (c *Cloud) CreateReplica(ctx context.Context, id, source string, tags map[string]string) (Instance, error) {
	if err := cmp.Or(checkID("id", id), checkID("source", source)); err != nil {
		return Instance{}, err
	}
	out, err := c.rds.CreateDBInstanceReadReplica(ctx, &rds.CreateDBInstanceReadReplicaInput{DBInstanceIdentifier: aws.String(id),
		SourceDBInstanceIdentifier: aws.String(source), PubliclyAccessible: aws.Bool(false), Tags: tagged(tags)})
	if err != nil {
		return c.met(ctx, "create replica", id, source, tags, err)
	}
	return instance(out.DBInstance), nil
}

// Restore makes a new instance from a snapshot.
func (c *Cloud) Restore(ctx context.Context, id, snapshot string, tags map[string]string) (Instance, error) {
	if err := checkID("id", id); err != nil {
		return Instance{}, err
	}
	out, err := c.rds.RestoreDBInstanceFromDBSnapshot(ctx, &rds.RestoreDBInstanceFromDBSnapshotInput{DBInstanceIdentifier: aws.String(id),
		DBSnapshotIdentifier: aws.String(snapshot), PubliclyAccessible: aws.Bool(false), Tags: tagged(tags)})
	if err != nil {
		return c.met(ctx, "restore", id, "", tags, err)
	}
	return instance(out.DBInstance), nil
}

// met is the instance that a creation has met because it exists, or the creation's error.
func (c *Cloud) met(ctx context.Context, op, id, source string, tags map[string]string, err error) (Instance, error) {
	if code(err) != "DBInstanceAlreadyExists" {
		return Instance{}, fail(op, id, err)
	}
	i, lookErr := c.Instance(ctx, id)
	if lookErr != nil {
		return Instance{}, lookErr
	}
	if !maps.Equal(i.Tags, tags) || i.Source != source {
		return Instance{}, fmt.Errorf("rds: %s %s: %w: it has tags %v and source %q", op, id, ErrExists, i.Tags, i.Source)
	}
	return i, nil
}

// Promote makes a replica a primary of its own, which takes minutes: see Wait. Nil for a primary. What had not reached the
// replica is lost to it, and its siblings go on following the old primary.
func (c *Cloud) Promote(ctx context.Context, id string) error {
	i, err := c.Instance(ctx, id)
	if err != nil || i.Source == "" {
		return err
	}
	_, err = c.rds.PromoteReadReplica(ctx, &rds.PromoteReadReplicaInput{DBInstanceIdentifier: aws.String(id)})
	return fail("promote", id, err)
}

// Reboot restarts an instance, with failover on its standby, which only one with MultiAZ has.
func (c *Cloud) Reboot(ctx context.Context, id string, failover bool) error {
	in := &rds.RebootDBInstanceInput{DBInstanceIdentifier: aws.String(id)}
	if failover {
		in.ForceFailover = aws.Bool(true)
	}
	_, err := c.rds.RebootDBInstance(ctx, in)
	return fail("reboot", id, err)
}

// Delete ends an instance and its automatic backups; with a snapshot's name, after taking that. Nil if it is gone. Replicas
// of a primary that is deleted become primaries.
func (c *Cloud) Delete(ctx context.Context, id, snapshot string) error {
	_, err := c.rds.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String(id),
		SkipFinalSnapshot: aws.Bool(snapshot == ""), FinalDBSnapshotIdentifier: optional(snapshot)})
	err = fail("delete", id, err)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if code(err) == "InvalidDBInstanceState" {
		if i, lookErr := c.Instance(ctx, id); errors.Is(lookErr, ErrNotFound) || lookErr == nil && i.Status == "deleting" {
			return nil
		}
	}
	return err
}

// CreateSnapshot takes a snapshot of an instance.
func (c *Cloud) CreateSnapshot(ctx context.Context, snapshot, id string, tags map[string]string) (Snapshot, error) {
	if err := checkID("snapshot", snapshot); err != nil {
		return Snapshot{}, err
	}
	out, err := c.rds.CreateDBSnapshot(ctx, &rds.CreateDBSnapshotInput{DBSnapshotIdentifier: aws.String(snapshot), DBInstanceIdentifier: aws.String(id),
		Tags: tagged(tags)})
	if code(err) == "DBSnapshotAlreadyExists" {
		there, err := c.rds.DescribeDBSnapshots(ctx, &rds.DescribeDBSnapshotsInput{DBSnapshotIdentifier: aws.String(snapshot)})
		if err != nil || len(there.DBSnapshots) == 0 {
			return Snapshot{}, cmp.Or(fail("snapshot", snapshot, err), fmt.Errorf("rds: snapshot %s: %w", snapshot, ErrNotFound))
		}
		x := snapshotOf(&there.DBSnapshots[0])
		if x.Instance != id || !maps.Equal(x.Tags, tags) {
			return Snapshot{}, fmt.Errorf("rds: snapshot %s: %w: it is of %s, with tags %v", snapshot, ErrExists, x.Instance, x.Tags)
		}
		return x, nil
	}
	if err != nil {
		return Snapshot{}, fail("snapshot", snapshot, err)
	}
	return snapshotOf(out.DBSnapshot), nil
}

// DeleteSnapshot deletes a snapshot. Nil if it is gone.
func (c *Cloud) DeleteSnapshot(ctx context.Context, snapshot string) error {
	_, err := c.rds.DeleteDBSnapshot(ctx, &rds.DeleteDBSnapshotInput{DBSnapshotIdentifier: aws.String(snapshot)})
	if err = fail("delete snapshot", snapshot, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Snapshots lists the snapshots that were asked for and bear all of the tags, sorted by name.
func (c *Cloud) Snapshots(ctx context.Context, tags map[string]string) (list []Snapshot, err error) {
	pages := rds.NewDescribeDBSnapshotsPaginator(c.rds, &rds.DescribeDBSnapshotsInput{SnapshotType: aws.String("manual")})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fail("list snapshots", "", err)
		}
		for i := range p.DBSnapshots {
			if x := snapshotOf(&p.DBSnapshots[i]); matches(x.Tags, tags) {
				list = append(list, x)
			}
		}
	}
	slices.SortFunc(list, func(a, b Snapshot) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Instance finds one instance.
func (c *Cloud) Instance(ctx context.Context, id string) (Instance, error) {
	out, err := c.rds.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: aws.String(id)})
	if err != nil {
		return Instance{}, fail("describe", id, err)
	}
	if len(out.DBInstances) == 0 {
		return Instance{}, fmt.Errorf("rds: describe %s: %w", id, ErrNotFound)
	}
	return instance(&out.DBInstances[0]), nil
}

// Instances lists the instances that bear all of the tags, sorted by name. RDS filters by no tags: it lists all, a hundred
// a call.
func (c *Cloud) Instances(ctx context.Context, tags map[string]string) (list []Instance, err error) {
	pages := rds.NewDescribeDBInstancesPaginator(c.rds, &rds.DescribeDBInstancesInput{})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fail("list", "", err)
		}
		for i := range p.DBInstances {
			if x := instance(&p.DBInstances[i]); matches(x.Tags, tags) {
				list = append(list, x)
			}
		}
	}
	slices.SortFunc(list, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Wait waits until an instance is available, as long as the context lets it.
func (c *Cloud) Wait(ctx context.Context, id string) (Instance, error) {
	for wait := time.Second; ; wait = min(wait*3/2, 30*time.Second) {
		i, err := c.Instance(ctx, id)
		if err != nil || i.Ready {
			return i, err
		}
		select {
		case <-ctx.Done():
			return i, fmt.Errorf("rds: waiting for %s, which is %s: %w", id, i.Status, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// Topology shows the instances that bear the tags as a set: the primary and its replicas. Where several are primaries, as
// after a promotion, the one with most replicas is it, and the others are held. Positions and lags are not shown by RDS's
// interface.
func (c *Cloud) Topology(ctx context.Context, tags map[string]string) (replication.Topology, error) {
	list, err := c.Instances(ctx, tags)
	if err != nil {
		return replication.Topology{}, err
	}
	return topology(list), nil
}

func topology(list []Instance) (t replication.Topology) {
	most := -1
	for _, i := range list {
		if i.Source == "" && i.Status != "deleting" && len(i.Replicas) > most {
			t.Primary, most = i.ID, len(i.Replicas)
		}
	}
	for _, i := range list {
		m := replication.MemberState{Member: replication.Member{ID: i.ID, Addr: i.Addr, Machine: i.ID, Pool: i.Zone}, Role: replication.RoleDown,
			Serves: i.Ready && i.Trouble == "", Error: i.Trouble}
		switch {
		case i.ID == t.Primary:
			m.Role = replication.RolePrimary
		case i.Source == "":
			m.Role, m.Serves = replication.RoleQuarantined, false
			m.Error = "it is a primary of its own, promoted or restored: delete it, or point the application to it"
			t.Held = append(t.Held, i.ID+": "+m.Error)
		case i.Status == "creating":
			m.Role = replication.RoleSeeding
		case i.Source != t.Primary:
			m.Role, m.Serves, m.Error = replication.RoleJoining, false, "it follows "+i.Source
		case i.Ready:
			m.Role = replication.RoleReplica
		}
		t.Members = append(t.Members, m)
	}
	return t
}

func instance(d *types.DBInstance) Instance {
	i := Instance{ID: aws.ToString(d.DBInstanceIdentifier), Status: aws.ToString(d.DBInstanceStatus), Zone: aws.ToString(d.AvailabilityZone),
		Source: nameOf(aws.ToString(d.ReadReplicaSourceDBInstanceIdentifier)), MultiAZ: aws.ToBool(d.MultiAZ), Tags: untagged(d.TagList)}
	i.Ready = i.Status == "available"
	if e := d.Endpoint; e != nil && aws.ToString(e.Address) != "" {
		i.Addr = net.JoinHostPort(aws.ToString(e.Address), strconv.Itoa(int(aws.ToInt32(e.Port))))
	}
	for _, r := range d.ReadReplicaDBInstanceIdentifiers {
		i.Replicas = append(i.Replicas, nameOf(r))
	}
	slices.Sort(i.Replicas)
	for _, s := range d.StatusInfos {
		if aws.ToString(s.StatusType) == "read replication" && !aws.ToBool(s.Normal) {
			i.Trouble = strings.TrimSpace(aws.ToString(s.Status) + " " + aws.ToString(s.Message))
		}
	}
	return i
}

func snapshotOf(s *types.DBSnapshot) Snapshot {
	return Snapshot{ID: aws.ToString(s.DBSnapshotIdentifier), Instance: aws.ToString(s.DBInstanceIdentifier), Ready: aws.ToString(s.Status) == "available",
		Created: aws.ToTime(s.SnapshotCreateTime), Tags: untagged(s.TagList)}
}

// nameOf is the name in an ARN, which RDS gives for what is in another region, or the name itself.
func nameOf(s string) string { return s[strings.LastIndexByte(s, ':')+1:] }

func tagged(tags map[string]string) (list []types.Tag) {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return list
}

func untagged(list []types.Tag) map[string]string {
	m := make(map[string]string, len(list))
	for _, t := range list {
		if k := aws.ToString(t.Key); !strings.HasPrefix(k, "aws:") {
			m[k] = aws.ToString(t.Value)
		}
	}
	return m
}

func matches(tags, want map[string]string) bool {
	for k, v := range want {
		if got, ok := tags[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return aws.String(s)
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return strings.TrimSuffix(e.ErrorCode(), "Fault")
	}
	return ""
}

// fail says what was under way and of what kind the error is.
func fail(op, id string, err error) error {
	if err == nil {
		return nil
	}
	var kind error
	switch c := code(err); {
	case strings.HasSuffix(c, "NotFound"):
		kind = ErrNotFound
	case strings.HasSuffix(c, "QuotaExceeded"), strings.HasSuffix(c, "LimitExceeded") && c != "RequestLimitExceeded":
		kind = ErrQuota
	case c == "InsufficientDBInstanceCapacity", c == "InsufficientStorageClusterCapacity":
		kind = ErrCapacity
	case c == "AccessDenied", c == "AccessDeniedException", c == "AuthFailure", c == "InvalidClientTokenId", c == "SignatureDoesNotMatch", c == "ExpiredToken":
		kind = replication.ErrAccess
	case strings.HasPrefix(c, "InvalidParameter"), c == "ValidationError":
		kind = ErrInvalid
	}
	if kind != nil {
		return fmt.Errorf("rds: %s %s: %w: %w", op, id, kind, err)
	}
	return fmt.Errorf("rds: %s %s: %w", op, id, err)
}
