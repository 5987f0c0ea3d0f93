package providertest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

func instanceCases() []testCase {
	return []testCase{
		{"Launch/Run", launchRuns},
		{"Launch/TokenOfTerminated", tokenOfTerminated},
		{"Launch/UnknownNames", unknownNames},
		{"Launch/Secrets", secrets},
		{"Terminate/Ends", terminateEnds},
		{"Terminate/Unknown", terminateUnknown},
	}
}

func launchRuns(s *suite) {
	begin := time.Now()
	i := s.launch()
	s.rule(i.State == provider.Pending || i.State == provider.Running, "a launch returns an instance that is pending or running", "got %s", i)
	one, two := s.until(provider.Running, i.ID), s.running()
	for _, i := range []provider.Instance{one, two} {
		const rule = "the list shows what was launched"
		s.rule(i.Name == "scalr-test", rule, "Name is %q, want %q", i.Name, "scalr-test")
		s.rule(i.Image == s.Launch.Image, rule, "Image is %q, want %q", i.Image, s.Launch.Image)
		s.rule(s.Launch.Size == "" || i.Size == s.Launch.Size, rule, "Size is %q, want %q", i.Size, s.Launch.Size)
		s.rule(s.Launch.Placement == "" || i.Placement == s.Launch.Placement, rule, "Placement is %q, want %q", i.Placement, s.Launch.Placement)
		s.rule(!i.Launched.Before(begin.Add(-time.Hour)) && !i.Launched.After(time.Now().Add(time.Hour)), rule,
			"Launched is %s, now is %s", i.Launched, time.Now())
		s.rule(i.Private.IsValid(), "a running instance has an address inside the cloud", "got %s", i)
		if s.Alive != nil {
			s.eventually("the machine of a running instance works", func() (bool, string) { return s.Alive(i), i.String() + " does not" })
		}
	}
	s.rule(one.Private != two.Private, "no two instances have the same private address", "%s and %s", one, two)
}

func tokenOfTerminated(s *suite) {
	const rule = "the token of a terminated instance meets the terminated instance, not a new one"
	token := s.token()
	set := func(l *provider.Launch) { l.Token = token }
	i := s.launch(set)
	s.until(provider.Running, i.ID)
	s.terminate(i.ID)
	again := s.launch(set)
	s.rule(again.ID == i.ID && again.State.Gone(), rule, "terminated %s, then got %s", i.ID, again)
	list, err := s.Provider.Instances(s.ctx, s.tags)
	s.ok(err, "instances can be listed")
	for _, x := range list {
		s.rule(x.ID == i.ID && x.State.Gone(), rule, "%s is listed", x)
	}
}

func unknownNames(s *suite) {
	for field, set := range map[string]func(*provider.Launch){
		"Image":     func(l *provider.Launch) { l.Image = "" },
		"Volumes":   func(l *provider.Launch) { l.Volumes = []string{""} },
		"Name":      func(l *provider.Launch) { l.Name = "not a label" },
		"Size":      func(l *provider.Launch) { l.Size = "no-such-size" },
		"Placement": func(l *provider.Launch) { l.Placement = "no-such-placement" },
	} {
		l := s.Launch
		l.Token, l.Tags = s.token(), s.tags
		set(&l)
		_, err := s.Provider.Launch(s.ctx, l)
		s.refused(err, fmt.Sprintf("a launch with a bad %s is ErrInvalid", field), provider.ErrInvalid)
		s.rule(strings.Contains(err.Error(), field), "an ErrInvalid names the field", "got %q, want it to name %s", err, field)
	}
	l := s.Launch
	l.Token, l.Tags, l.Image = s.token(), s.tags, "no-such-image"
	_, err := s.Provider.Launch(s.ctx, l)
	s.refused(err, "a launch of an unknown image is ErrInvalid or ErrNotFound", provider.ErrInvalid, provider.ErrNotFound)
	s.only(instances, "", "a refused call makes nothing")
}

func secrets(s *suite) {
	const secret = "correct-horse-battery-staple"
	l := s.Launch
	l.Token, l.Tags, l.Image, l.UserData = s.token(), s.tags, "no-such-image", provider.Secret(secret)
	_, err := s.Provider.Launch(s.ctx, l)
	for _, text := range []string{fmt.Sprint(err), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		s.rule(!strings.Contains(text, secret), "no error shows the user data", "got %q", text)
	}
}

func terminateEnds(s *suite) {
	i, other := s.running(), s.running()
	s.ok(s.Provider.Terminate(s.ctx, i.ID), "an instance can be terminated")
	s.untilGone(i.ID)
	s.dead(i, "the machine of a terminated instance is off")
	s.ok(s.Provider.Terminate(s.ctx, i.ID), "ending what is gone is no error")
	left, ok := s.find(other.ID)
	s.rule(ok && left.State == provider.Running, "only what a call names is ended", "%s was terminated; the other one is %s", i.ID, left)

	// What has not run yet can be terminated as well.
	young := s.launch()
	s.terminate(young.ID)
	s.dead(young, "the machine of a terminated instance is off")
}

func terminateUnknown(s *suite) {
	i := s.launch()
	s.terminate(i.ID)
	// An ID of the provider's own form that no instance has: cloud ones are random enough in their last character.
	last := i.ID[len(i.ID)-1]
	for _, c := range []byte("0123456789abcdef") {
		if id := i.ID[:len(i.ID)-1] + string(c); c != last {
			list, err := s.Provider.Instances(s.ctx, nil)
			s.ok(err, "nil tags list everything")
			if !slices.ContainsFunc(list, func(x provider.Instance) bool { return x.ID == id }) {
				s.ok(s.Provider.Terminate(s.ctx, id), "terminating an unknown instance is no error")
				return
			}
		}
	}
}
