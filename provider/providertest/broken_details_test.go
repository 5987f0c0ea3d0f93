package providertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// brokenDetails breaks what is easily overlooked.
var brokenDetails = []broken{
	{name: "the map in a reply is kept", by: "Instances/List", rule: "the map in a reply belongs to the caller",
		wrap: func(w *world) provider.Provider {
			return &replying{cloud: w.Cloud, tags: map[string]map[string]string{}}
		}},
	{name: "tokens are cut", by: "Instances/SameToken", rule: "another token makes another thing",
		wrap: func(w *world) provider.Provider { return cutting{w.Cloud} }},
	{name: "no tags are no instances", by: "Instances/List", rule: "nil tags list everything",
		wrap: func(w *world) provider.Provider { return tagged{w.Cloud} }},
	{name: "checks come last", by: "Instances/BadRequest", rule: "a refused call makes nothing",
		wrap: func(w *world) provider.Provider { return hasty{w.Cloud} }},
	{name: "errors do not name the field", by: "Instances/BadRequest", rule: "an ErrInvalid names the field",
		wrap: func(w *world) provider.Provider {
			return launchErr{w.Cloud, func(l provider.Launch, err error) error {
				return provider.Errorf("Launch", "", provider.ErrInvalid, "bad request")
			}}
		}},
	{name: "an unknown image is a passing fault", by: "Launch/UnknownNames", rule: "a launch of an unknown image is ErrInvalid or ErrNotFound",
		wrap: func(w *world) provider.Provider {
			return launchErr{w.Cloud, func(l provider.Launch, err error) error {
				if l.Image != "" && strings.Contains(err.Error(), "Image") {
					return provider.Errorf("Launch", l.Token, nil, "HTTP 500")
				}
				return err
			}}
		}},
	{name: "all have one address", by: "Launch/Run", rule: "no two instances have the same private address",
		wrap: func(w *world) provider.Provider {
			return each(w, func(i *provider.Instance) {
				if i.Private.IsValid() {
					i.Private = netip.MustParseAddr("10.0.0.9")
				}
			})
		}},
	{name: "a refused attach detaches", by: "Volumes/Attach", rule: "an attached volume cannot be deleted",
		wrap: func(w *world) provider.Provider { return dropping{w.Cloud} }},
	{name: "new volumes hold old data", by: "Volumes/Attach", rule: "a new volume is empty",
		tweak: func(_ *world, s *Subject) {
			read := s.Read
			s.Read = func(ctx context.Context, i provider.Instance, v provider.Volume) (string, error) {
				if data, err := read(ctx, i, v); data != "" || err != nil {
					return data, err
				}
				return "somebody else's", nil
			}
		}},
	{name: "volumes are smaller", by: "Volumes/Attach", rule: "a volume has the size that was asked for",
		wrap: func(w *world) provider.Provider {
			return eachVolume{w.Cloud, func(v *provider.Volume) { v.SizeGB = 0 }}
		}},
	{name: "volumes never get ready", by: "Volumes/Attach", rule: "a volume gets ready",
		wrap: func(w *world) provider.Provider {
			return eachVolume{w.Cloud, func(v *provider.Volume) { v.Ready = false }}
		}},
	{name: "volumes are in the first placement", by: "Volumes/OtherPlacement", rule: "a volume is in the placement that was asked for",
		wrap: func(w *world) provider.Provider { return firstPlacement{w.Cloud} }},
	{name: "launches do not look at volumes", by: "Volumes/OtherPlacement", rule: "a launch in another placement than its volume's is ErrInvalid",
		wrap: func(w *world) provider.Provider { return blind{w.Cloud} }},
	{name: "a snapshot is a live copy", by: "Snapshots/Restore", rule: "a snapshot stays as it is, whatever is done to volumes from it",
		tweak: func(w *world, s *Subject) { shareSnapshots(w, s) }},
	{name: "volumes go with their snapshot", by: "Snapshots/Restore", rule: "volumes from a deleted snapshot stay",
		wrap: func(w *world) provider.Provider { return &cascading{cloud: w.Cloud, made: map[string][]string{}} }},
	{name: "a snapshot needs its volume to be free", by: "Snapshots/Restore", rule: "a good request for one snapshot succeeds",
		wrap: func(w *world) provider.Provider { return offline{w.Cloud} }},
	{name: "snapshots have no time", by: "Snapshots/Restore", rule: "a listed snapshot says when it was taken",
		wrap: func(w *world) provider.Provider { return timeless{w.Cloud} }},
	{name: "a stolen address is still shown", by: "Addresses/Move", rule: "an instance shows an address no more that another one has",
		wrap: func(w *world) provider.Provider { return &remembering{cloud: w.Cloud} }},
	{name: "an associated address is not released", by: "Addresses/Move", rule: "an associated address can be released",
		wrap: func(w *world) provider.Provider { return busy{w.Cloud} }},
	{name: "a balancer takes its targets along", by: "Balancers/Targets", rule: "deleting a balancer leaves its targets as they are",
		wrap: func(w *world) provider.Provider { return greedy{w.Cloud} }},
	{name: "what has ended is healthy", by: "Balancers/Targets", rule: "a terminated instance is not healthy",
		wrap: func(w *world) provider.Provider { return &sanguine{cloud: w.Cloud} }},
	{name: "making an image stops the instance", by: "Images/Launch", rule: "an instance gets running",
		wrap: func(w *world) provider.Provider { return halting{w.Cloud} }},
	{name: "a deleted image can be launched", by: "Images/Launch", rule: "a launch of a deleted image is ErrInvalid or ErrNotFound",
		wrap: func(w *world) provider.Provider { return immortal{w.Cloud} }},
	{name: "stop stops all", by: "Power/StopStart", rule: "only what a call names is stopped",
		wrap: func(w *world) provider.Provider { return blackout{w.Cloud} }},
	{name: "a second stop fails", by: "Power/StopStart", rule: "stopping a stopped instance is no error",
		wrap: func(w *world) provider.Provider { return strictPower{w.Cloud} }},
	{name: "a second start fails", by: "Power/StopStart", rule: "starting a running instance is no error",
		wrap: func(w *world) provider.Provider { return strictStart{w.Cloud} }},
	{name: "tags take the others away", by: "Tagger/Tags", rule: "an instance that was tagged keeps its other tags",
		wrap: func(w *world) provider.Provider { return onlyTags{w.Cloud} }},
	{name: "a tag comes beside the old one", by: "Tagger/Tags", rule: "lists go by the tags that an instance has now",
		wrap: func(w *world) provider.Provider { return &oldTags{cloud: w.Cloud} }},
	{name: "what is gone is tagged", by: "Tagger/Gone", rule: "an instance that is gone cannot be tagged: ErrNotFound",
		wrap: func(w *world) provider.Provider { return tagAll{w.Cloud} }},
	{name: "a stop wipes the disks", by: "Power/StopStart", rule: "the data of a stopped instance stays",
		wrap: func(w *world) provider.Provider { return wiping{w.Cloud} }},
	{name: "standard input is left out", by: "Commands/Run", rule: "a command reads its standard input",
		wrap: func(w *world) provider.Provider { return command(w, func(c *provider.Command) { c.Stdin = nil }) }},
	{name: "streams are kept in memory", by: "Commands/Streams", rule: "a stream is read no faster than it is written",
		wrap: func(w *world) provider.Provider {
			return command(w, func(c *provider.Command) {
				if c.Stdin != nil && c.Stdout != nil {
					all, err := io.ReadAll(c.Stdin)
					c.Stdin = io.MultiReader(bytes.NewReader(all), failed{err})
				}
			})
		}},
	{name: "streams are cut", by: "Commands/Streams", rule: "what a command reads and writes as streams is exact",
		wrap: func(w *world) provider.Provider {
			return command(w, func(c *provider.Command) {
				if c.Stdin != nil {
					c.Stdin = io.LimitReader(c.Stdin, 1<<20)
				}
			})
		}},
	{name: "a broken stream is an end", by: "Commands/Streams", rule: "the error of a Stdin that fails is returned",
		wrap: func(w *world) provider.Provider {
			return command(w, func(c *provider.Command) {
				if c.Stdin != nil {
					c.Stdin = endless{c.Stdin}
				}
			})
		}},
	{name: "the output is given twice", by: "Commands/Streams", rule: "what Stdout has taken is not in the output",
		wrap: func(w *world) provider.Provider {
			return commanding{w.Cloud, func(c *provider.Command, r *provider.CommandResult, _ *error) {
				if c.Stdout != nil {
					r.Output = append([]byte("out"), r.Output...)
				}
			}}
		}},
	{name: "the environment is left out", by: "Commands/Run", rule: "a command has the environment that was given",
		wrap: func(w *world) provider.Provider {
			return command(w, func(c *provider.Command) {
				if len(c.Env) > 0 {
					c.Env = []string{"="}
				}
			})
		}},
	{name: "a signal is an exit status", by: "Commands/Run", rule: "the exit status of a command that a signal ended is -1",
		wrap: func(w *world) provider.Provider {
			return commanding{w.Cloud, func(_ *provider.Command, r *provider.CommandResult, _ *error) {
				if r.Exit < 0 {
					r.Exit = 137
				}
			}}
		}},
	{name: "standard error comes first", by: "Commands/Run", rule: "standard error comes after standard output",
		wrap: func(w *world) provider.Provider {
			return commanding{w.Cloud, func(_ *provider.Command, r *provider.CommandResult, _ *error) {
				if string(r.Output) == "out\nerr\n" {
					r.Output = []byte("err\nout\n")
				}
			}}
		}},
	{name: "no program is a passing fault", by: "Commands/Refused", rule: "a command without a program is ErrInvalid",
		wrap: func(w *world) provider.Provider {
			return commanding{w.Cloud, func(c *provider.Command, _ *provider.CommandResult, err *error) {
				if len(c.Args) == 0 {
					*err = provider.Errorf("RunCommand", "", nil, "exec: no command")
				}
			}}
		}},
}

type replying struct {
	cloud
	tags map[string]map[string]string
}

func (p *replying) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	i, err := p.cloud.Launch(ctx, l)
	p.tags[i.ID] = i.Tags
	return i, err
}

func (p *replying) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	l, err := p.cloud.Instances(ctx, tags)
	for n, i := range l {
		l[n].Tags = maps.Clone(p.tags[i.ID])
	}
	return l, err
}

type cutting struct{ cloud }

func (p cutting) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	l.Token = l.Token[:min(len(l.Token), 12)]
	return p.cloud.Launch(ctx, l)
}

type tagged struct{ cloud }

func (p tagged) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	if len(tags) == 0 {
		return nil, nil
	}
	return p.cloud.Instances(ctx, tags)
}

type hasty struct{ cloud }

func (p hasty) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	if err := l.Check(); err != nil {
		good := l
		good.Token, good.Tags = "hasty", maps.Clone(l.Tags)
		maps.DeleteFunc(good.Tags, func(k, v string) bool { return k != "providertest" })
		p.cloud.Launch(ctx, good)
		return provider.Instance{}, err
	}
	return p.cloud.Launch(ctx, l)
}

type dropping struct{ cloud }

func (p dropping) AttachVolume(ctx context.Context, volume, instance string) error {
	err := p.cloud.AttachVolume(ctx, volume, instance)
	if errors.Is(err, provider.ErrInvalid) {
		p.DetachVolume(ctx, volume)
	}
	return err
}

type eachVolume struct {
	cloud
	change func(*provider.Volume)
}

func (p eachVolume) Volumes(ctx context.Context, tags map[string]string) ([]provider.Volume, error) {
	l, err := p.cloud.Volumes(ctx, tags)
	for n := range l {
		p.change(&l[n])
	}
	return l, err
}

type firstPlacement struct{ cloud }

func (p firstPlacement) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	s.Placement = "a"
	return p.cloud.CreateVolume(ctx, s)
}

type blind struct{ cloud }

func (p blind) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	l.Volumes = nil
	return p.cloud.Launch(ctx, l)
}

// shareSnapshots lets a volume from a snapshot write to the snapshot.
func shareSnapshots(w *world, s *Subject) {
	made := &cascading{cloud: w.Cloud, made: map[string][]string{}}
	s.Provider = keepOnDelete{made}
	write := s.Write
	s.Write = func(ctx context.Context, i provider.Instance, v provider.Volume, data string) error {
		for snapshot, volumes := range made.made {
			if slices.Contains(volumes, v.ID) {
				w.Cloud.SetContent(v.ID, data)
				made.changed = map[string]string{snapshot: data}
			}
		}
		return write(ctx, i, v, data)
	}
}

// cascading deletes with a snapshot what was made from it.
type cascading struct {
	cloud
	made    map[string][]string // volumes by snapshot
	changed map[string]string   // what a snapshot holds now
}

func (p *cascading) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	v, err := p.cloud.CreateVolume(ctx, s)
	if s.Snapshot != "" && err == nil {
		p.made[s.Snapshot] = append(p.made[s.Snapshot], v.ID)
		if data, ok := p.changed[s.Snapshot]; ok {
			p.SetContent(v.ID, data)
		}
	}
	return v, err
}

func (p *cascading) DeleteSnapshot(ctx context.Context, id string) error {
	for _, v := range p.made[id] {
		p.DetachVolume(ctx, v)
		p.DeleteVolume(ctx, v)
	}
	return p.cloud.DeleteSnapshot(ctx, id)
}

type keepOnDelete struct{ *cascading }

func (p keepOnDelete) DeleteSnapshot(ctx context.Context, id string) error {
	return p.cloud.DeleteSnapshot(ctx, id)
}

type offline struct{ cloud }

func (p offline) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	for _, v := range p.World(nil).Volumes {
		if v.ID == s.Volume && v.Instance != "" {
			return provider.Snapshot{}, provider.Errorf("CreateSnapshot", s.Token, provider.ErrInvalid, "Volume is in use")
		}
	}
	return p.cloud.CreateSnapshot(ctx, s)
}

type timeless struct{ cloud }

func (p timeless) Snapshots(ctx context.Context, tags map[string]string) ([]provider.Snapshot, error) {
	list, err := p.cloud.Snapshots(ctx, tags)
	for i := range list {
		list[i].Created = time.Time{}
	}
	return list, err
}

// remembering shows the first public address that an instance was given for good.
type remembering struct {
	cloud
	given map[string]provider.Address
}

func (p *remembering) AssociateAddress(ctx context.Context, id, instance string) error {
	err := p.cloud.AssociateAddress(ctx, id, instance)
	for _, a := range p.World(nil).Addresses {
		if a.ID == id && p.given == nil {
			p.given = map[string]provider.Address{instance: a}
		}
	}
	return err
}

func (p *remembering) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	l, err := p.cloud.Instances(ctx, tags)
	for n, i := range l {
		if a, ok := p.given[i.ID]; ok {
			l[n].Public = a.Addr
		}
	}
	return l, err
}

type busy struct{ cloud }

func (p busy) ReleaseAddress(ctx context.Context, id string) error {
	for _, a := range p.World(nil).Addresses {
		if a.ID == id && a.Instance != "" {
			return provider.Errorf("ReleaseAddress", id, nil, "the address is in use")
		}
	}
	return p.cloud.ReleaseAddress(ctx, id)
}

type greedy struct{ cloud }

func (p greedy) DeleteBalancer(ctx context.Context, id string) error {
	for _, b := range p.World(nil).Balancers {
		for _, t := range b.Targets {
			if b.ID == id {
				p.Kill(t.Instance, "its balancer was deleted")
			}
		}
	}
	return p.cloud.DeleteBalancer(ctx, id)
}

// sanguine shows every target that was ever registered and never deregistered as healthy.
type sanguine struct {
	cloud
	targets []provider.Target
}

func (p *sanguine) RegisterTarget(ctx context.Context, id, instance string) error {
	p.DeregisterTarget(ctx, id, instance)
	p.targets = append(p.targets, provider.Target{Instance: instance, State: provider.TargetHealthy})
	slices.SortFunc(p.targets, func(a, b provider.Target) int { return strings.Compare(a.Instance, b.Instance) })
	return nil
}

func (p *sanguine) DeregisterTarget(_ context.Context, _, instance string) error {
	p.targets = slices.DeleteFunc(p.targets, func(t provider.Target) bool { return t.Instance == instance })
	return nil
}

func (p *sanguine) Balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	l, err := p.cloud.Balancers(ctx, tags)
	for n := range l {
		l[n].Targets = slices.Clone(p.targets)
	}
	return l, err
}

type halting struct{ cloud }

func (p halting) CreateImage(ctx context.Context, s provider.ImageSpec) (provider.Image, error) {
	i, err := p.cloud.CreateImage(ctx, s)
	p.Stop(ctx, s.Instance)
	return i, err
}

type immortal struct{ cloud }

func (p immortal) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	i, err := p.cloud.Launch(ctx, l)
	if err != nil && strings.Contains(err.Error(), "deleted") {
		l.Image = "debian"
		return p.cloud.Launch(ctx, l)
	}
	return i, err
}

type blackout struct{ cloud }

func (p blackout) Stop(ctx context.Context, _ string) error {
	for _, i := range p.World(nil).Instances {
		p.cloud.Stop(ctx, i.ID)
	}
	return nil
}

// inState reports whether an instance is in a state.
func inState(c cloud, id string, s provider.State) bool {
	return slices.ContainsFunc(c.World(nil).Instances, func(i provider.Instance) bool { return i.ID == id && i.State == s })
}

type strictPower struct{ cloud }

func (p strictPower) Stop(ctx context.Context, id string) error {
	if inState(p.cloud, id, provider.Stopped) {
		return provider.Errorf("Stop", id, provider.ErrInvalid, "the instance is stopped")
	}
	return p.cloud.Stop(ctx, id)
}

type strictStart struct{ cloud }

func (p strictStart) Start(ctx context.Context, id string) error {
	if inState(p.cloud, id, provider.Running) {
		return provider.Errorf("Start", id, provider.ErrInvalid, "the instance runs")
	}
	return p.cloud.Start(ctx, id)
}

type wiping struct{ cloud }

func (p wiping) Stop(ctx context.Context, id string) error {
	for _, v := range p.World(nil).Volumes {
		if v.Instance == id {
			p.SetContent(v.ID, "")
		}
	}
	return p.cloud.Stop(ctx, id)
}

// command changes every command.
func command(w *world, change func(*provider.Command)) provider.Provider {
	return commanding{w.Cloud, func(c *provider.Command, _ *provider.CommandResult, _ *error) { change(c) }}
}

// failed ends with an error.
type failed struct{ err error }

func (r failed) Read([]byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	return 0, io.EOF
}

// endless takes every error for the end.
type endless struct{ io.Reader }

func (r endless) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}
