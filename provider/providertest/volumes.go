package providertest

import (
	"fmt"

	"github.com/scalr-go/scalr/provider"
)

// volume creates a volume at a placement and waits until it is ready.
func (s *suite) volume(placement string, change ...func(*provider.VolumeSpec)) provider.Volume {
	s.Helper()
	v := s.Volume
	v.Token, v.Name, v.Tags = s.token(), "scalr-test", s.with("kind", "volume")
	if v.Placement == "" || placement != "" {
		v.Placement = placement
	}
	for _, f := range change {
		f(&v)
	}
	got, err := as[provider.Volumes](s.Provider).CreateVolume(s.ctx, v)
	s.ok(err, "a good request for one volume succeeds")
	return s.volumeWhen("a volume gets ready", got.ID, func(v provider.Volume) bool { return v.Ready })
}

// volumeWhen waits until a volume is listed as it should be.
func (s *suite) volumeWhen(rule, id string, is func(provider.Volume) bool) (found provider.Volume) {
	s.Helper()
	s.eventually(rule, func() (bool, string) {
		list, err := as[provider.Volumes](s.Provider).Volumes(s.ctx, s.tags)
		s.ok(err, "volumes can be listed")
		for _, v := range list {
			if v.ID == id {
				found = v
				return is(v), fmt.Sprintf("%+v", v)
			}
		}
		return false, id + " is not listed"
	})
	return found
}

func (s *suite) attached(id, instance string) provider.Volume {
	s.Helper()
	v := s.volumeWhen("an attached volume shows its instance", id, func(v provider.Volume) bool { return v.Instance == instance })
	s.rule(v.Device != "", "an attached volume says where the instance finds it", "Device is empty: %+v", v)
	return v
}

func (s *suite) free(id, rule string) provider.Volume {
	s.Helper()
	return s.volumeWhen(rule, id, func(v provider.Volume) bool { return v.Instance == "" })
}

// write writes to a volume and reads back what it wrote, where the subject can.
func (s *suite) write(i provider.Instance, v provider.Volume, data string) {
	s.Helper()
	if s.Write == nil || s.Read == nil {
		return
	}
	s.ok(s.Write(s.ctx, i, v, data), "an attached volume can be written")
	s.read(i, v, data, "an attached volume keeps what was written")
}

func (s *suite) read(i provider.Instance, v provider.Volume, want, rule string) {
	s.Helper()
	if s.Write == nil || s.Read == nil {
		return
	}
	got, err := s.Read(s.ctx, i, v)
	s.ok(err, rule)
	s.rule(got == want, rule, "read %q, want %q", got, want)
}

func volumeCases() []testCase {
	on := func(f func(*suite, provider.Volumes)) func(*suite) {
		return func(s *suite) { f(s, capability[provider.Volumes](s)) }
	}
	return []testCase{
		{"Volumes/Attach", on(attach)},
		{"Volumes/Refused", on(volumeRefused)},
		{"Volumes/AtLaunch", on(volumesAtLaunch)},
		{"Volumes/OtherPlacement", on(volumePlacement)},
	}
}

func attach(s *suite, p provider.Volumes) {
	a := s.running()
	b := s.running(func(l *provider.Launch) { l.Placement = a.Placement })
	v := s.volume(a.Placement)
	s.rule(v.SizeGB >= s.Volume.SizeGB, "a volume has the size that was asked for", "got %d GB, want %d", v.SizeGB, s.Volume.SizeGB)
	s.rule(v.Instance == "", "a new volume is free", "got %+v", v)
	s.ok(p.DetachVolume(s.ctx, v.ID), "detaching a free volume is no error")

	s.ok(p.AttachVolume(s.ctx, v.ID, a.ID), "a free volume can be attached")
	v = s.attached(v.ID, a.ID)
	s.read(a, v, "", "a new volume is empty")
	s.write(a, v, "kept")
	s.ok(p.AttachVolume(s.ctx, v.ID, a.ID), "attaching a volume again to the same instance is no error")
	s.refused(p.AttachVolume(s.ctx, v.ID, b.ID), "a volume that another instance has cannot be attached", provider.ErrInvalid)
	s.refused(p.DeleteVolume(s.ctx, v.ID), "an attached volume cannot be deleted", provider.ErrInvalid)
	v = s.attached(v.ID, a.ID)
	s.read(a, v, "kept", "a refused call leaves the volume as it is")

	s.ok(p.DetachVolume(s.ctx, v.ID), "an attached volume can be detached")
	s.free(v.ID, "a detached volume is free")
	s.ok(p.DetachVolume(s.ctx, v.ID), "detaching a free volume is no error")
	s.ok(p.AttachVolume(s.ctx, v.ID, b.ID), "a detached volume is free for another instance when DetachVolume returns")
	v = s.attached(v.ID, b.ID)
	s.read(b, v, "kept", "data follows a volume to another instance")

	s.terminate(b.ID)
	s.free(v.ID, "the volumes of a terminated instance stay, and are free")
	s.ok(p.AttachVolume(s.ctx, v.ID, a.ID), "a free volume can be attached")
	v = s.attached(v.ID, a.ID)
	s.read(a, v, "kept", "data follows a volume from a terminated instance to another one")
}

func volumeRefused(s *suite, p provider.Volumes) {
	v := s.Volume
	v.Token, v.Tags, v.SizeGB, v.Placement = s.token(), s.tags, -1, s.Launch.Placement
	_, err := p.CreateVolume(s.ctx, v)
	s.refused(err, "a volume of no size is ErrInvalid", provider.ErrInvalid)
	v.Token, v.SizeGB = s.token(), 0
	_, err = p.CreateVolume(s.ctx, v)
	s.refused(err, "a volume of no size is ErrInvalid", provider.ErrInvalid)

	i := s.running()
	made := s.volume(i.Placement)
	gone := s.volume(i.Placement)
	s.ok(p.DeleteVolume(s.ctx, gone.ID), "a free volume can be deleted")
	s.eventually("a volume that does not exist cannot be attached: ErrNotFound", func() (bool, string) {
		err := p.AttachVolume(s.ctx, gone.ID, i.ID)
		return is(err, provider.ErrNotFound), fmt.Sprint(err)
	})
	s.terminate(i.ID)
	err = p.AttachVolume(s.ctx, made.ID, i.ID)
	s.refused(err, "a volume cannot be attached to a terminated instance", provider.ErrNotFound, provider.ErrInvalid)
	s.catchUp(volumes, "")
	s.free(made.ID, "a refused call leaves the volume as it is")
}

func volumesAtLaunch(s *suite, p provider.Volumes) {
	const late = "a launch with a volume attaches it, or leaves it free to be attached once the instance runs"
	first := s.running()
	one, two := s.volume(first.Placement), s.volume(first.Placement)
	with := func(l *provider.Launch) { l.Placement, l.Volumes = first.Placement, []string{one.ID, two.ID} }
	run := func() provider.Instance {
		i := s.running(with)
		for _, v := range []provider.Volume{one, two} {
			s.ok(p.AttachVolume(s.ctx, v.ID, i.ID), late)
			s.attached(v.ID, i.ID)
		}
		return i
	}
	i := run()
	s.write(i, s.attached(one.ID, i.ID), "one")
	s.write(i, s.attached(two.ID, i.ID), "two")
	s.terminate(i.ID)
	s.free(one.ID, "the volumes of a terminated instance stay, and are free")
	s.free(two.ID, "the volumes of a terminated instance stay, and are free")
	successor := run()
	s.read(successor, s.attached(one.ID, successor.ID), "one", "data follows a volume to the successor of an instance")
	s.read(successor, s.attached(two.ID, successor.ID), "two", "data follows a volume to the successor of an instance")
}

func volumePlacement(s *suite, p provider.Volumes) {
	if s.OtherPlacement == "" {
		s.Skipf("Subject.OtherPlacement is empty")
	}
	i := s.running()
	v := s.volume(s.OtherPlacement)
	s.rule(v.Placement == s.OtherPlacement, "a volume is in the placement that was asked for", "got %q, want %q", v.Placement, s.OtherPlacement)
	s.refused(p.AttachVolume(s.ctx, v.ID, i.ID), "a volume cannot be attached in another placement", provider.ErrInvalid)
	l := s.Launch
	l.Token, l.Tags, l.Placement, l.Volumes = s.token(), s.tags, i.Placement, []string{v.ID}
	_, err := s.Provider.Launch(s.ctx, l)
	s.refused(err, "a launch in another placement than its volume's is ErrInvalid", provider.ErrInvalid)
	s.only(instances, "", "a refused call makes nothing", i.ID)
	s.free(v.ID, "a refused call leaves the volume as it is")
}
