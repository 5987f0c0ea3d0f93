package providertest

import (
	"fmt"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// snapshot takes a snapshot of a volume and waits until it is ready.
func (s *suite) snapshot(volume string) provider.Snapshot {
	s.Helper()
	p := as[provider.Snapshots](s.Provider)
	made, err := p.CreateSnapshot(s.ctx, provider.SnapshotSpec{Token: s.token(), Name: "scalr-test", Volume: volume, Tags: s.with("kind", "snapshot")})
	s.ok(err, "a good request for one snapshot succeeds")
	s.rule(made.Volume == volume, "a snapshot names its volume", "got %q, want %q", made.Volume, volume)
	s.eventually("a snapshot gets ready", func() (bool, string) {
		list, err := p.Snapshots(s.ctx, s.tags)
		s.ok(err, "snapshots can be listed")
		for _, x := range list {
			if x.ID == made.ID {
				made = x
				return x.Ready, fmt.Sprintf("%+v", x)
			}
		}
		return false, made.ID + " is not listed"
	})
	age := time.Since(made.Created)
	s.rule(age > -time.Hour && age < time.Hour, "a listed snapshot says when it was taken", "got %v, want about %v", made.Created, time.Now())
	return made
}

func snapshotCases() []testCase {
	on := func(f func(*suite, provider.Volumes, provider.Snapshots)) func(*suite) {
		return func(s *suite) { f(s, capability[provider.Volumes](s), capability[provider.Snapshots](s)) }
	}
	return []testCase{
		{"Snapshots/Restore", on(restore)},
		{"Snapshots/Refused", on(snapshotRefused)},
	}
}

func restore(s *suite, p provider.Volumes, snaps provider.Snapshots) {
	i := s.running()
	v := s.volume(i.Placement)
	use := func(v provider.Volume) provider.Volume {
		s.ok(p.AttachVolume(s.ctx, v.ID, i.ID), "a free volume can be attached")
		return s.attached(v.ID, i.ID)
	}
	v = use(v)
	s.write(i, v, "before")
	first := s.snapshot(v.ID) // of an attached volume
	s.write(i, v, "after")
	s.ok(p.DetachVolume(s.ctx, v.ID), "an attached volume can be detached")
	second := s.snapshot(v.ID) // of a free one
	s.ok(p.DeleteVolume(s.ctx, v.ID), "a volume with snapshots can be deleted, and they stay")

	from := func(snapshot string) func(*provider.VolumeSpec) {
		return func(s *provider.VolumeSpec) { s.Snapshot, s.SizeGB = snapshot, 0 }
	}
	old := use(s.volume(i.Placement, from(first.ID)))
	s.rule(old.SizeGB >= first.SizeGB && first.SizeGB > 0, "a volume from a snapshot is as large as that", "snapshot %d GB, volume %d GB", first.SizeGB, old.SizeGB)
	s.read(i, old, "before", "a volume from a snapshot has what the volume had at that instant")
	s.write(i, old, "changed")
	late := use(s.volume(i.Placement, from(second.ID)))
	s.read(i, late, "after", "a volume from a snapshot has what the volume had at that instant")
	twin := use(s.volume(i.Placement, from(first.ID)))
	s.read(i, twin, "before", "a snapshot stays as it is, whatever is done to volumes from it")

	s.eventually("a snapshot can be deleted", func() (bool, string) {
		err := snaps.DeleteSnapshot(s.ctx, first.ID)
		return err == nil, fmt.Sprint(err)
	})
	s.attached(twin.ID, i.ID)
	s.read(i, twin, "before", "volumes from a deleted snapshot stay")
	s.read(i, old, "changed", "volumes from a deleted snapshot stay")
}

func snapshotRefused(s *suite, p provider.Volumes, snaps provider.Snapshots) {
	_, err := snaps.CreateSnapshot(s.ctx, provider.SnapshotSpec{Token: s.token(), Tags: s.tags})
	s.refused(err, "a snapshot of no volume is ErrInvalid", provider.ErrInvalid)
	v := s.volume(s.Launch.Placement)
	x := s.snapshot(v.ID)
	s.eventually("a snapshot can be deleted", func() (bool, string) {
		err := snaps.DeleteSnapshot(s.ctx, x.ID)
		return err == nil, fmt.Sprint(err)
	})
	s.ok(p.DeleteVolume(s.ctx, v.ID), "a volume whose snapshots are gone can be deleted")
	s.unlisted(snapshots, x.ID)
	s.unlisted(volumes, v.ID)
	_, err = snaps.CreateSnapshot(s.ctx, provider.SnapshotSpec{Token: s.token(), Volume: v.ID, Tags: s.tags})
	s.refused(err, "a snapshot of a volume that does not exist is ErrNotFound or ErrInvalid", provider.ErrNotFound, provider.ErrInvalid)
	spec := s.Volume
	spec.Token, spec.Tags, spec.Snapshot, spec.Placement = s.token(), s.tags, x.ID, s.Launch.Placement
	_, err = p.CreateVolume(s.ctx, spec)
	s.refused(err, "a volume from a snapshot that does not exist is ErrNotFound or ErrInvalid", provider.ErrNotFound, provider.ErrInvalid)
}
