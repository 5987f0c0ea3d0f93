// Package providertest holds a provider.Provider to the rules that package provider states, whatever cloud is behind it:
//
//	func TestConformance(t *testing.T) {
//		providertest.Run(t, func(t *testing.T) providertest.Subject {
//			return providertest.Subject{Provider: mycloud.New(…), Launch: provider.Launch{Image: "debian-13"}}
//		})
//	}
//
// It checks the three methods of Provider and in full each capability that provider.As finds. A failure begins with the
// rule that is broken, in words. Each case tags what it creates with a mark of its own, touches nothing else, and ends
// it again, so the suite may run against an account that is in use; it costs some sixty short-lived instances.
package providertest

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Subject is a provider under test, and what the suite has to know of its cloud.
type Subject struct {
	// Provider is what is tested.
	Provider provider.Provider

	// Another, if not nil, makes one more Provider for the same cloud, as another process would have it that shares no
	// memory with the first. Nil leaves out what concerns two processes.
	Another func() provider.Provider

	// Launch is what every launch of the suite has in common: Image at least, and what else the cloud needs. The suite
	// sets Token, Name, Volumes and Tags, and adds its tags to those given here.
	Launch provider.Launch

	// OtherPlacement is another placement than the one that Launch leads to, for the rule that volumes are bound to
	// theirs. Empty leaves that out.
	OtherPlacement string

	// Volume, Address and Balancer are what the creations of these have in common. A zero SizeGB means 1; a zero
	// Protocol and Port mean tcp and 80.
	Volume   provider.VolumeSpec
	Address  provider.AddressSpec
	Balancer provider.BalancerSpec

	// Wait bounds each wait for something that the cloud does by itself (an instance that boots, a list that catches
	// up). 0 means a minute. A real cloud wants several.
	Wait time.Duration

	// Faulty says that the cloud fails now and then, as behind a proxy that injects faults: a call that fails with
	// ErrThrottled, ErrAmbiguous or an error of no kind is made again, as package provider tells callers to do.
	Faulty bool

	// Alive, if not nil, finds out whether the machine of an instance works at this moment, without asking the provider.
	// With it the suite checks that a stopped or terminated instance is really off.
	Alive func(i provider.Instance) bool

	// Write and Read, if not nil, write one string to a volume that a running instance has, and read it back ("" from
	// an empty volume). With them the suite checks that data follows volumes and snapshots.
	Write func(ctx context.Context, i provider.Instance, v provider.Volume, data string) error
	Read  func(ctx context.Context, i provider.Instance, v provider.Volume) (string, error)

	// Unchecked says of cases that cannot be run there why, by the case's name as the test shows it: "Snapshots/Restore".
	Unchecked map[string]string
}

// Run checks all rules, each case as a subtest with a Subject of its own. The factory may return the same Provider again.
func Run(t *testing.T, factory func(t *testing.T) Subject) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { runCase(t, c, factory(t)) })
	}
}

// testCase is one subtest.
type testCase struct {
	name string
	run  func(*suite)
}

func cases() []testCase {
	var all []testCase
	for _, k := range kinds() {
		all = append(all, commonCases(k)...)
	}
	return slices.Concat(all, instanceCases(), volumeCases(), snapshotCases(), addressCases(), balancerCases(),
		imageCases(), powerCases(), tagCases(), commandCases())
}

// tb is the part of testing.TB that cases use, so that the suite's own tests can record what it finds.
type tb interface {
	Helper()
	Failed() bool
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// runCase runs one case, and ends what it has made.
func runCase(t tb, c testCase, sub Subject) {
	t.Helper()
	if why, ok := sub.Unchecked[c.name]; ok {
		t.Skipf("cannot be checked there: %s", why)
	}
	known := cases()
	for name := range sub.Unchecked {
		if !slices.ContainsFunc(known, func(c testCase) bool { return c.name == name }) {
			t.Fatalf("Subject.Unchecked names %q, which is no case", name)
		}
	}
	if sub.Provider == nil || sub.Launch.Image == "" {
		t.Fatalf("Subject.Provider or Subject.Launch.Image is not set")
	}
	if sub.Wait == 0 {
		sub.Wait = time.Minute
	}
	if sub.Volume.SizeGB == 0 {
		sub.Volume.SizeGB = 1
	}
	if sub.Balancer.Protocol == "" {
		sub.Balancer.Protocol = "tcp"
	}
	if sub.Balancer.Port == 0 {
		sub.Balancer.Port = 80
	}
	if sub.Faulty {
		sub.Provider = patient{sub.Provider, sub.Wait, sub.poll()}
		if another := sub.Another; another != nil {
			sub.Another = func() provider.Provider { return patient{another(), sub.Wait, sub.poll()} }
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*sub.Wait)
	defer cancel()
	mark := "t" + rand.Text()[:16]
	s := &suite{tb: t, Subject: sub, ctx: ctx, mark: mark, tags: maps.Clone(sub.Launch.Tags)}
	if s.tags == nil {
		s.tags = map[string]string{}
	}
	s.tags["providertest"] = mark
	defer s.cleanUp()
	c.run(s)
}
