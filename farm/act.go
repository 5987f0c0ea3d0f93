package farm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// act does the steps of a plan: the phases one after another, the steps of a phase side by side. A step that fails keeps
// no other from being tried; the next pass decides anew from the facts.
func (f *Farm) act(ctx context.Context, p *Plan) error {
	for _, phase := range phases {
		g := f.group()
		for i := range p.Steps {
			s := &p.Steps[i]
			if !slices.Contains(phase, s.Action) {
				continue
			}
			g.add(func() {
				if s.err = f.do(ctx, p, s); s.err != nil {
					s.Err = s.err.Error()
				}
			})
		}
		g.wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// do does one step and tells of it.
func (f *Farm) do(ctx context.Context, p *Plan, s *Step) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, f.config.CallTimeout)
	defer cancel()
	var err error
	if s.Action != ChangeNames {
		err = f.limit(ctx)
	}
	if err == nil {
		err = f.call(ctx, p, s)
	}
	if s.Action == ChangeNames && len(s.Changes) == 0 && err == nil {
		return nil // the names have followed a change of primary in the meantime
	}
	e := scalr.Event{Time: time.Now(), Kind: scalr.Kind(s.Action), Farm: f.spec.Name, Role: s.Role, Index: s.Index,
		Subject: s.Subject, Message: s.Reason, Attrs: map[string]string{}}
	for k, v := range map[string]string{"pool": s.Pool, "instance": s.Instance, "size": s.Size} {
		if v != "" {
			e.Attrs[k] = v
		}
	}
	for i, c := range s.Changes {
		e.Attrs["change-"+strconv.Itoa(i+1)] = c.String()
	}
	if err != nil {
		e.Kind, e.Message, e.Err = StepFailed, string(s.Action)+" failed", err.Error()
	}
	f.emit(e)
	return err
}

// limit waits until another call to a provider may be made.
func (f *Farm) limit(ctx context.Context) error {
	if isNil(f.config.Limit) {
		return nil
	}
	if err := f.config.Limit.Wait(ctx); err != nil {
		return fmt.Errorf("waiting for config.Limit: %w", err)
	}
	return nil
}

func (f *Farm) call(ctx context.Context, p *Plan, s *Step) error {
	if s.Action == ChangeNames {
		return f.changeNames(ctx, p, s)
	}
	pool := f.config.pool(s.Pool)
	if pool == nil {
		return fmt.Errorf("there is no pool %q", s.Pool)
	}
	switch s.Action {
	case LaunchInstance:
		return f.launch(ctx, s, pool)
	case SwitchOver:
		return f.config.Databases[s.Role].Switchover(ctx, s.Subject)
	case StartInstance:
		power, _ := provider.As[provider.Power](pool.Provider)
		return power.Start(ctx, s.Subject)
	case StopInstance:
		power, _ := provider.As[provider.Power](pool.Provider)
		return power.Stop(ctx, s.Subject)
	case TagInstance:
		tagger, _ := provider.As[provider.Tagger](pool.Provider)
		return tagger.TagInstance(ctx, s.Subject, s.tags)
	case TerminateInstance:
		// Since the pass looked, the machine may have become the primary.
		if m := f.config.Databases[s.Role]; m != nil && f.ends() == nil {
			t, _ := m.Topology()
			if primary, ok := t.Member(t.Primary); ok && primary.Member.Machine == s.Subject {
				return fmt.Errorf("%s is the primary now", t.Primary)
			}
		}
		err := pool.Provider.Terminate(ctx, s.Subject)
		if err == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.history.terminated(&f.config, s, time.Now())
		}
		return err
	case CreateVolume, AttachVolume, DetachVolume, DeleteVolume:
		return f.callVolume(ctx, s, pool)
	case CreateSnapshot, DeleteSnapshot:
		return f.callSnapshot(ctx, s, pool)
	case AllocateAddress, AssociateAddress, DisassociateAddress, ReleaseAddress:
		return f.callAddress(ctx, s, pool)
	default:
		return f.callBalancer(ctx, s, pool)
	}
}

// changeNames makes the zone hold what the plan wants in it, and leaves in the step what has been changed for it. What the zone
// refuses the plan says already.
func (f *Farm) changeNames(ctx context.Context, p *Plan, s *Step) error {
	var err error
	s.Changes, err = dnsreg.Sync(ctx, f.config.DNS, f.spec.Zone, owner(f.spec.Name), p.want)
	if _, refused := errors.AsType[*dnsreg.RefusedError](err); refused {
		return nil
	}
	return err
}

// launch starts a machine. What is about to be tried is noted first, so that whatever becomes of the call the next try is
// the same one until the outcome is known.
func (f *Farm) launch(ctx context.Context, s *Step, pool *Pool) error {
	at := slot{s.Role, s.Index}
	r := f.role(s.Role)
	text, version := r.userData(s.Build)
	data := []byte(text)
	if f.config.UserData != nil {
		var err error
		if data, err = f.config.UserData(Machine{f.spec.Name, s.Role, at.name(), s.Pool, s.Index, version}); err != nil {
			return fmt.Errorf("user data: %w", err)
		}
	}
	// A token whose instance has been terminated since gives that instance back: the generation is used up. That happens
	// only after a restart, when nobody remembers it.
	for range 16 {
		in, err := f.launchOnce(ctx, s, pool, r, data)
		switch {
		case err != nil:
			return err
		case !in.State.Gone():
			s.Subject = in.ID
			return nil
		}
		s.Generation++
	}
	return fmt.Errorf("the last 16 generations of slot %s have been terminated already", at.name())
}

func (f *Farm) launchOnce(ctx context.Context, s *Step, pool *Pool, r *Role, data []byte) (provider.Instance, error) {
	at := slot{s.Role, s.Index}
	l := provider.Launch{Name: f.spec.Name + "-" + at.name(), Image: s.Image, Size: s.Size, Placement: pool.Placement,
		Network: pool.Network, SecurityGroups: pool.SecurityGroups, KeyPair: pool.KeyPair, Spot: s.Spot, UserData: data,
		Volumes: s.Volumes, Tags: launchTags(f.spec.Name, s)}
	if f.spec.needs(r, &f.config) && has[provider.Tagger](pool.Provider) {
		l.Tags[TagNeeds] = f.spec.Parent // whatever the set has, so that the same launch has the same token
	}
	l.Token = token(l, data)
	f.mu.Lock()
	again := f.history.launching(s, time.Now())
	f.mu.Unlock()
	in, err := pool.Provider.Launch(ctx, l)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history.launched(&f.config, s, in, err, again, time.Now())
	return in, err
}

// token derives the idempotency token from everything that a request says, so that another request takes another token.
func token(request any, secrets ...[]byte) string {
	h := sha256.New()
	// Maps are marshalled in the order of their keys.
	if err := json.NewEncoder(h).Encode(request); err != nil {
		panic(err) // the requests are plain data
	}
	for _, s := range secrets {
		sum := sha256.Sum256(s)
		h.Write(sum[:])
	}
	return "scalr-" + hex.EncodeToString(h.Sum(nil)[:20])
}

// create notes that something is about to be created under a token that comes of key and request, creates it, and notes
// whether it may exist now. While it may, no other pool is tried.
func (f *Farm) create(key thing, s *Step, call func(try int) error) error {
	f.mu.Lock()
	try, again := f.history.creating(key, s, time.Now())
	f.mu.Unlock()
	err := call(try)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history.created(&f.config, key, s, err, again, time.Now())
	return err
}

// delete ends something. Its token is used up: what is created next under the key takes another one.
func (f *Farm) delete(key thing, call error) error {
	if call != nil {
		return call
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history.deleted(key)
	return nil
}

func (f *Farm) callVolume(ctx context.Context, s *Step, pool *Pool) error {
	volumes, _ := provider.As[provider.Volumes](pool.Provider)
	at := slot{s.Role, s.Index}
	key := thing{kind: "volume", slot: at}
	switch s.Action {
	case AttachVolume:
		f.mu.Lock()
		f.history.use(at)
		f.mu.Unlock()
		return volumes.AttachVolume(ctx, s.Subject, s.Instance)
	case DetachVolume:
		return volumes.DetachVolume(ctx, s.Subject)
	case DeleteVolume:
		return f.delete(key, volumes.DeleteVolume(ctx, s.Subject))
	}
	v := f.role(s.Role).Volume
	return f.create(key, s, func(try int) error {
		spec := provider.VolumeSpec{Name: f.spec.Name + "-" + at.name(), SizeGB: v.SizeGB, Type: v.Type,
			Placement: pool.Placement, Tags: tagsOf(f.spec.Name, at, s.Pool)}
		s.fill(&spec)
		spec.Token = token(struct {
			provider.VolumeSpec
			Try int
		}{spec, try})
		got, err := volumes.CreateVolume(ctx, spec)
		if s.Subject = got.ID; err == nil && got.Instance == "" && time.Since(got.Created) < f.config.ListLag {
			f.mu.Lock()
			f.history.fresh(key, got.ID)
			f.mu.Unlock()
		}
		return err
	})
}

func (f *Farm) callAddress(ctx context.Context, s *Step, pool *Pool) error {
	addresses, _ := provider.As[provider.Addresses](pool.Provider)
	at := slot{s.Role, s.Index}
	key := thing{"address", at, s.Pool}
	switch s.Action {
	case AssociateAddress:
		return addresses.AssociateAddress(ctx, s.Subject, s.Instance)
	case DisassociateAddress:
		return addresses.DisassociateAddress(ctx, s.Subject)
	case ReleaseAddress:
		return f.delete(key, addresses.ReleaseAddress(ctx, s.Subject))
	}
	return f.create(key, s, func(try int) error {
		spec := provider.AddressSpec{Name: f.spec.Name + "-" + at.name(), Tags: tagsOf(f.spec.Name, at, s.Pool)}
		spec.Token = token(struct {
			provider.AddressSpec
			Try int
		}{spec, try})
		got, err := addresses.AllocateAddress(ctx, spec)
		s.Subject = got.ID
		return err
	})
}

func (f *Farm) callBalancer(ctx context.Context, s *Step, pool *Pool) error {
	balancers, _ := provider.As[provider.Balancers](pool.Provider)
	key := thing{"balancer", slot{role: s.Role}, s.Pool}
	switch s.Action {
	case RegisterTarget:
		return balancers.RegisterTarget(ctx, s.Subject, s.Instance)
	case DeregisterTarget:
		return balancers.DeregisterTarget(ctx, s.Subject, s.Instance)
	case DeleteBalancer:
		return f.delete(key, balancers.DeleteBalancer(ctx, s.Subject))
	case CreateBalancer:
	default:
		return fmt.Errorf("there is no action %q", s.Action)
	}
	r := f.role(s.Role)
	return f.create(key, s, func(try int) error {
		spec := provider.BalancerSpec{Name: f.spec.Name + "-" + s.Role + "-" + s.Pool, Protocol: r.Balancer.Protocol,
			Port: r.Balancer.Port, TargetPort: r.Port, HealthPath: r.Balancer.HealthPath, Drain: r.Balancer.Drain,
			Tags: map[string]string{TagFarm: f.spec.Name, TagRole: s.Role, TagPool: s.Pool}}
		if pool.Network != "" {
			spec.Networks = []string{pool.Network}
		}
		spec.Token = token(struct {
			provider.BalancerSpec
			Try int
		}{spec, try})
		got, err := balancers.CreateBalancer(ctx, spec)
		s.Subject = got.ID
		return err
	})
}

// follow tells databases and caches who their servers are.
func (f *Farm) follow(p *Plan) error {
	var errs []error
	for _, role := range sortedKeys(p.members) {
		members := p.members[role]
		for i := range members {
			members[i].Fence = f.fence(members[i])
		}
		if t, _ := f.config.Databases[role].Topology(); t.Primary != "" && f.ends() == nil {
			// Nobody should read from a replica that is about to end, nor wait for its acknowledgement.
			members = slices.DeleteFunc(members, func(m replication.Member) bool { return m.ID != t.Primary && p.ends(m.Machine) })
		}
		for _, machine := range p.ended[role] {
			f.config.Databases[role].MachineEnded(machine)
		}
		f.config.Databases[role].SetMembers(members, f.role(role).Min+p.missing[role])
	}
	for _, role := range sortedKeys(p.caches) {
		follower, servers := f.config.Caches[role], p.caches[role]
		if isNil(follower) || len(servers) == 0 || slices.Equal(servers, f.followed[role]) {
			continue
		}
		if err := follower.SetServers(servers); err != nil {
			errs = append(errs, fmt.Errorf("servers of cache %s: %w", role, err))
			continue
		}
		f.followed[role] = servers
	}
	return errors.Join(errs...)
}

// fence gives the means to stop a member's machine through its provider.
func (f *Farm) fence(m replication.Member) func(context.Context) error {
	pool := f.config.pool(m.Pool)
	if pool == nil {
		return nil
	}
	return func(ctx context.Context) error {
		if power, ok := provider.As[provider.Power](pool.Provider); ok {
			return power.Stop(ctx, m.Machine)
		}
		// Without a switch, the machine is ended, and is known to do nothing only when a list says so.
		if err := pool.Provider.Terminate(ctx, m.Machine); err != nil {
			return err
		}
		for absent := (time.Time{}); ; {
			list, err := pool.Provider.Instances(ctx, map[string]string{TagFarm: f.spec.Name})
			if err != nil {
				return err
			}
			at := slices.IndexFunc(list, func(in provider.Instance) bool { return in.ID == m.Machine })
			switch {
			case at >= 0 && list[at].State == provider.Terminated:
				return nil
			case at >= 0:
				absent = time.Time{}
			case absent.IsZero():
				absent = time.Now() // from one list, which is no proof
			case time.Since(absent) >= f.config.ListLag:
				return nil
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Second):
			}
		}
	}
}
