package providertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

var brokenCapabilities = []broken{
	{name: "every call creates a volume", by: "Volumes/SameToken", rule: "the same token with the same parameters meets the same thing",
		wrap: func(w *world) provider.Provider { return &anew{cloud: w.Cloud} }},
	{name: "every call takes a snapshot", by: "Snapshots/SameToken", rule: "the same token with the same parameters meets the same thing",
		wrap: func(w *world) provider.Provider { return &anew{cloud: w.Cloud} }},
	{name: "every call allocates an address", by: "Addresses/LostReply", rule: "a call that lost its reply meets the same thing when it is made again",
		wrap: func(w *world) provider.Provider { return &anew{cloud: w.Cloud} }},
	{name: "every call makes a balancer", by: "Balancers/SameTokenAtOnce", rule: "many calls at once with one token make one thing",
		wrap: func(w *world) provider.Provider { return &anew{cloud: w.Cloud} }},
	{name: "every call makes an image", by: "Images/SameToken", rule: "the same token with the same parameters meets the same thing",
		wrap: func(w *world) provider.Provider { return &anew{cloud: w.Cloud} }},
	{name: "volumes are stolen", by: "Volumes/Attach", rule: "a volume that another instance has cannot be attached",
		wrap: func(w *world) provider.Provider { return stealing{w.Cloud} }},
	{name: "attached volumes are deleted", by: "Volumes/Attach", rule: "an attached volume cannot be deleted",
		wrap: func(w *world) provider.Provider { return forcing{w.Cloud} }},
	{name: "a free volume cannot be detached", by: "Volumes/Attach", rule: "detaching a free volume is no error",
		wrap: func(w *world) provider.Provider { return attachedOnly{w.Cloud} }},
	{name: "attaching returns too early", by: "Volumes/Attach", rule: "an attached volume says where the instance finds it",
		wrap: func(w *world) provider.Provider { return noDevice{w.Cloud} }},
	{name: "data stays with the machine", by: "Volumes/Attach", rule: "data follows a volume to another instance",
		tweak: func(_ *world, s *Subject) { onMachine(s) }},
	{name: "volumes die with their instance", by: "Volumes/AtLaunch", rule: "the volumes of a terminated instance stay, and are free",
		wrap: func(w *world) provider.Provider { return mortal{w.Cloud} }},
	{name: "placements of volumes are ignored", by: "Volumes/OtherPlacement", rule: "a volume cannot be attached in another placement",
		wrap: func(w *world) provider.Provider { return anywhere{w.Cloud} }},
	{name: "a volume of no size gets some", by: "Volumes/Refused", rule: "a volume of no size is ErrInvalid",
		wrap: func(w *world) provider.Provider { return sized{w.Cloud} }},
	{name: "snapshots are links", by: "Snapshots/Restore", rule: "a volume from a snapshot has what the volume had at that instant",
		tweak: func(w *world, s *Subject) { linked(s) }},
	{name: "snapshots go with their volume", by: "Snapshots/Restore", rule: "a good request for one volume succeeds",
		wrap: func(w *world) provider.Provider { return tied{w.Cloud} }},
	{name: "an address must be free to be associated", by: "Addresses/Move", rule: "an address moves to another instance in one call",
		wrap: func(w *world) provider.Provider { return sticky{w.Cloud} }},
	{name: "addresses go with their instance", by: "Addresses/Move", rule: "the address of a terminated instance stays, and is free",
		wrap: func(w *world) provider.Provider { return releasing{w.Cloud} }},
	{name: "instances do not show addresses", by: "Addresses/Move", rule: "an instance shows the address that it has",
		wrap: func(w *world) provider.Provider {
			return each(w, func(i *provider.Instance) { i.Public = i.Private })
		}},
	{name: "targets are registered twice", by: "Balancers/Targets", rule: "a balancer has only what was registered, once each",
		wrap: func(w *world) provider.Provider {
			return balancing{w.Cloud, func(t []provider.Target) []provider.Target {
				if len(t) > 0 {
					t = append(t, t[len(t)-1])
				}
				return t
			}}
		}},
	{name: "a new balancer inherits a count", by: "Balancers/Targets", rule: "a new balancer has taken no requests",
		wrap: func(w *world) provider.Provider { return counting{w.Cloud} }},
	{name: "a balancer that is gone counts on", by: "Balancers/Refused", rule: "the requests of a balancer that does not exist cannot be counted: ErrNotFound",
		wrap: func(w *world) provider.Provider { return uncounted{w.Cloud} }},
	{name: "targets are unsorted", by: "Balancers/Targets", rule: "targets are sorted by instance",
		wrap: func(w *world) provider.Provider {
			return balancing{w.Cloud, func(t []provider.Target) []provider.Target { slices.Reverse(t); return t }}
		}},
	{name: "draining has no end", by: "Balancers/Targets", rule: "a draining instance is listed no more when the drain time has passed",
		wrap: func(w *world) provider.Provider { return draining{w.Cloud} }},
	{name: "one deregistered target takes all along", by: "Balancers/Targets", rule: "only what a call names is deregistered",
		wrap: func(w *world) provider.Provider { return emptying{w.Cloud} }},
	{name: "an image needs its source", by: "Images/Launch", rule: "a good launch succeeds",
		wrap: func(w *world) provider.Provider { return &linkedImage{cloud: w.Cloud, source: map[string]string{}} }},
	{name: "stop returns early", by: "Power/StopStart", rule: "the machine is off when Stop returns",
		wrap:  func(w *world) provider.Provider { return early{w} },
		tweak: func(w *world, s *Subject) {}},
	{name: "a stopped machine works on", by: "Power/StopStart", rule: "the machine is off when Stop returns",
		tweak: func(_ *world, s *Subject) { s.Alive = func(provider.Instance) bool { return true } }},
	{name: "stopping what is gone fails", by: "Power/Gone", rule: "stopping what is gone is no error",
		wrap: func(w *world) provider.Provider { return stopping{w.Cloud} }},
	{name: "a reboot changes the address", by: "Power/Reboot", rule: "a rebooted instance keeps its address",
		wrap: func(w *world) provider.Provider { return &moving{cloud: w.Cloud} }},
	{name: "a shell runs commands", by: "Commands/Run", rule: "a command runs without a shell",
		wrap: func(w *world) provider.Provider {
			return commanding{w.Cloud, func(c *provider.Command, _ *provider.CommandResult, _ *error) {
				for n := range c.Args {
					c.Args[n] = strings.Join(strings.Fields(strings.ReplaceAll(c.Args[n], "$HOME", "/root")), " ")
				}
			}}
		}},
	{name: "a failing command is an error", by: "Commands/Run", rule: "a command runs on a running instance",
		wrap: func(w *world) provider.Provider {
			return commanding{w.Cloud, func(_ *provider.Command, r *provider.CommandResult, err *error) {
				if r.Exit != 0 {
					*err = fmt.Errorf("exit status %d", r.Exit)
				}
			}}
		}},
	{name: "output is not cut", by: "Commands/Run", rule: "standard output and error are cut after 1 MiB each",
		wrap: func(w *world) provider.Provider {
			return commanding{w.Cloud, func(_ *provider.Command, r *provider.CommandResult, _ *error) {
				if len(r.Output) > 1<<20 {
					r.Output = append(make([]byte, 1<<20), r.Output...)
				}
			}}
		}},
	{name: "children outlive their command", by: "Commands/Killed", rule: "a command whose context ends is killed with its children",
		tweak: func(w *world, s *Subject) { w.shell.orphan = true }},
	{name: "commands do not hear the context", by: "Commands/Killed", rule: "a command whose context ends returns with the context's error",
		wrap: func(w *world) provider.Provider { return deafCommand{w.Cloud} }},
	{name: "the environment is in the error", by: "Commands/Refused", rule: "no error shows the environment of a command",
		wrap: func(w *world) provider.Provider {
			return commanding{w.Cloud, func(c *provider.Command, _ *provider.CommandResult, err *error) {
				if *err != nil {
					*err = fmt.Errorf("%w: %v", *err, c.Env)
				}
			}}
		}},
}

// anew makes new things at every call.
type anew struct {
	cloud
	n int
}

func (p *anew) next(token string) string {
	if provider.CheckToken("", token) != nil {
		return token
	}
	p.n++
	return fmt.Sprint(token, "-", p.n)
}

func (p *anew) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	s.Token = p.next(s.Token)
	return p.cloud.CreateVolume(ctx, s)
}

func (p *anew) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	s.Token = p.next(s.Token)
	return p.cloud.CreateSnapshot(ctx, s)
}

func (p *anew) AllocateAddress(ctx context.Context, s provider.AddressSpec) (provider.Address, error) {
	s.Token = p.next(s.Token)
	return p.cloud.AllocateAddress(ctx, s)
}

func (p *anew) CreateBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	s.Token = fmt.Sprint(s.Token, "-", time.Now().UnixNano(), fmt.Sprintf("%p", &s))
	return p.cloud.CreateBalancer(ctx, s)
}

func (p *anew) CreateImage(ctx context.Context, s provider.ImageSpec) (provider.Image, error) {
	s.Token = p.next(s.Token)
	return p.cloud.CreateImage(ctx, s)
}

type stealing struct{ cloud }

func (p stealing) AttachVolume(ctx context.Context, volume, instance string) error {
	err := p.cloud.AttachVolume(ctx, volume, instance)
	if errors.Is(err, provider.ErrInvalid) {
		return errors.Join(p.cloud.DetachVolume(ctx, volume), p.cloud.AttachVolume(ctx, volume, instance))
	}
	return err
}

type forcing struct{ cloud }

func (p forcing) DeleteVolume(ctx context.Context, id string) error {
	p.DetachVolume(ctx, id)
	return p.cloud.DeleteVolume(ctx, id)
}

type attachedOnly struct{ cloud }

func (p attachedOnly) DetachVolume(ctx context.Context, id string) error {
	for _, v := range p.World(nil).Volumes {
		if v.ID == id && v.Instance == "" {
			return provider.Errorf("DetachVolume", id, provider.ErrInvalid, "the volume is available, want in-use")
		}
	}
	return p.cloud.DetachVolume(ctx, id)
}

type noDevice struct{ cloud }

func (p noDevice) Volumes(ctx context.Context, tags map[string]string) ([]provider.Volume, error) {
	l, err := p.cloud.Volumes(ctx, tags)
	for n := range l {
		l[n].Device = ""
	}
	return l, err
}

// onMachine keeps what is written with the instance.
func onMachine(s *Subject) {
	data := map[string]string{}
	s.Write = func(_ context.Context, i provider.Instance, v provider.Volume, d string) error {
		data[i.ID+v.ID] = d
		return nil
	}
	s.Read = func(_ context.Context, i provider.Instance, v provider.Volume) (string, error) {
		return data[i.ID+v.ID], nil
	}
}

type mortal struct{ cloud }

func (p mortal) Terminate(ctx context.Context, id string) error {
	for _, v := range p.World(nil).Volumes {
		if v.Instance == id {
			p.DetachVolume(ctx, v.ID)
			p.DeleteVolume(ctx, v.ID)
		}
	}
	return p.cloud.Terminate(ctx, id)
}

type anywhere struct{ cloud }

func (p anywhere) AttachVolume(ctx context.Context, volume, instance string) error {
	err := p.cloud.AttachVolume(ctx, volume, instance)
	if err != nil && strings.Contains(err.Error(), "placement") {
		return nil
	}
	return err
}

type sized struct{ cloud }

func (p sized) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	if s.Snapshot == "" {
		s.SizeGB = max(s.SizeGB, 1)
	}
	return p.cloud.CreateVolume(ctx, s)
}

// linked lets all volumes hold the same data.
func linked(s *Subject) {
	data := ""
	s.Write = func(_ context.Context, _ provider.Instance, _ provider.Volume, d string) error {
		data = d
		return nil
	}
	s.Read = func(context.Context, provider.Instance, provider.Volume) (string, error) { return data, nil }
}

type tied struct{ cloud }

func (p tied) DeleteVolume(ctx context.Context, id string) error {
	for _, x := range p.World(nil).Snapshots {
		if x.Volume == id {
			p.DeleteSnapshot(ctx, x.ID)
		}
	}
	return p.cloud.DeleteVolume(ctx, id)
}

type sticky struct{ cloud }

func (p sticky) AssociateAddress(ctx context.Context, id, instance string) error {
	for _, a := range p.World(nil).Addresses {
		if a.ID == id && a.Instance != "" && a.Instance != instance {
			return provider.Errorf("AssociateAddress", id, provider.ErrInvalid, "%s has the address", a.Instance)
		}
	}
	return p.cloud.AssociateAddress(ctx, id, instance)
}

type releasing struct{ cloud }

func (p releasing) Terminate(ctx context.Context, id string) error {
	for _, a := range p.World(nil).Addresses {
		if a.Instance == id {
			p.ReleaseAddress(ctx, a.ID)
		}
	}
	return p.cloud.Terminate(ctx, id)
}

type balancing struct {
	cloud
	change func([]provider.Target) []provider.Target
}

func (p balancing) Balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	l, err := p.cloud.Balancers(ctx, tags)
	for n := range l {
		l[n].Targets = p.change(l[n].Targets)
	}
	return l, err
}

type counting struct{ cloud }

func (counting) Requests(context.Context, string) (uint64, error) { return 1, nil }

type uncounted struct{ cloud }

func (uncounted) Requests(context.Context, string) (uint64, error) { return 0, nil }

type draining struct{ cloud }

func (p draining) CreateBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	s.Drain = 1000 * time.Hour
	return p.cloud.CreateBalancer(ctx, s)
}

type emptying struct{ cloud }

func (p emptying) DeregisterTarget(ctx context.Context, id, _ string) error {
	for _, b := range p.World(nil).Balancers {
		for _, t := range b.Targets {
			p.cloud.DeregisterTarget(ctx, id, t.Instance)
		}
	}
	return nil
}

type linkedImage struct {
	cloud
	source map[string]string
}

func (p *linkedImage) CreateImage(ctx context.Context, s provider.ImageSpec) (provider.Image, error) {
	i, err := p.cloud.CreateImage(ctx, s)
	p.source[i.ID] = s.Instance
	return i, err
}

func (p *linkedImage) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	if source := p.source[l.Image]; source != "" &&
		!slices.ContainsFunc(p.World(nil).Instances, func(i provider.Instance) bool { return i.ID == source }) {
		return provider.Instance{}, provider.Errorf("Launch", l.Token, provider.ErrInvalid, "Image needs %s", source)
	}
	return p.cloud.Launch(ctx, l)
}

// early stops after a while.
type early struct{ *world }

func (p early) Stop(ctx context.Context, id string) error {
	time.AfterFunc(time.Second, func() { p.Cloud.Stop(context.WithoutCancel(ctx), id) })
	return nil
}

type stopping struct{ cloud }

func (p stopping) Stop(ctx context.Context, id string) error {
	if !slices.ContainsFunc(p.World(nil).Instances, func(i provider.Instance) bool { return i.ID == id }) {
		return provider.Errorf("Stop", id, provider.ErrNotFound, "no such instance")
	}
	return p.cloud.Stop(ctx, id)
}

type moving struct {
	cloud
	rebooted bool
}

func (p *moving) Reboot(ctx context.Context, id string) error {
	p.rebooted = true
	return p.cloud.Reboot(ctx, id)
}

func (p *moving) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	l, err := p.cloud.Instances(ctx, tags)
	for n := range l {
		if p.rebooted {
			l[n].Private = l[n].Public
		}
	}
	return l, err
}

type commanding struct {
	cloud
	change func(*provider.Command, *provider.CommandResult, *error)
}

func (p commanding) RunCommand(ctx context.Context, id string, c provider.Command) (provider.CommandResult, error) {
	var none error
	c.Args = slices.Clone(c.Args)
	p.change(&c, &provider.CommandResult{}, &none)
	r, err := p.cloud.RunCommand(ctx, id, c)
	p.change(&c, &r, &err)
	return r, err
}

type deafCommand struct{ cloud }

func (p deafCommand) RunCommand(ctx context.Context, id string, c provider.Command) (provider.CommandResult, error) {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
	defer cancel()
	return p.cloud.RunCommand(short, id, c)
}
