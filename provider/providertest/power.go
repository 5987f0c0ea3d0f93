package providertest

import (
	"fmt"

	"github.com/scalr-go/scalr/provider"
)

func powerCases() []testCase {
	on := func(f func(*suite, provider.Power)) func(*suite) {
		return func(s *suite) { f(s, capability[provider.Power](s)) }
	}
	return []testCase{
		{"Power/StopStart", on(stopStart)},
		{"Power/Reboot", on(reboot)},
		{"Power/Gone", on(powerGone)},
	}
}

func stopStart(s *suite, p provider.Power) {
	i, other := s.running(), s.running()
	withVolume := has[provider.Volumes](s.Provider)
	var volumes provider.Volumes
	var v provider.Volume
	if withVolume {
		volumes = as[provider.Volumes](s.Provider)
		v = s.volume(i.Placement)
		s.ok(volumes.AttachVolume(s.ctx, v.ID, i.ID), "a free volume can be attached")
		v = s.attached(v.ID, i.ID)
		s.write(i, v, "kept")
	}
	s.ok(p.Stop(s.ctx, i.ID), "a running instance can be stopped")
	s.dead(i, "the machine is off when Stop returns")
	s.until(provider.Stopped, i.ID)
	s.ok(p.Stop(s.ctx, i.ID), "stopping a stopped instance is no error")
	left, ok := s.find(other.ID)
	s.rule(ok && left.State == provider.Running, "only what a call names is stopped", "the other one is %s", left)

	s.ok(p.Start(s.ctx, i.ID), "a stopped instance can be started")
	back := s.until(provider.Running, i.ID)
	s.rule(back.Private.IsValid(), "a running instance has an address inside the cloud", "got %s", back)
	if s.Alive != nil {
		s.eventually("the machine of an instance that was started again works", func() (bool, string) { return s.Alive(back), back.String() })
	}
	s.ok(p.Start(s.ctx, i.ID), "starting a running instance is no error")
	if withVolume {
		s.eventually("volumes stay with a stopped instance, or can be attached to it again", func() (bool, string) {
			err := volumes.AttachVolume(s.ctx, v.ID, i.ID)
			return err == nil, fmt.Sprint(err)
		})
		s.read(back, s.attached(v.ID, i.ID), "kept", "the data of a stopped instance stays")
	}
	s.ok(p.Stop(s.ctx, i.ID), "a running instance can be stopped")
	s.until(provider.Stopped, i.ID)
	s.terminate(i.ID)
}

func reboot(s *suite, p provider.Power) {
	i := s.running()
	s.ok(p.Reboot(s.ctx, i.ID), "a running instance can be rebooted")
	back := s.until(provider.Running, i.ID)
	s.rule(back.Private == i.Private, "a rebooted instance keeps its address", "%s before, %s after", i, back)
	if s.Alive != nil {
		s.eventually("the machine of a rebooted instance works", func() (bool, string) { return s.Alive(back), back.String() })
	}
}

func powerGone(s *suite, p provider.Power) {
	i := s.running()
	s.terminate(i.ID)
	s.ok(p.Stop(s.ctx, i.ID), "stopping what is gone is no error")
	s.refused(p.Start(s.ctx, i.ID), "what is gone cannot be started", provider.ErrNotFound, provider.ErrInvalid)
	s.refused(p.Reboot(s.ctx, i.ID), "what is gone cannot be rebooted", provider.ErrNotFound, provider.ErrInvalid)
	s.dead(i, "what is gone stays off")
}
